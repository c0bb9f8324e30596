//! Keys that prove nothing: everybody can compute them from their names.

use std::fmt;

use ed25519_dalek::Signer as _;
use sha2::{Digest as _, Sha256};

use super::{IdentityError, IdentityKey, KeyAlgorithm, PublicKey, Signature};
use crate::sim::SimReading;

/// A simulated key. It is the same for the same name, and secret to nobody. Told to fail, its store does not answer.
#[derive(Clone)]
pub struct SimKey {
    /// The state of its store.
    pub store: SimReading<()>,
    key: Key,
    public: PublicKey,
}

#[derive(Clone)]
enum Key {
    Ed25519(ed25519_dalek::SigningKey),
    Es256(p256::ecdsa::SigningKey),
}

impl SimKey {
    /// The simulated key of the box `name`, such as a file would hold it ([`KeyAlgorithm::Ed25519`]) or secure hardware
    /// ([`KeyAlgorithm::Es256`]).
    #[must_use]
    pub fn new(algorithm: KeyAlgorithm, name: &str) -> Self {
        let (key, public) = match algorithm {
            KeyAlgorithm::Ed25519 => {
                let key = ed25519_dalek::SigningKey::from_bytes(&seed(name, 0));
                let public = PublicKey::from(key.verifying_key());
                (Key::Ed25519(key), public)
            }
            KeyAlgorithm::Es256 => {
                let key = es256_key(name);
                let public = PublicKey::from(*key.verifying_key());
                (Key::Es256(key), public)
            }
        };
        Self {
            store: SimReading::new(()),
            key,
            public,
        }
    }
}

/// The first seed that is a number below the order of P-256's group: all but one in 2³² are.
fn es256_key(name: &str) -> p256::ecdsa::SigningKey {
    let mut attempt = 0;
    loop {
        if let Ok(key) = p256::ecdsa::SigningKey::from_slice(&seed(name, attempt)) {
            return key;
        }
        attempt += 1;
    }
}

fn seed(name: &str, attempt: u32) -> [u8; 32] {
    Sha256::digest(format!("simulated identity key {attempt} of {name}")).into()
}

impl IdentityKey for SimKey {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<Signature, IdentityError> {
        self.store.read()?;
        Ok(Signature(match &self.key {
            Key::Ed25519(key) => key.sign(message).to_bytes(),
            Key::Es256(key) => {
                let signature: p256::ecdsa::Signature = key.sign(message);
                signature.to_bytes().into()
            }
        }))
    }
}

impl fmt::Debug for SimKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimKey")
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}
