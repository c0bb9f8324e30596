//! What a certificate says of its holder. Whether to believe it is for [`crate::verify`].

use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

use crate::{
    key::KeyFingerprint,
    subject::{Role, Subject, SubjectError, organization},
};

/// Longest certificate that is read; ours have under 700 bytes.
const MAX_BYTES: usize = 8 << 10;

/// The holder of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Who it is.
    pub subject: Subject,
    /// Its key.
    pub key: KeyFingerprint,
    /// Number of the certificate, big-endian.
    pub serial: Vec<u8>,
    /// When it begins, in seconds since 1970.
    pub not_before_s: u64,
    /// When it ends.
    pub not_after_s: u64,
}

/// Why a certificate says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Not a certificate.
    #[error("these bytes are no certificate")]
    Form,
    /// It names nobody of a region.
    #[error("the certificate names nobody of a region")]
    Subject(#[from] SubjectError),
    /// Issued in the name of another region: a root may stand above several.
    #[error("the certificate's issuer is not of the region that the certificate names")]
    Issuer,
}

impl Identity {
    /// Reads a certificate in DER.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn read(der: &[u8]) -> Result<Self, CertificateError> {
        let certificate = parse(der)?;
        let validity = certificate.validity();
        let subject = Subject::read(certificate.subject())?;
        if organization(certificate.issuer()) != Some(subject.region.as_str()) {
            return Err(CertificateError::Issuer);
        }
        let seconds = |time: i64| u64::try_from(time).map_err(|_| CertificateError::Form);
        Ok(Self {
            subject,
            key: KeyFingerprint::of(certificate.public_key().raw),
            serial: certificate.raw_serial().to_vec(),
            not_before_s: seconds(validity.not_before.timestamp())?,
            not_after_s: seconds(validity.not_after.timestamp())?,
        })
    }

    /// What it is.
    #[must_use]
    pub fn role(&self) -> Role {
        self.subject.role
    }

    /// From this time on a new certificate should be asked for: two thirds of the life are over.
    #[must_use]
    pub fn renew_at_s(&self) -> u64 {
        let life_s = self.not_after_s.saturating_sub(self.not_before_s);
        self.not_before_s + life_s / 3 * 2
    }
}

/// When a certificate begins, whoever holds it, in seconds since 1970.
pub(crate) fn not_before_s(der: &[u8]) -> Option<u64> {
    let certificate = parse(der).ok()?;
    u64::try_from(certificate.validity().not_before.timestamp()).ok()
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, CertificateError> {
    if der.len() > MAX_BYTES {
        return Err(CertificateError::Form);
    }
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(CertificateError::Form),
    }
}
