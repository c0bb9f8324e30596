//! A certificate request (PKCS#10, RFC 2986): a key says who it wants to be, and proves that it is there. Of what the
//! request asks for, only name and key are taken.

use rcgen::CertificateParams;
use rustls::pki_types::{CertificateSigningRequestDer, pem::PemObject as _};
use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer as _};

use crate::{
    key::{KeyError, KeyFingerprint, UsableKey, public_key},
    subject::{Subject, SubjectError},
};

/// Longest request that is read, as PEM; ours have about 400 bytes.
pub const MAX_BYTES: usize = 4 << 10;

/// A request whose key has signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Who it wants to be.
    pub subject: Subject,
    /// The key's `SubjectPublicKeyInfo` in DER.
    pub public_key_der: Vec<u8>,
    /// The key.
    pub key: KeyFingerprint,
}

/// Why there is no request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Not a request.
    #[error("this is no certificate request in PEM of at most {MAX_BYTES} bytes")]
    Form,
    /// It names nobody of a region.
    #[error("the certificate request names nobody of a region: {0}")]
    Subject(#[from] SubjectError),
    /// Its key.
    #[error("the certificate request cannot be granted: {0}")]
    Key(#[from] KeyError),
    /// Its key did not sign it.
    #[error("the certificate request is not signed by its own key")]
    Forged,
    /// It cannot be made.
    #[error("no certificate request can be made: {0}")]
    Write(String),
}

impl Request {
    /// Reads a request and checks its signature.
    ///
    /// # Errors
    /// [`RequestError`].
    pub fn read(pem: &str) -> Result<Self, RequestError> {
        if pem.len() > MAX_BYTES {
            return Err(RequestError::Form);
        }
        let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| RequestError::Form)?;
        let Ok(([], request)) = X509CertificationRequest::from_der(&der) else {
            return Err(RequestError::Form);
        };
        let info = &request.certification_request_info;
        let subject = Subject::read(&info.subject)?;
        let public_key_der = info.subject_pki.raw.to_vec();
        public_key(&public_key_der)?;
        request
            .verify_signature()
            .map_err(|_| RequestError::Forged)?;
        Ok(Self {
            subject,
            key: KeyFingerprint::of(&public_key_der),
            public_key_der,
        })
    }

    /// The request of `key` to be `subject`, as PEM.
    ///
    /// # Errors
    /// [`RequestError::Write`] when the key does not sign.
    pub fn write(subject: &Subject, key: &UsableKey) -> Result<String, RequestError> {
        write(subject, key)
    }
}

pub(crate) fn write(
    subject: &Subject,
    key: &impl rcgen::SigningKey,
) -> Result<String, RequestError> {
    let failed = |error: rcgen::Error| RequestError::Write(error.to_string());
    let mut parameters = CertificateParams::new(Vec::new()).map_err(failed)?;
    parameters.distinguished_name = subject.distinguished_name();
    let request = parameters.serialize_request(key).map_err(failed)?;
    request.pem().map_err(failed)
}
