//! The note that a process leaves when a signal kills it: what its threads were doing. Knows nothing of what that is.
//!
//! What may kill the process is an [`Activity`]: a name, and whether a thread is at it. That costs a thread two stores
//! in memory; only the signal's handler writes a file. After the next start [`Note::take`] tells what was read from it.

use std::{
    cell::Cell,
    fs::{File, OpenOptions},
    io::{self, Read as _},
    os::fd::IntoRawFd as _,
    path::Path,
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicI32, AtomicU8, Ordering},
    },
};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// Activities at once; those beyond leave no note.
const ACTIVITIES_MAX: usize = 256;
/// Longest name of an activity in bytes; the rest is cut off.
pub const NAME_MAX_BYTES: usize = 160;
/// Longest note in bytes.
const NOTE_MAX_BYTES: u64 = 64 << 10;

/// Signals that kill a process which did something wrong (signal(7)).
const DEADLY: [Signal; 5] = [
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGILL,
    Signal::SIGFPE,
    Signal::SIGABRT,
];

/// What a thread may be at.
struct Slot {
    is_taken: AtomicBool,
    /// The kernel's number of the thread that is at it; 0 for none.
    thread: AtomicI32,
    name: [AtomicU8; NAME_MAX_BYTES],
}

static SLOTS: [Slot; ACTIVITIES_MAX] = [const {
    Slot {
        is_taken: AtomicBool::new(false),
        thread: AtomicI32::new(0),
        name: [const { AtomicU8::new(0) }; NAME_MAX_BYTES],
    }
}; ACTIVITIES_MAX];

/// The file that the handler writes to; -1 for none.
static FILE: AtomicI32 = AtomicI32::new(-1);

/// What was done at each of [`DEADLY`] before.
static BEFORE: OnceLock<Vec<(Signal, SigAction)>> = OnceLock::new();

thread_local! {
    /// The kernel's number of this thread; 0 until it is asked for.
    static THREAD: Cell<i32> = const { Cell::new(0) };
}

/// Something that may kill the process.
#[derive(Debug)]
pub struct Activity(Option<usize>);

/// A thread is at an [`Activity`] until this is dropped.
#[derive(Debug)]
pub struct Underway<'a>(&'a Activity);

impl Activity {
    /// An activity that nobody is at. Line breaks in its name become spaces.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let index = SLOTS
            .iter()
            .position(|slot| !slot.is_taken.swap(true, Ordering::AcqRel));
        let activity = Self(index);
        if let Some(slot) = activity.slot() {
            let letters = name
                .bytes()
                .map(|byte| if byte == b'\n' { b' ' } else { byte });
            for (place, byte) in slot.name.iter().zip(letters.chain(std::iter::repeat(0))) {
                place.store(byte, Ordering::Relaxed);
            }
        }
        activity
    }

    fn slot(&self) -> Option<&'static Slot> {
        SLOTS.get(self.0?)
    }

    /// This thread is at it from now on. One thread at a time can be.
    pub fn begin(&self) -> Underway<'_> {
        if let Some(slot) = self.slot() {
            slot.thread.store(this_thread(), Ordering::Release);
        }
        Underway(self)
    }
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.0.slot() {
            slot.thread.store(0, Ordering::Release);
        }
    }
}

impl Drop for Activity {
    fn drop(&mut self) {
        if let Some(slot) = self.slot() {
            slot.is_taken.store(false, Ordering::Release);
        }
    }
}

fn this_thread() -> i32 {
    THREAD.with(|thread| {
        if thread.get() == 0 {
            thread.set(nix::unistd::gettid().as_raw());
        }
        thread.get()
    })
}

/// What a process was doing when a signal killed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The signal's number.
    pub signal: i32,
    /// What the thread was at that the signal came to.
    pub here: Vec<String>,
    /// What other threads were at.
    pub elsewhere: Vec<String>,
}

impl Note {
    /// Reads and clears the note at `path`, if there is one, and leaves one there when this process is killed.
    ///
    /// # Errors
    /// When the file cannot be made, or the system refuses the handlers.
    pub fn take(path: &Path) -> io::Result<Option<Self>> {
        let mut text = String::new();
        if let Ok(file) = File::open(path) {
            // A note that is no text says nothing.
            file.take(NOTE_MAX_BYTES).read_to_string(&mut text).ok();
        }
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?;
        // Open until the process ends: the handler writes to it.
        FILE.store(file.into_raw_fd(), Ordering::Release);
        install()?;
        Ok(Self::parse(&text))
    }

    /// Reads a note's text.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let mut note = Self {
            signal: lines.next()?.strip_prefix("signal ")?.parse().ok()?,
            here: Vec::new(),
            elsewhere: Vec::new(),
        };
        for line in lines {
            match line.split_once(' ') {
                Some(("here", name)) => note.here.push(name.to_owned()),
                Some(("elsewhere", name)) => note.elsewhere.push(name.to_owned()),
                _ => {}
            }
        }
        Some(note)
    }
}

/// Installs the handler, once for the process.
fn install() -> io::Result<()> {
    if BEFORE.get().is_some() {
        return Ok(());
    }
    let action = SigAction::new(
        SigHandler::Handler(leave_note),
        // On the stack that Rust's threads have for overflows.
        SaFlags::SA_ONSTACK,
        SigSet::empty(),
    );
    let mut before = Vec::new();
    for signal in DEADLY {
        // SAFETY: the handler calls only what signal-safety(7) allows: it reads atomics, and calls write, gettid and
        // sigaction.
        #[allow(unsafe_code, reason = "a signal handler has no safe form")]
        before.push((signal, unsafe { sigaction(signal, &action) }?));
    }
    BEFORE.set(before).ok();
    Ok(())
}

/// Writes the note, and lets what was done before at this signal have it: the instruction that failed fails again.
extern "C" fn leave_note(signal: libc::c_int) {
    let file = FILE.load(Ordering::Acquire);
    if file >= 0 {
        let thread = nix::unistd::gettid().as_raw();
        let mut line = Line::default();
        line.push(b"signal ");
        line.push_number(signal);
        line.write(file);
        for slot in &SLOTS {
            let at = slot.thread.load(Ordering::Acquire);
            if at != 0 {
                let mut line = Line::default();
                line.push(if at == thread {
                    b"here "
                } else {
                    b"elsewhere "
                });
                let letters = slot.name.iter().map(|byte| byte.load(Ordering::Relaxed));
                letters
                    .take_while(|byte| *byte != 0)
                    .for_each(|byte| line.push(&[byte]));
                line.write(file);
            }
        }
    }
    for (deadly, before) in BEFORE.get().into_iter().flatten() {
        if *deadly as libc::c_int == signal {
            // SAFETY: puts back what was there.
            #[allow(unsafe_code, reason = "a signal handler has no safe form")]
            unsafe { sigaction(*deadly, before) }.ok();
        }
    }
}

/// A line, put together without allocating.
struct Line {
    bytes: [u8; NAME_MAX_BYTES + 16],
    length: usize,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            bytes: [0; NAME_MAX_BYTES + 16],
            length: 0,
        }
    }
}

impl Line {
    fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if let Some(place) = self.bytes.get_mut(self.length) {
                *place = *byte;
                self.length += 1;
            }
        }
    }

    /// A number from 0 to 99.
    fn push_number(&mut self, number: i32) {
        let digit =
            |number: i32| u8::try_from(number.rem_euclid(10)).map_or(b'?', |digit| b'0' + digit);
        if number >= 10 {
            self.push(&[digit(number / 10)]);
        }
        self.push(&[digit(number)]);
    }

    fn write(&mut self, file: libc::c_int) {
        self.push(b"\n");
        // SAFETY: the bytes are those of `self`, of which `length` are there.
        #[allow(unsafe_code, reason = "std's File is not made for signal handlers")]
        unsafe {
            libc::write(file, self.bytes.as_ptr().cast(), self.length);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_as_the_handler_writes_it() {
        let note = Note::parse("signal 11\nhere digits 3\nelsewhere faces 1\nelsewhere cut off");
        let wanted = Note {
            signal: 11,
            here: vec!["digits 3".into()],
            elsewhere: vec!["faces 1".into(), "cut off".into()],
        };
        assert_eq!(note, Some(wanted));
        for nothing in ["", "signal", "signal x", "here digits 3"] {
            assert_eq!(Note::parse(nothing), None, "{nothing:?}");
        }
    }

    #[test]
    fn an_activity_gives_its_place_back() {
        let first = Activity::new("first\nline");
        let place = first.0;
        let underway = first.begin();
        let slot = first.slot().unwrap();
        assert_ne!(slot.thread.load(Ordering::Relaxed), 0);
        let name: Vec<u8> = slot
            .name
            .iter()
            .map(|byte| byte.load(Ordering::Relaxed))
            .collect();
        assert!(name.starts_with(b"first line\0"));
        drop(underway);
        assert_eq!(slot.thread.load(Ordering::Relaxed), 0);
        drop(first);
        let many: Vec<_> = (0..ACTIVITIES_MAX).map(|_| Activity::new("many")).collect();
        assert!(many.iter().any(|activity| activity.0 == place));
        assert_eq!(Activity::new("one too many").0, None);
    }
}
