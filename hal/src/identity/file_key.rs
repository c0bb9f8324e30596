//! An Ed25519 key in a file: PKCS#8 in PEM (RFC 8410, section 7), as `openssl genpkey -algorithm ed25519` writes it.
//!
//! A key is durable before anybody can use it, and a crash at any step of making it leaves none or a whole one.

use std::{
    fmt,
    fs::{File, OpenOptions, Permissions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use ed25519_dalek::{
    Signer as _, SigningKey,
    pkcs8::{
        ALGORITHM_OID, PrivateKeyInfoRef,
        spki::der::{SecretDocument, pem::LineEnding},
    },
};
use nix::{
    fcntl::{AT_FDCWD, OFlag, RenameFlags, renameat2},
    unistd::geteuid,
};
use zeroize::Zeroizing;

use super::{IdentityError, IdentityKey, PublicKey, Signature};

/// Longest file that is read; a key takes 119 bytes.
const MAX_FILE_BYTES: usize = 4096;
/// What comes before the 32 secret bytes in the DER of a key: SEQUENCE, version 0, id-Ed25519, OCTET STRING in OCTET
/// STRING (RFC 8410, section 7).
const DER_HEAD: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];
const PEM_LABEL: &str = "PRIVATE KEY";

/// The box's key in a file that only its user can read. Its secret is wiped from memory when it is dropped.
pub struct FileKey {
    signing: SigningKey,
    public: PublicKey,
}

/// A step of making a key, named for what is done when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// What a crash left behind is gone.
    Cleared,
    /// The new file exists under its temporary name.
    Created,
    /// The key is in it.
    Written,
    /// The key is on the disk.
    Synced,
    /// The file has its name.
    Named,
}

impl FileKey {
    /// The key in the file at `path`.
    ///
    /// # Errors
    /// [`IdentityError::Missing`] when there is no file, [`IdentityError::Unsafe`] when it is no regular file, belongs
    /// to another user or can be read by others, [`IdentityError::Damaged`] when it holds no whole key,
    /// [`IdentityError::File`].
    pub fn open(path: &Path) -> Result<Self, IdentityError> {
        let text = read_private(path)?;
        let secret = parse_pem(&text).map_err(|why| IdentityError::Damaged {
            path: path.to_owned(),
            why,
        })?;
        // Whoever made the file may have died before its name was on the disk.
        sync_folder(path)?;
        Ok(Self::from_secret(&secret))
    }

    /// The key in the file at `path`; a new one when there is none. Of several programs that do this at once, one makes
    /// the key and the others open it.
    ///
    /// # Errors
    /// As [`FileKey::open`], but for [`IdentityError::Missing`]; [`IdentityError::Random`].
    pub fn open_or_create(path: &Path) -> Result<Self, IdentityError> {
        match Self::open(path) {
            Err(IdentityError::Missing { .. }) => {}
            other => return other,
        }
        // One at a time, until this function ends: the temporary file has but one name.
        let folder = open_folder(path)?;
        folder
            .lock()
            .map_err(file_error("lock the folder of", path))?;
        match Self::open(path) {
            Err(IdentityError::Missing { .. }) => {}
            other => return other,
        }
        let mut secret = Zeroizing::new([0; 32]);
        getrandom::fill(secret.as_mut_slice())
            .map_err(|error| IdentityError::Random(error.into()))?;
        create(path, &secret, &mut |_| Ok(()))?;
        Self::open(path)
    }

    fn from_secret(secret: &[u8; 32]) -> Self {
        let signing = SigningKey::from_bytes(secret);
        let public = PublicKey::from(signing.verifying_key());
        Self { signing, public }
    }
}

impl IdentityKey for FileKey {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<Signature, IdentityError> {
        Ok(Signature(self.signing.sign(message).to_bytes()))
    }
}

impl fmt::Debug for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileKey")
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}

/// The text of a file that only this process's user can read.
fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
    let unsafe_file = |why: String, what_to_do| IdentityError::Unsafe {
        path: path.to_owned(),
        why,
        what_to_do,
    };
    let no_regular_file = |what: &str| {
        unsafe_file(
            format!("it is {what}"),
            "put the key itself into a regular file",
        )
    };
    // Not blocking, so that a pipe in its place cannot hold the agent.
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)
        .map_err(|source| match source.raw_os_error() {
            Some(libc::ENOENT) => IdentityError::Missing {
                path: path.to_owned(),
            },
            Some(libc::ELOOP) => no_regular_file("a symbolic link"),
            _ => file_error("open", path)(source),
        })?;
    let about = file.metadata().map_err(file_error("look at", path))?;
    if !about.is_file() {
        return Err(no_regular_file("no regular file"));
    }
    let user = geteuid().as_raw();
    if about.uid() != user {
        return Err(unsafe_file(
            format!(
                "it belongs to user {}, and the agent is user {user}",
                about.uid()
            ),
            "change its owner, or run the agent as that user",
        ));
    }
    if about.mode() & 0o077 != 0 {
        return Err(unsafe_file(
            format!("its mode {:o} lets others use it", about.mode() & 0o7777),
            "others may have the key: move it away and enrol the box anew, or run chmod 600 if nobody else could log in",
        ));
    }
    // With all its room from the start, so that growing leaves no copies in memory.
    let mut text = Zeroizing::new(Vec::with_capacity(MAX_FILE_BYTES + 1));
    let limit = u64::try_from(MAX_FILE_BYTES + 1).unwrap_or(u64::MAX);
    file.take(limit)
        .read_to_end(&mut text)
        .map_err(file_error("read", path))?;
    Ok(text)
}

/// The secret in a PKCS#8 PEM, or what is wrong with it.
fn parse_pem(text: &[u8]) -> Result<Zeroizing<[u8; 32]>, &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.len() > MAX_FILE_BYTES {
        return Err("it is longer than 4,096 bytes");
    }
    let text = std::str::from_utf8(text).map_err(|_| "it is not text")?;
    let (label, document) =
        SecretDocument::from_pem(text.trim_ascii()).map_err(|_| "it is no whole PEM document")?;
    if label != PEM_LABEL {
        return Err("its PEM document is no unencrypted private key");
    }
    let key: PrivateKeyInfoRef<'_> = document
        .decode_msg()
        .map_err(|_| "its PEM document is no PKCS#8 key")?;
    if key.algorithm.oid != ALGORITHM_OID || key.algorithm.parameters.is_some() {
        return Err("its key is not of Ed25519");
    }
    // The key lies as an OCTET STRING of 32 bytes in the OCTET STRING.
    let [0x04, 0x20, secret @ ..] = key.private_key.as_bytes() else {
        return Err("its key has the wrong form");
    };
    let secret: Zeroizing<[u8; 32]> = Zeroizing::new(
        secret
            .try_into()
            .map_err(|_| "its key has the wrong length")?,
    );
    if let Some(public) = key.public_key
        && public.as_bytes() != Some(SigningKey::from_bytes(&secret).verifying_key().as_bytes())
    {
        return Err("its public and its private key do not belong together");
    }
    Ok(secret)
}

/// The PEM of a key without its public half, which every reader understands.
fn to_pem(secret: &[u8; 32]) -> Result<Zeroizing<String>, io::Error> {
    let mut der = Zeroizing::new(Vec::with_capacity(DER_HEAD.len() + secret.len()));
    der.extend_from_slice(&DER_HEAD);
    der.extend_from_slice(secret);
    SecretDocument::try_from(der.as_slice())
        .and_then(|document| document.to_pem(PEM_LABEL, LineEnding::LF))
        .map_err(io::Error::other)
}

/// Writes a key to `path`, where no file may be. `after` is asked after each step whether to go on; tests stop it
/// there, as a crash would. The caller holds the folder's lock.
fn create(
    path: &Path,
    secret: &[u8; 32],
    after: &mut dyn FnMut(Step) -> io::Result<()>,
) -> Result<(), IdentityError> {
    let temporary = temporary_path(path);
    let failed = |operation| file_error(operation, &temporary);
    let pem = to_pem(secret).map_err(failed("encode the key for"))?;
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("remove the unfinished key")(error));
        }
        _ => {}
    }
    after(Step::Cleared).map_err(failed("make"))?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(failed("create"))?;
    after(Step::Created).map_err(failed("make"))?;
    // The process's umask may have taken more away than it should.
    file.set_permissions(Permissions::from_mode(0o600))
        .map_err(failed("set the mode of"))?;
    file.write_all(pem.as_bytes()).map_err(failed("write"))?;
    after(Step::Written).map_err(failed("make"))?;
    file.sync_all().map_err(failed("sync"))?;
    after(Step::Synced).map_err(failed("make"))?;
    // Refuses to replace: another program's key stays.
    renameat2(
        AT_FDCWD,
        &temporary,
        AT_FDCWD,
        path,
        RenameFlags::RENAME_NOREPLACE,
    )
    .map_err(|error| failed("give its name to")(error.into()))?;
    after(Step::Named).map_err(failed("make"))?;
    sync_folder(path)
}

/// `identity.pem` → `.identity.pem.new`, in the same folder.
fn temporary_path(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    path.with_file_name(name)
}

fn open_folder(path: &Path) -> Result<File, IdentityError> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(folder).map_err(file_error("open the folder", folder))
}

/// Puts the file's name on the disk. On a read-only file system it is there already.
fn sync_folder(path: &Path) -> Result<(), IdentityError> {
    match open_folder(path)?.sync_all() {
        Err(error) if error.raw_os_error() != Some(libc::EROFS) => {
            Err(file_error("sync the folder of", path)(error))
        }
        _ => Ok(()),
    }
}

fn file_error(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> IdentityError {
    move |source| IdentityError::File {
        operation,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: [Step; 5] = [
        Step::Cleared,
        Step::Created,
        Step::Written,
        Step::Synced,
        Step::Named,
    ];

    fn crash_after(crash: Step) -> impl FnMut(Step) -> io::Result<()> {
        move |step| {
            if step == crash {
                Err(io::Error::other("power cut"))
            } else {
                Ok(())
            }
        }
    }

    #[test]
    fn the_key_is_on_the_disk_before_it_has_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let mut steps = Vec::new();
        let path = folder.path().join("identity.pem");
        create(&path, &[7; 32], &mut |step| {
            assert_eq!(path.exists(), step == Step::Named);
            steps.push(step);
            Ok(())
        })
        .unwrap();
        assert_eq!(steps, STEPS);
    }

    /// At each step, and for what is not on the disk yet with each length that may have got there.
    #[test]
    fn a_crash_leaves_no_key_or_a_whole_one() {
        let whole = to_pem(&[7; 32]).unwrap().len();
        for crash in STEPS {
            for left in 0..=whole {
                let folder = tempfile::tempdir().unwrap();
                let path = folder.path().join("identity.pem");
                let error = create(&path, &[7; 32], &mut crash_after(crash)).unwrap_err();
                assert!(matches!(error, IdentityError::File { .. }), "{error}");
                if crash == Step::Written {
                    let file = OpenOptions::new()
                        .write(true)
                        .open(temporary_path(&path))
                        .unwrap();
                    file.set_len(left.try_into().unwrap()).unwrap();
                }
                let unfinished = FileKey::from_secret(&[7; 32]);
                if crash == Step::Named {
                    assert_eq!(
                        FileKey::open(&path).unwrap().public_key(),
                        unfinished.public_key()
                    );
                } else {
                    let error = FileKey::open(&path).unwrap_err();
                    assert!(matches!(error, IdentityError::Missing { .. }), "{error}");
                }
                let key = FileKey::open_or_create(&path).unwrap();
                assert_eq!(
                    key.public_key() == unfinished.public_key(),
                    crash == Step::Named
                );
                let again = FileKey::open_or_create(&path).unwrap();
                assert_eq!(again.public_key(), key.public_key());
                let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
                assert_eq!(names.len(), 1, "{names:?}");
                if crash != Step::Written {
                    break;
                }
            }
        }
    }

    #[test]
    fn a_key_that_appeared_meanwhile_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.pem");
        let error = create(&path, &[7; 32], &mut |step| {
            if step == Step::Synced {
                std::fs::write(&path, "another program's")?;
            }
            Ok(())
        })
        .unwrap_err();
        assert!(error.to_string().contains("give its name"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "another program's");
    }

    /// RFC 8410, section 10.3: the same key without and with its public half.
    #[test]
    fn reads_the_keys_of_the_specification() {
        let plain = "-----BEGIN PRIVATE KEY-----\n\
             MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
             -----END PRIVATE KEY-----\n";
        let secret = parse_pem(plain.as_bytes()).unwrap();
        assert_eq!(to_pem(&secret).unwrap().as_str(), plain);
        let key = FileKey::from_secret(&secret);
        let hex: String = key
            .public_key()
            .to_bytes()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(
            hex,
            "19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1"
        );
    }
}
