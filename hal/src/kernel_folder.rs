//! Folders in which the kernel lists devices (sysfs classes), read without allocating: names go through buffers on the
//! stack. `std::fs::read_dir` and `opendir(3)` allocate for each folder and each name.

use std::{mem::MaybeUninit, os::fd::OwnedFd, path::Path};

use rustix::{
    fs::{Access, AtFlags, Mode, OFlags, RawDir, accessat, open, openat},
    io::{Errno, read},
};

/// Bytes for names that are fetched at once: some hundred.
const NAMES_BYTES: usize = 4_096;
/// Longest text of a file that is compared: names of devices and drivers have a few dozen bytes.
const MAX_TEXT_BYTES: usize = 256;

/// A folder, or a link to one, that another folder lists.
pub(crate) struct Entry<'a> {
    above: &'a OwnedFd,
    /// Its name.
    pub(crate) name: &'a str,
}

/// Lets `see` see all that `folder` lists, in no order; nothing where it cannot be listed. Names that are not UTF-8
/// are left out: the kernel has none.
pub(crate) fn each_entry(folder: &Path, mut see: impl FnMut(&Entry<'_>)) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(above) = open(folder, flags, Mode::empty()) else {
        return;
    };
    let mut buffer = [MaybeUninit::uninit(); NAMES_BYTES];
    let mut names = RawDir::new(&above, &mut buffer);
    while let Some(Ok(found)) = names.next() {
        match found.file_name().to_str() {
            Ok("." | "..") | Err(_) => {}
            Ok(name) => see(&Entry {
                above: &above,
                name,
            }),
        }
    }
}

impl Entry<'_> {
    /// Whether it is a folder with this file.
    pub(crate) fn has(&self, file: &str) -> bool {
        self.open()
            .is_ok_and(|folder| accessat(folder, file, Access::EXISTS, AtFlags::empty()).is_ok())
    }

    /// Whether it is a folder whose file `file` reads `text`, white space around it aside.
    pub(crate) fn says(&self, file: &str, text: &str) -> bool {
        let mut buffer = [0; MAX_TEXT_BYTES];
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let length = self
            .open()
            .and_then(|folder| openat(folder, file, flags, Mode::empty()))
            .and_then(|file| read(file, &mut buffer));
        length
            .ok()
            .and_then(|length| std::str::from_utf8(buffer.get(..length)?).ok())
            .is_some_and(|read| read.trim() == text)
    }

    fn open(&self) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(self.above, self.name, flags, Mode::empty())
    }
}
