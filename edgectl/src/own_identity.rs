//! A certificate, its key and the region's root in a folder, as `edgectl ca issue` writes them: who shows them to a
//! broker or an indexer.

use std::{path::Path, sync::Arc};

use edge_identity::{
    certificate::Identity,
    folder::{self, FolderError},
    pem::{self, PemError},
    tls::{self, Credentials, TlsError},
    verify::Trust,
};
use edge_protocol::Id;
use rustls::ClientConfig;

/// File with the certificate and its intermediate.
pub const CERTIFICATE: &str = "certificate.pem";
/// File with the key.
pub const KEY: &str = "key.pem";
/// File with the region's root.
pub const REGION_CA: &str = "region-ca.pem";

/// Why a folder is no identity.
#[derive(Debug, thiserror::Error)]
pub enum OwnIdentityError {
    /// A file.
    #[error(transparent)]
    File(#[from] FolderError),
    /// What is in it.
    #[error("{file} in {folder} is not usable: {source}")]
    Pem {
        /// The file.
        file: &'static str,
        /// The folder.
        folder: String,
        /// What is wrong.
        source: PemError,
    },
    /// Whose it is.
    #[error("{CERTIFICATE} in {folder} is not of a region: {source}")]
    Certificate {
        /// The folder.
        folder: String,
        /// What is wrong.
        source: edge_identity::certificate::CertificateError,
    },
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// An identity that can be shown.
#[derive(Debug, Clone)]
pub struct OwnIdentity {
    /// Its name.
    pub name: Id,
    /// What connections show and trust.
    pub tls: Arc<ClientConfig>,
}

impl OwnIdentity {
    /// Reads the folder.
    ///
    /// # Errors
    /// [`OwnIdentityError`].
    pub fn read(folder: &Path) -> Result<Self, OwnIdentityError> {
        let wrong = |file| {
            move |source| OwnIdentityError::Pem {
                file,
                folder: folder.display().to_string(),
                source,
            }
        };
        let text = folder::read(&folder.join(CERTIFICATE))?;
        let chain = pem::certificates(text.as_bytes()).map_err(wrong(CERTIFICATE))?;
        let leaf = chain.first().ok_or(PemError::Count(0));
        let identity = Identity::read(leaf.map_err(wrong(CERTIFICATE))?).map_err(|source| {
            OwnIdentityError::Certificate {
                folder: folder.display().to_string(),
                source,
            }
        })?;
        let text = folder::read_private(&folder.join(KEY))?;
        let key = pem::private_key(text.as_bytes()).map_err(wrong(KEY))?;
        let root = folder::certificate(&folder.join(REGION_CA))?;
        let credentials = Arc::new(Credentials::default());
        credentials.set_with_key(chain, &key)?;
        let region = identity.subject.region;
        Ok(Self {
            name: identity.subject.name,
            tls: Arc::new(tls::client(Trust::Root(root), region, Some(credentials))?),
        })
    }
}
