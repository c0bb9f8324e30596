//! Keys: what the region knows them by, and the interface behind which a device's own key stays.

use std::{fmt, str::FromStr, sync::Arc};

use rcgen::PublicKeyData as _;
use rustls::{
    SignatureAlgorithm, SignatureScheme,
    pki_types::SubjectPublicKeyInfoDer,
    sign::{Signer, SigningKey},
};
use sha2::{Digest as _, Sha256};

/// SHA-256 of a key's `SubjectPublicKeyInfo`: the same for a key in a file, in a request and in a certificate. Shown
/// in groups of four digits, for people to read to each other.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyFingerprint(pub [u8; 32]);

impl KeyFingerprint {
    /// That of a key's `SubjectPublicKeyInfo` in DER.
    #[must_use]
    pub fn of(public_key_der: &[u8]) -> Self {
        Self(Sha256::digest(public_key_der).into())
    }

    /// 64 digits without groups, for programs.
    #[must_use]
    pub fn to_hex(&self) -> String {
        hex(&self.0)
    }
}

impl fmt::Display for KeyFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, pair) in self.0.chunks(2).enumerate() {
            let space = if index == 0 { "" } else { " " };
            write!(f, "{space}{}", hex(pair))?;
        }
        Ok(())
    }
}

impl fmt::Debug for KeyFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

impl FromStr for KeyFingerprint {
    type Err = FingerprintError;

    /// With or without spaces and colons.
    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        read_hex(text).map(Self)
    }
}

/// A text that is no fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint has 64 digits 0-9 and a-f, with or without spaces between them")]
pub struct FingerprintError;

/// SHA-256 of a whole certificate in DER, by which a region's root is known before it is trusted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CertificateFingerprint(pub [u8; 32]);

impl CertificateFingerprint {
    /// That of a certificate in DER.
    #[must_use]
    pub fn of(certificate_der: &[u8]) -> Self {
        Self(Sha256::digest(certificate_der).into())
    }
}

impl fmt::Display for CertificateFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for CertificateFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for CertificateFingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        read_hex(text).map(Self)
    }
}

impl<'de> serde::Deserialize<'de> for CertificateFingerprint {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read_hex(text: &str) -> Result<[u8; 32], FingerprintError> {
    let mut digits = text.chars().filter(|c| !matches!(c, ' ' | ':'));
    let mut bytes = [0; 32];
    for byte in &mut bytes {
        let mut digit = || digits.next()?.to_digit(16);
        let (high, low) = (
            digit().ok_or(FingerprintError)?,
            digit().ok_or(FingerprintError)?,
        );
        *byte = u8::try_from(high << 4 | low).map_err(|_| FingerprintError)?;
    }
    if digits.next().is_some() {
        return Err(FingerprintError);
    }
    Ok(bytes)
}

/// Why a key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Neither of the two kinds.
    #[error("the key is of no kind that this region takes: Ed25519 or ECDSA on P-256")]
    Kind,
    /// The key's store did not sign.
    #[error("the key does not sign: {0}")]
    Sign(String),
}

/// A key that never leaves its device.
pub trait DeviceKey: fmt::Debug + Send + Sync {
    /// Its `SubjectPublicKeyInfo` in DER.
    fn public_key_der(&self) -> Vec<u8>;

    /// A signature as certificates and TLS carry it: 64 bytes for Ed25519, a DER sequence for ECDSA with SHA-256.
    ///
    /// # Errors
    /// What the key's store says.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, String>;
}

/// A device's key in the forms that requests and TLS want.
#[derive(Debug, Clone)]
pub struct UsableKey {
    device: Arc<dyn DeviceKey>,
    public: rcgen::SubjectPublicKeyInfo,
    is_ed25519: bool,
}

impl UsableKey {
    /// Looks what kind of key it is.
    ///
    /// # Errors
    /// [`KeyError::Kind`].
    pub fn new(device: Arc<dyn DeviceKey>) -> Result<Self, KeyError> {
        let public = public_key(&device.public_key_der())?;
        let is_ed25519 = public.algorithm() == &rcgen::PKCS_ED25519;
        Ok(Self {
            device,
            public,
            is_ed25519,
        })
    }

    /// Its fingerprint.
    #[must_use]
    pub fn fingerprint(&self) -> KeyFingerprint {
        KeyFingerprint::of(&self.device.public_key_der())
    }

    fn scheme(&self) -> SignatureScheme {
        if self.is_ed25519 {
            SignatureScheme::ED25519
        } else {
            SignatureScheme::ECDSA_NISTP256_SHA256
        }
    }
}

/// A public key that this region takes.
pub(crate) fn public_key(der: &[u8]) -> Result<rcgen::SubjectPublicKeyInfo, KeyError> {
    let key = rcgen::SubjectPublicKeyInfo::from_der(der).map_err(|_| KeyError::Kind)?;
    let algorithm = key.algorithm();
    if algorithm == &rcgen::PKCS_ED25519 || algorithm == &rcgen::PKCS_ECDSA_P256_SHA256 {
        Ok(key)
    } else {
        Err(KeyError::Kind)
    }
}

impl rcgen::PublicKeyData for UsableKey {
    fn der_bytes(&self) -> &[u8] {
        self.public.der_bytes()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.public.algorithm()
    }
}

impl rcgen::SigningKey for UsableKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.device
            .sign(message)
            .map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

impl SigningKey for UsableKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered
            .contains(&self.scheme())
            .then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(self.device.public_key_der().into())
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        if self.is_ed25519 {
            SignatureAlgorithm::ED25519
        } else {
            SignatureAlgorithm::ECDSA
        }
    }
}

impl Signer for UsableKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        self.device.sign(message).map_err(rustls::Error::General)
    }

    fn scheme(&self) -> SignatureScheme {
        UsableKey::scheme(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_read_as_people_write_them() {
        let fingerprint =
            KeyFingerprint(std::array::from_fn(|i| u8::try_from(i * 7 % 256).unwrap()));
        for text in [
            fingerprint.to_string(),
            fingerprint.to_hex(),
            fingerprint.to_hex().to_uppercase(),
            fingerprint.to_string().replace(' ', ":"),
        ] {
            assert_eq!(text.parse(), Ok(fingerprint), "{text}");
        }
        for wrong in [
            "",
            "00",
            &fingerprint.to_hex()[1..],
            &format!("{fingerprint}0"),
            &"g".repeat(64),
        ] {
            assert_eq!(
                wrong.parse::<KeyFingerprint>(),
                Err(FingerprintError),
                "{wrong}"
            );
        }
    }
}
