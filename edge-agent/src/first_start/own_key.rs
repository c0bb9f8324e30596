//! The box's key at its first start. It belongs to the agent's user, and a key is used only by its owner: so another
//! process makes it, as that user.

use std::{
    fs, io,
    os::unix::{fs::chown, process::CommandExt as _},
    path::PathBuf,
    process::{Command, Stdio},
};

use edge_hal::identity::{Fingerprint, IdentityError, KeyPlace};
use nix::unistd::{User, geteuid};

/// Why the box has no key.
#[derive(Debug, thiserror::Error)]
pub(super) enum OwnKeyError {
    #[error("there is no user {0} to own the box's key; the image must create it")]
    NoUser(String),
    #[error("cannot look up user {name}")]
    User {
        name: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot make the data folder {}", folder.display())]
    Folder {
        folder: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot start the process that makes the box's key")]
    Start(#[source] io::Error),
    #[error("the box has no key: {0}")]
    Process(String),
    #[error(transparent)]
    Key(#[from] IdentityError),
}

/// A user of the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// The user called `name`.
pub(super) fn owner(name: &str) -> Result<Owner, OwnKeyError> {
    match User::from_name(name) {
        Ok(Some(user)) => Ok(Owner {
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
        }),
        Ok(None) => Err(OwnKeyError::NoUser(name.to_owned())),
        Err(error) => Err(OwnKeyError::User {
            name: name.to_owned(),
            source: error.into(),
        }),
    }
}

/// The fingerprint of the key, which is made where there is none.
pub(super) fn ensure(place: &KeyPlace, owner: Owner) -> Result<Fingerprint, OwnKeyError> {
    let data = &place.folder;
    let folder = |source| OwnKeyError::Folder {
        folder: data.to_owned(),
        source,
    };
    if !data.is_dir() {
        fs::create_dir_all(data).map_err(folder)?;
        chown(data, Some(owner.uid), Some(owner.gid)).map_err(folder)?;
    }
    if geteuid().as_raw() == owner.uid {
        return make(place);
    }
    let program = std::env::current_exe().map_err(OwnKeyError::Start)?;
    let output = Command::new(program)
        .arg("own-key")
        .arg("--data")
        .arg(data)
        .arg("--tpm")
        .arg(&place.tpm)
        .uid(owner.uid)
        .gid(owner.gid)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .output()
        .map_err(OwnKeyError::Start)?;
    let words = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if !output.status.success() {
        return Err(OwnKeyError::Process(words(&output.stderr)));
    }
    let digits = words(&output.stdout);
    fingerprint(&digits).ok_or_else(|| {
        OwnKeyError::Process(format!(
            "its process said {:?}",
            digits.chars().take(80).collect::<String>()
        ))
    })
}

/// Makes or opens the key as this process's user.
pub(super) fn make(place: &KeyPlace) -> Result<Fingerprint, OwnKeyError> {
    Ok(place.open_or_create()?.fingerprint())
}

fn fingerprint(digits: &str) -> Option<Fingerprint> {
    let mut bytes = [0; 32];
    if digits.len() != 64 {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        let pair = digits.get(2 * index..2 * index + 2)?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(Fingerprint(bytes))
}
