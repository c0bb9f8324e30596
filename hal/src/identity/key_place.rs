//! Where a box's key lies: in its TPM where there is one, else in a file. Decided once, at the first start, and kept: a
//! box that lost its TPM must not quietly become another one.
//!
//! Nothing but the choice is kept for a key in a TPM. A power cut before the choice is on the disk changes nothing: the
//! TPM derives the same key at the next start.

use std::path::PathBuf;

use super::{FileKey, IdentityError, IdentityKey, TpmKey};
use crate::slots::state_file::{ReplacedFile, StateFile};

/// Where the kernel offers a TPM through its resource manager.
pub const TPM_DEVICE: &str = "/dev/tpmrm0";
/// The file of a key without a TPM.
const KEY: &str = "identity.key";
/// Says that the key is in the TPM: its fingerprint, in 64 digits.
const IN_TPM: &str = "identity.tpm";

/// A box's folder and its TPM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPlace {
    /// Folder of the key, or of what says that it is in the TPM.
    pub folder: PathBuf,
    /// The TPM, such as `/dev/tpmrm0`; it need not be there.
    pub tpm: PathBuf,
}

impl KeyPlace {
    /// What is on the disk: the key, or what says that it is in the TPM. Its owner is who may use the key.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        let in_tpm = self.folder.join(IN_TPM);
        if in_tpm.exists() {
            in_tpm
        } else {
            self.folder.join(KEY)
        }
    }

    /// The key; a new one at the first start.
    ///
    /// # Errors
    /// [`IdentityError`]. A TPM that is there and does not work is an error, and no reason to take a file.
    pub fn open_or_create(&self) -> Result<Box<dyn IdentityKey>, IdentityError> {
        self.open_or_create_with(&mut ReplacedFile(self.folder.join(IN_TPM)))
    }

    fn open_or_create_with(
        &self,
        choice: &mut dyn StateFile,
    ) -> Result<Box<dyn IdentityKey>, IdentityError> {
        match self.open_with(choice) {
            Err(IdentityError::Missing { .. }) if self.tpm.exists() => {
                let key = TpmKey::open(&self.tpm)?;
                let text = format!("{}\n", key.fingerprint().to_hex());
                choice
                    .write(text.as_bytes())
                    .map_err(|source| self.failed("write", source))?;
                Ok(Box::new(key))
            }
            Err(IdentityError::Missing { .. }) => {
                Ok(Box::new(FileKey::open_or_create(&self.folder.join(KEY))?))
            }
            found => found,
        }
    }

    /// The key that was made before.
    ///
    /// # Errors
    /// [`IdentityError::Missing`] when there is none.
    pub fn open(&self) -> Result<Box<dyn IdentityKey>, IdentityError> {
        self.open_with(&mut ReplacedFile(self.folder.join(IN_TPM)))
    }

    fn open_with(&self, choice: &mut dyn StateFile) -> Result<Box<dyn IdentityKey>, IdentityError> {
        let kept = choice
            .read()
            .map_err(|source| self.failed("read", source))?;
        let Some(kept) = kept else {
            return Ok(Box::new(FileKey::open(&self.folder.join(KEY))?));
        };
        let key = TpmKey::open(&self.tpm)?;
        let told = String::from_utf8_lossy(&kept);
        if told.trim() == key.fingerprint().to_hex() {
            Ok(Box::new(key))
        } else {
            Err(IdentityError::OtherTpm {
                path: self.tpm.clone(),
            })
        }
    }

    fn failed(&self, operation: &'static str, source: std::io::Error) -> IdentityError {
        IdentityError::File {
            operation,
            path: self.folder.join(IN_TPM),
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::KeyAlgorithm;

    #[test]
    fn without_a_tpm_the_key_is_a_file_and_stays_one() {
        let folder = tempfile::tempdir().unwrap();
        let place = KeyPlace {
            folder: folder.path().to_owned(),
            tpm: folder.path().join("tpm"),
        };
        let error = place.open().err().unwrap();
        assert!(matches!(error, IdentityError::Missing { .. }), "{error}");
        let key = place.open_or_create().unwrap();
        assert_eq!(key.algorithm(), KeyAlgorithm::Ed25519);
        // A TPM that comes later does not make another box of it.
        std::fs::write(&place.tpm, "").unwrap();
        let later = place.open_or_create().unwrap();
        assert_eq!(later.fingerprint(), key.fingerprint());
    }

    #[test]
    fn a_tpm_that_does_not_work_is_no_reason_to_take_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let place = KeyPlace {
            folder: folder.path().to_owned(),
            tpm: folder.path().join("tpm"),
        };
        std::fs::write(&place.tpm, "").unwrap();
        let error = place.open_or_create().err().unwrap();
        assert!(matches!(error, IdentityError::Tpm { .. }), "{error}");
        assert!(!folder.path().join(KEY).exists());
        // One that was there and is gone neither.
        std::fs::write(folder.path().join(IN_TPM), "00").unwrap();
        std::fs::remove_file(&place.tpm).unwrap();
        let error = place.open_or_create().err().unwrap();
        assert!(matches!(error, IdentityError::Tpm { .. }), "{error}");
        assert!(!folder.path().join(KEY).exists());
    }
}
