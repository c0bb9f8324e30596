//! Certificates and keys as PEM text.

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

/// Certificates in one text at most: a chain has three.
const CERTIFICATES_MAX: usize = 8;

/// Why a PEM text is not usable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// Not PEM, or torn.
    #[error("it is no whole PEM text: {0}")]
    Torn(String),
    /// No certificate, or too many.
    #[error("it has {0} certificates, and one to {CERTIFICATES_MAX} are expected")]
    Count(usize),
}

/// The certificates of a text, in its order.
///
/// # Errors
/// [`PemError`].
pub fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let mut found = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(text) {
        found.push(certificate.map_err(|error| PemError::Torn(error.to_string()))?);
    }
    match found.len() {
        1..=CERTIFICATES_MAX => Ok(found),
        count => Err(PemError::Count(count)),
    }
}

/// The private key of a text.
///
/// # Errors
/// [`PemError::Torn`].
pub fn private_key(text: &[u8]) -> Result<PrivateKeyDer<'static>, PemError> {
    PrivateKeyDer::from_pem_slice(text).map_err(|error| PemError::Torn(error.to_string()))
}
