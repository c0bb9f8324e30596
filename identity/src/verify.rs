//! Whom a client of the region takes for its server: who shows a chain to the region's root and has a server's role.
//! And whom a server takes for a client: who shows a chain to the root, and has not lost its rights.
//!
//! Names and addresses are not compared: a region at home has an address that changes, and what makes a server the
//! region's is that the region's authority says so.

use std::{fmt, sync::Arc, time::Duration};

use edge_protocol::Id;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        ParsedCertificate,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

use crate::{
    certificate::{Identity, not_before_s},
    key::{CertificateFingerprint, KeyFingerprint},
};

/// How a region's root is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// By the fingerprint of its certificate: the server has to show the root itself too.
    Pinned(CertificateFingerprint),
    /// By its certificate.
    Root(CertificateDer<'static>),
}

/// Who lost their rights, as it is known now.
pub trait Revocations: fmt::Debug + Send + Sync {
    /// Whether the holder of this key has.
    fn is_revoked(&self, key: &KeyFingerprint) -> bool;
}

/// Why a server is not the region's, as TLS carries it.
#[derive(thiserror::Error)]
enum NotTheRegion {
    #[error(
        "the server does not show the region's root certificate {0}; is the fingerprint that of this region?"
    )]
    NoRoot(CertificateFingerprint),
    #[error("the server's certificate is of a {0}, which is no server")]
    Role(crate::subject::Role),
    #[error("the server belongs to region {found}, not {wanted}")]
    Region { found: Id, wanted: Id },
    #[error("{0}")]
    Certificate(#[from] crate::certificate::CertificateError),
}

/// In words: TLS libraries print the cause of a refused certificate this way.
impl fmt::Debug for NotTheRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<NotTheRegion> for Error {
    fn from(why: NotTheRegion) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(why))))
    }
}

#[derive(Debug)]
pub(crate) struct ServerVerifier {
    pub(crate) trust: Trust,
    pub(crate) region: Id,
    pub(crate) algorithms: WebPkiSupportedAlgorithms,
}

impl ServerVerifier {
    fn root(&self, shown: &[CertificateDer<'_>]) -> Result<RootCertStore, Error> {
        let root = match &self.trust {
            Trust::Root(root) => root.clone(),
            Trust::Pinned(pin) => shown
                .iter()
                .find(|certificate| CertificateFingerprint::of(certificate) == *pin)
                .ok_or(NotTheRegion::NoRoot(*pin))?
                .clone()
                .into_owned(),
        };
        let mut roots = RootCertStore::empty();
        roots.add(root)?;
        Ok(roots)
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let roots = self.root(intermediates)?;
        // A box whose clock stands before the certificates begin is a box with a wrong clock: the authority does not
        // issue for the future. It could not even fetch the time otherwise.
        let chain = intermediates.iter().chain([end_entity]);
        let begins_s = chain.filter_map(|der| not_before_s(der)).max().unwrap_or(0);
        let begins = UnixTime::since_unix_epoch(Duration::from_secs(begins_s));
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(end_entity)?,
            &roots,
            intermediates,
            now.max(begins),
            self.algorithms.all,
        )?;
        let subject = Identity::read(end_entity)
            .map_err(NotTheRegion::from)?
            .subject;
        if !subject.role.is_server() {
            return Err(NotTheRegion::Role(subject.role).into());
        }
        if subject.region != self.region {
            let (found, wanted) = (subject.region, self.region.clone());
            return Err(NotTheRegion::Region { found, wanted }.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("only TLS 1.3 is spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The library's check of a client's chain, and then whether it lost its rights.
#[derive(Debug)]
pub(crate) struct ClientVerifier {
    pub(crate) chain: Arc<dyn ClientCertVerifier>,
    pub(crate) revocations: Arc<dyn Revocations>,
}

impl ClientCertVerifier for ClientVerifier {
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self
            .chain
            .verify_client_cert(end_entity, intermediates, now)?;
        let identity = Identity::read(end_entity).map_err(NotTheRegion::from)?;
        if self.revocations.is_revoked(&identity.key) {
            return Err(Error::InvalidCertificate(CertificateError::Revoked));
        }
        Ok(verified)
    }

    fn offer_client_auth(&self) -> bool {
        self.chain.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.chain.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
