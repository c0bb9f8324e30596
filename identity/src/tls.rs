//! TLS 1.3 on which clients and servers of a region show their certificates. Sessions are not resumed: each connection
//! shows its certificate again, so that a revoked one ends at once.

use std::sync::{Arc, PoisonError, RwLock};

use edge_protocol::Id;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, SignatureScheme,
    client::{ResolvesClientCert, Resumption},
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer},
    server::{
        ClientHello, NoServerSessionStorage, ResolvesServerCert, VerifierBuilderError,
        WebPkiClientVerifier,
    },
    sign::{CertifiedKey, SigningKey},
    version::TLS13,
};

use crate::verify::{ClientVerifier, Revocations, ServerVerifier, Trust};

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The library refuses.
    #[error("TLS cannot be set up: {0}")]
    Library(#[from] rustls::Error),
    /// The region's root cannot be used to check clients.
    #[error("the region's root certificate cannot be used: {0}")]
    Root(#[from] VerifierBuilderError),
}

/// The certificate that this program shows on new connections; another one takes its place when it is renewed.
#[derive(Debug, Default)]
pub struct Credentials(RwLock<Option<Arc<CertifiedKey>>>);

impl Credentials {
    /// Shows `chain`, whose key is `key`, from now on.
    pub fn set(&self, chain: Vec<CertificateDer<'static>>, key: Arc<dyn SigningKey>) {
        let shown = Arc::new(CertifiedKey::new(chain, key));
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(shown);
    }

    /// As [`Self::set`], with a key from a file.
    ///
    /// # Errors
    /// When the key is of no kind that TLS takes.
    pub fn set_with_key(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: &PrivateKeyDer<'_>,
    ) -> Result<(), TlsError> {
        self.set(chain, ring::sign::any_supported_type(key)?);
        Ok(())
    }

    fn shown(&self) -> Option<Arc<CertifiedKey>> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// [`Credentials`] as the library asks for them.
#[derive(Debug)]
struct Shown(Arc<Credentials>);

impl ResolvesClientCert for Shown {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        self.0.shown()
    }

    fn has_certs(&self) -> bool {
        self.0.shown().is_some()
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.shown()
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// What a client of the region uses for broker and indexer. Without credentials it shows none.
///
/// # Errors
/// [`TlsError::Library`].
pub fn client(
    trust: Trust,
    region: Id,
    credentials: Option<Arc<Credentials>>,
) -> Result<ClientConfig, TlsError> {
    let provider = provider();
    let verifier = ServerVerifier {
        trust,
        region,
        algorithms: provider.signature_verification_algorithms,
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match credentials {
        Some(credentials) => builder.with_client_cert_resolver(Arc::new(Shown(credentials))),
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Who may connect to a server of the region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clients {
    /// Who shows a certificate of the region.
    Certified,
    /// Everybody; a certificate that is shown must be of the region.
    Any,
}

/// What a server of the region uses.
///
/// # Errors
/// [`TlsError`].
pub fn server(
    root: &CertificateDer<'static>,
    clients: Clients,
    revocations: Arc<dyn Revocations>,
    credentials: Arc<Credentials>,
) -> Result<ServerConfig, TlsError> {
    let provider = provider();
    let mut roots = RootCertStore::empty();
    roots.add(root.clone())?;
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let verifier = match clients {
        Clients::Certified => verifier,
        Clients::Any => verifier.allow_unauthenticated(),
    };
    let verifier = ClientVerifier {
        chain: verifier.build()?,
        revocations,
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(Shown(credentials)));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}
