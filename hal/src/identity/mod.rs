//! The box's identity: a key pair whose private half never leaves its store.
//!
//! - [`KeyPlace`]: where a box's key lies, decided once
//! - [`TpmKey`]: ES256 in a TPM 2.0
//! - [`FileKey`]: Ed25519 in a file, for boxes without a secure store
//! - [`SimKey`]: a key that everybody can compute, for simulations and tests
//!
//! What a key signs, and who believes it, is not known here.

mod file_key;
mod key_place;
mod public_key;
mod sim_key;
mod tpm_key;

use std::{io, path::PathBuf};

pub use self::{
    file_key::FileKey,
    key_place::{KeyPlace, TPM_DEVICE},
    public_key::{
        Fingerprint, KeyAlgorithm, PublicKey, PublicKeyError, SIGNATURE_BYTES, Signature,
    },
    sim_key::SimKey,
    tpm_key::TpmKey,
};
use crate::sim::SimFault;

/// The key that tells this box from all others.
pub trait IdentityKey: Send + Sync {
    /// The public half, known since the key was opened.
    fn public_key(&self) -> &PublicKey;

    /// Signs `message` (the message, not its hash).
    ///
    /// # Errors
    /// [`IdentityError`] when the store of the key does not answer.
    fn sign(&self, message: &[u8]) -> Result<Signature, IdentityError>;

    /// How it signs.
    fn algorithm(&self) -> KeyAlgorithm {
        self.public_key().algorithm()
    }

    /// What people compare.
    fn fingerprint(&self) -> Fingerprint {
        self.public_key().fingerprint()
    }
}

/// Why there is no identity, or it does not sign.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// There is no key yet.
    #[error("there is no identity key at {}", path.display())]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// The file is not one that a key may lie in.
    #[error("the identity key {} is not used: {why}; {what_to_do}", path.display())]
    Unsafe {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
        /// How to set it right.
        what_to_do: &'static str,
    },
    /// The file holds no whole key. It is never overwritten: it may be the only trace of the box's identity.
    #[error(
        "the identity key {} is damaged: {why}; restore it, or move it away: the box then makes a new key and must be enrolled anew",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The file system refuses.
    #[error("cannot {operation} {}", path.display())]
    File {
        /// What was attempted.
        operation: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The kernel gives no random numbers to make a key of.
    #[error("cannot get random numbers for an identity key from the kernel")]
    Random(#[source] io::Error),
    /// The TPM.
    #[error("the TPM {} does not {operation}: {why}; see that the agent's user may use it", path.display())]
    Tpm {
        /// The device.
        path: PathBuf,
        /// What was attempted.
        operation: &'static str,
        /// What it says.
        why: String,
    },
    /// The TPM is another one, or was cleared.
    #[error(
        "the TPM {} has another key than this box's: it was cleared or exchanged; revoke the box's name, remove \
         identity.tpm from its data folder and enrol it anew",
        path.display()
    )]
    OtherTpm {
        /// The device.
        path: PathBuf,
    },
    /// The simulation.
    #[error(transparent)]
    Simulated(#[from] SimFault),
}
