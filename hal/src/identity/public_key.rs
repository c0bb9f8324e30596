//! Public keys and signatures of boxes: what others check a box by. Nothing here holds a secret.

use std::fmt;

use ed25519_dalek::VerifyingKey;
use p256::ecdsa::signature::Verifier as _;
use sha2::{Digest as _, Sha256};

/// Bytes of a signature, of either algorithm.
pub const SIGNATURE_BYTES: usize = 64;

/// How a key signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyAlgorithm {
    /// ECDSA on P-256 with SHA-256: what secure hardware holds.
    Es256,
    /// Ed25519 (RFC 8032).
    Ed25519,
}

impl KeyAlgorithm {
    /// Its name, as JOSE and COSE call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Ed25519 => "Ed25519",
        }
    }
}

impl fmt::Display for KeyAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The public half of a box's key; always a valid point of its curve.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(Point);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Point {
    Es256(p256::ecdsa::VerifyingKey),
    Ed25519(VerifyingKey),
}

/// A signature: ES256 as the two numbers `r` and `s` of 32 bytes each (RFC 9053, section 2.1), Ed25519 as RFC 8032
/// has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signature(pub [u8; SIGNATURE_BYTES]);

/// Why bytes are no public key, or a signature is not one of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PublicKeyError {
    /// Not a point of the curve, or one that signs for everybody.
    #[error("these {bytes} bytes are no {algorithm} public key")]
    Invalid {
        /// The algorithm they were said to be of.
        algorithm: KeyAlgorithm,
        /// How many they are.
        bytes: usize,
    },
    /// Another key signed, or the message is not what was signed.
    #[error("the {algorithm} signature is not one of this key over this message")]
    Forged {
        /// The algorithm of the key.
        algorithm: KeyAlgorithm,
    },
}

impl PublicKey {
    /// The key in `bytes`: for ES256 a point as SEC 1 has it (section 2.3.3, compressed or not), for Ed25519 32 bytes
    /// (RFC 8032, section 5.1.2).
    ///
    /// # Errors
    /// [`PublicKeyError::Invalid`]; also for Ed25519's points of small order, for which a signature proves nothing.
    pub fn new(algorithm: KeyAlgorithm, bytes: &[u8]) -> Result<Self, PublicKeyError> {
        let point = match algorithm {
            KeyAlgorithm::Es256 => p256::ecdsa::VerifyingKey::from_sec1_bytes(bytes)
                .ok()
                .map(Point::Es256),
            KeyAlgorithm::Ed25519 => VerifyingKey::try_from(bytes)
                .ok()
                .filter(|key| !key.is_weak())
                .map(Point::Ed25519),
        };
        point.map(Self).ok_or(PublicKeyError::Invalid {
            algorithm,
            bytes: bytes.len(),
        })
    }

    /// How its key signs.
    #[must_use]
    pub const fn algorithm(&self) -> KeyAlgorithm {
        match self.0 {
            Point::Es256(_) => KeyAlgorithm::Es256,
            Point::Ed25519(_) => KeyAlgorithm::Ed25519,
        }
    }

    /// The key: for ES256 the 65 bytes of an uncompressed SEC 1 point, for Ed25519 32 bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        match &self.0 {
            Point::Es256(key) => key.to_sec1_point(false).as_bytes().to_vec(),
            Point::Ed25519(key) => key.to_bytes().to_vec(),
        }
    }

    /// The key as certificates hold it: `SubjectPublicKeyInfo` in DER (RFC 5480 for ES256, RFC 8410 for Ed25519).
    #[must_use]
    pub fn to_spki_der(&self) -> Vec<u8> {
        // All before the key itself is constant: SEQUENCE, the algorithm's identifier, BIT STRING without unused bits.
        let head: &[u8] = match self.0 {
            // id-ecPublicKey 1.2.840.10045.2.1 on prime256v1 1.2.840.10045.3.1.7
            Point::Es256(_) => &[
                0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06,
                0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
            ],
            // id-Ed25519 1.3.101.112
            Point::Ed25519(_) => &[
                0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
            ],
        };
        [head, &self.to_bytes()].concat()
    }

    /// What people compare.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint(Sha256::digest(self.to_spki_der()).into())
    }

    /// Whether the key's owner signed `message`. Ed25519 is checked strictly (no encoding but the canonical one).
    ///
    /// # Errors
    /// [`PublicKeyError::Forged`].
    pub fn verify(&self, message: &[u8], signature: &Signature) -> Result<(), PublicKeyError> {
        let is_genuine = match &self.0 {
            Point::Es256(key) => p256::ecdsa::Signature::from_slice(&signature.0)
                .is_ok_and(|signature| key.verify(message, &signature).is_ok()),
            Point::Ed25519(key) => key
                .verify_strict(message, &ed25519_dalek::Signature::from_bytes(&signature.0))
                .is_ok(),
        };
        if is_genuine {
            Ok(())
        } else {
            Err(PublicKeyError::Forged {
                algorithm: self.algorithm(),
            })
        }
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({} {})", self.algorithm(), self.fingerprint())
    }
}

/// SHA-256 of a public key's `SubjectPublicKeyInfo`: what `openssl pkey -pubout -outform DER | sha256sum` prints.
/// Shown in groups of four digits, for people to read to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// 64 digits without groups, for programs.
    #[must_use]
    pub fn to_hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, pair) in self.0.chunks(2).enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            for byte in pair {
                write!(f, "{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl From<VerifyingKey> for PublicKey {
    fn from(key: VerifyingKey) -> Self {
        Self(Point::Ed25519(key))
    }
}

impl From<p256::ecdsa::VerifyingKey> for PublicKey {
    fn from(key: p256::ecdsa::VerifyingKey) -> Self {
        Self(Point::Es256(key))
    }
}
