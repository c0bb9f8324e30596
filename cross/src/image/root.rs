//! Debian's root with our programs, units and settings: a tar whose bytes depend on its input alone.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tar::{Archive, Builder, EntryType, Header};

use super::contents::{Share, Shares};
use super::kernel::Kernel;
use super::recipe::Recipe;
use super::{Epoch, ImageError, io_error};
use crate::build::Program;

/// Files of Debian's root that ours replace or that would say what is not so on a box.
const LEFT_OUT: &[&str] = &[
    "etc/hostname",
    "etc/ssh/ssh_host_ed25519_key",
    "etc/ssh/ssh_host_rsa_key",
    "etc/ssh/ssh_host_ecdsa_key",
];

/// Units that start with the box, with what wants them.
const ENABLED: &[(&str, &str)] = &[
    ("multi-user.target.wants", "systemd-networkd.service"),
    (
        "network-online.target.wants",
        "systemd-networkd-wait-online.service",
    ),
    ("sockets.target.wants", "systemd-networkd.socket"),
    ("multi-user.target.wants", "ssh.service"),
    ("var.mount.wants", "edge-factory-reset.service"),
    ("sysinit.target.wants", "edge-first-start.service"),
    ("multi-user.target.wants", "edge-agent.service"),
    ("edge-agent.service.wants", "edge-ota-confirm.service"),
];

/// Files of `/etc` that are made at each start, with where.
const MADE_AT_START: &[(&str, &str)] = &[("etc/localtime", "/run/edge/localtime")];

/// What a root is made of.
#[derive(Debug)]
pub struct Tree<'a> {
    /// Debian's root, in a tar.
    pub debian: &'a Path,
    /// The kernel, whose drivers go in.
    pub kernel: &'a Kernel,
    /// Our programs.
    pub programs: &'a [Program],
    /// ONNX Runtime for the board.
    pub onnxruntime: &'a Path,
    /// What the board needs.
    pub recipe: &'a Recipe,
    /// The time of every file.
    pub epoch: Epoch,
}

enum Content {
    Folder,
    File { from: PathBuf, mode: u32 },
    Link(PathBuf),
}

impl Tree<'_> {
    /// Writes the tar, and says what takes the room.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn write(&self, path: &Path, scratch: &Path) -> Result<Vec<Share>, ImageError> {
        let ours = self.ours(scratch)?;
        let mut shares = Shares::default();
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |source| ImageError::Io {
                operation: "write",
                path,
                source,
            }
        };
        let file = File::create(path).map_err(failed(path))?;
        let mut tar = Builder::new(BufWriter::with_capacity(1 << 20, file));
        self.copy_debian(&ours, &mut tar, &mut shares)?;
        for (name, content) in &ours {
            let mut header = Header::new_gnu();
            header.set_mtime(self.epoch.0);
            header.set_uid(0);
            header.set_gid(0);
            match content {
                Content::Folder => {
                    header.set_entry_type(EntryType::Directory);
                    header.set_mode(0o755);
                    header.set_size(0);
                    tar.append_data(&mut header, format!("{name}/"), io::empty())
                        .map_err(failed(path))?;
                }
                Content::Link(to) => {
                    header.set_entry_type(EntryType::Symlink);
                    header.set_mode(0o777);
                    header.set_size(0);
                    tar.append_link(&mut header, name, to)
                        .map_err(failed(path))?;
                }
                Content::File { from, mode } => {
                    let source = File::open(from).map_err(io_error("read", from))?;
                    let bytes = source.metadata().map_err(io_error("read", from))?.len();
                    header.set_entry_type(EntryType::Regular);
                    header.set_mode(*mode);
                    header.set_size(bytes);
                    tar.append_data(&mut header, name, BufReader::new(source))
                        .map_err(failed(path))?;
                    shares.add(name, bytes);
                }
            }
        }
        let mut buffer = tar.into_inner().map_err(failed(path))?;
        buffer.flush().map_err(failed(path))?;
        Ok(shares.list())
    }

    fn copy_debian(
        &self,
        ours: &BTreeMap<String, Content>,
        tar: &mut Builder<impl Write>,
        shares: &mut Shares,
    ) -> Result<(), ImageError> {
        let failed = || io_error("copy", self.debian);
        let file = File::open(self.debian).map_err(failed())?;
        let mut archive = Archive::new(BufReader::with_capacity(1 << 20, file));
        for entry in archive.entries().map_err(failed())? {
            let mut entry = entry.map_err(failed())?;
            let path = entry.path().map_err(failed())?.into_owned();
            let name = path.to_string_lossy();
            let name = name.trim_start_matches("./").to_owned();
            let plain = name.trim_end_matches('/');
            let is_folder = entry.header().entry_type() == EntryType::Directory;
            let is_ours = ours.contains_key(plain) && !is_folder;
            let shown = if is_folder {
                format!("{plain}/")
            } else {
                plain.to_owned()
            };
            if plain.is_empty()
                || is_ours
                || LEFT_OUT.contains(&plain)
                || self.recipe.leaves_out(&shown)
            {
                continue;
            }
            let mut header = entry.header().clone();
            header.set_mtime(self.epoch.0);
            // Names and targets that are too long for the header come in extensions, which these calls write anew.
            match entry.link_name().map_err(failed())? {
                Some(target) => {
                    let target = target.into_owned();
                    tar.append_link(&mut header, &shown, target)
                        .map_err(failed())?;
                }
                None => {
                    shares.add(plain, entry.size());
                    let mut content: Box<dyn Read> = Box::new(&mut entry);
                    tar.append_data(&mut header, &shown, &mut content)
                        .map_err(failed())?;
                }
            }
        }
        Ok(())
    }

    /// What we add, by path: a folder comes before what is in it.
    fn ours(&self, scratch: &Path) -> Result<BTreeMap<String, Content>, ImageError> {
        let repository = crate::repository();
        let mut all = BTreeMap::new();
        let drivers = scratch.join("drivers");
        self.kernel.copy_drivers(&drivers)?;
        add_folder(&mut all, &drivers.join("usr"), "usr", 0o644)?;
        for program in self.programs {
            add(
                &mut all,
                &format!("usr/bin/{}", program.name),
                Content::File {
                    from: program.path.clone(),
                    mode: 0o755,
                },
            );
        }
        add(
            &mut all,
            "usr/lib/edge-agent/libonnxruntime.so",
            Content::File {
                from: self.onnxruntime.to_path_buf(),
                mode: 0o644,
            },
        );
        let models = crate::committed_models();
        add_folder(&mut all, &models, "usr/share/edge-agent/models", 0o644)?;
        for package in ["edge-agent", "ota"] {
            let folder = repository.join(package).join("systemd");
            for file in files_in(&folder)? {
                let name = file.file_name().unwrap_or_default().to_string_lossy();
                let (stem, end) = name.rsplit_once('.').unwrap_or((&name, ""));
                let place = match end {
                    "rules" => format!("usr/lib/udev/rules.d/{name}"),
                    "sysusers" => format!("usr/lib/sysusers.d/{stem}.conf"),
                    "tmpfiles" => format!("usr/lib/tmpfiles.d/{stem}.conf"),
                    _ => format!("usr/lib/systemd/system/{name}"),
                };
                add(
                    &mut all,
                    &place,
                    Content::File {
                        from: file,
                        mode: 0o644,
                    },
                );
            }
        }
        let settings = repository.join("cross/image/root");
        add_folder(&mut all, &settings, "", 0o644)?;
        let mut enabled = ENABLED.to_vec();
        if self.recipe.is_started_by_u_boot {
            let settings = repository.join("cross/image/u-boot");
            add_folder(&mut all, &settings, "", 0o644)?;
            enabled.push(("local-fs.target.wants", "boot.automount"));
        }
        for (target, unit) in enabled {
            let link = format!("etc/systemd/system/{target}/{unit}");
            let ours = all.contains_key(&format!("etc/systemd/system/{unit}"));
            let folder = if ours { "/etc" } else { "/usr/lib" };
            let to = PathBuf::from(format!("{folder}/systemd/system/{unit}"));
            add(&mut all, &link, Content::Link(to));
        }
        for (name, made) in MADE_AT_START {
            add(&mut all, name, Content::Link(PathBuf::from(made)));
        }
        Ok(all)
    }
}

/// Adds a file or link, and the folders above it.
fn add(all: &mut BTreeMap<String, Content>, name: &str, content: Content) {
    for (end, _) in name.match_indices('/') {
        let folder = name.get(..end).unwrap_or_default();
        all.entry(folder.to_owned()).or_insert(Content::Folder);
    }
    all.insert(name.to_owned(), content);
}

/// Adds what is in a folder; programs keep that they can be run.
fn add_folder(
    all: &mut BTreeMap<String, Content>,
    folder: &Path,
    place: &str,
    mode: u32,
) -> Result<(), ImageError> {
    for file in files_in(folder)? {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let name = if place.is_empty() {
            name.into_owned()
        } else {
            format!("{place}/{name}")
        };
        if file.is_dir() {
            add_folder(all, &file, &name, mode)?;
        } else {
            let metadata = fs::metadata(&file).map_err(io_error("read", &file))?;
            let runs = metadata.permissions().mode() & 0o111 != 0;
            let mode = if runs { 0o755 } else { mode };
            add(all, &name, Content::File { from: file, mode });
        }
    }
    Ok(())
}

fn files_in(folder: &Path) -> Result<Vec<PathBuf>, ImageError> {
    let entries = fs::read_dir(folder).map_err(io_error("read", folder))?;
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<_>>()
        .map_err(io_error("read", folder))?;
    files.sort();
    Ok(files)
}
