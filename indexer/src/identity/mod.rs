//! The region's authority at work: grants certificates to those who enrol, keeps the indexer's own certificate fresh,
//! and tells who lost their rights. One thread owns the authority and its registry.

mod worker;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, SyncSender, TrySendError};

use edge_identity::folder::FolderError;
use edge_identity::key::KeyFingerprint;
use edge_identity::registry::{ApiToken, Outcome, RegistryError, Rights};
use edge_identity::request::Request;
use edge_identity::tls::{self, Clients, Credentials, TlsError};
use edge_identity::token::TokenHash;
use edge_identity::verify::Revocations;
use edge_protocol::Id;
use rustls::pki_types::CertificateDer;
use tokio::sync::{oneshot, watch};
use tokio_rustls::TlsAcceptor;

/// Requests that wait for the authority.
const WAITING: usize = 64;

/// What the authority is told.
#[derive(Debug, Clone)]
pub struct IdentitySettings {
    /// Its folder, as `edgectl ca init` makes it.
    pub folder: PathBuf,
    /// Names and addresses by which foreign clients check this indexer.
    pub hosts: Vec<String>,
    /// How long a granted certificate holds, in seconds.
    pub life_s: u64,
}

/// Why the authority does not start.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Its folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// Its registry.
    #[error("this indexer cannot have a certificate")]
    Registry(#[from] RegistryError),
    /// Another region's authority.
    #[error("the authority in {} is that of region {found}, not of {wanted}", folder.display())]
    Region {
        /// The folder.
        folder: PathBuf,
        /// Whose it is.
        found: Box<Id>,
        /// This region.
        wanted: Box<Id>,
    },
    /// Its own certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The key of its own certificate.
    #[error("the indexer's own key is not usable: {0}")]
    Key(String),
    /// No thread can be started.
    #[error("cannot start the authority's thread")]
    Thread(#[source] std::io::Error),
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Too many wait.
    #[error("the authority is busy; ask again in some seconds")]
    Busy,
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// A request, and where the answer goes.
struct Question {
    request: Request,
    token: Option<String>,
    answer: oneshot::Sender<Result<Outcome, RegistryError>>,
}

/// The authority, for those who ask it.
#[derive(Debug, Clone)]
pub struct Identity {
    questions: SyncSender<Question>,
    rights: watch::Receiver<Arc<Rights>>,
    credentials: Arc<Credentials>,
    root: CertificateDer<'static>,
    texts: Arc<Texts>,
}

/// [`Identity::rights`] as TLS asks for it.
#[derive(Debug)]
struct Known(watch::Receiver<Arc<Rights>>);

impl Revocations for Known {
    fn is_revoked(&self, key: &KeyFingerprint) -> bool {
        self.0.borrow().revoked.contains(key)
    }
}

/// What everybody gets along with a certificate.
#[derive(Debug)]
struct Texts {
    intermediate: String,
    root: String,
}

impl Identity {
    /// Opens the authority of `region` and has a certificate made for `indexer`.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn start(
        settings: IdentitySettings,
        region: &Id,
        indexer: &Id,
    ) -> Result<Self, IdentityError> {
        let (rights_tx, rights) = watch::channel(Arc::default());
        let worker = worker::Worker::open(settings, region, indexer, rights_tx)?;
        let (questions, asked) = mpsc::sync_channel(WAITING);
        let authority = worker.authority();
        let text = |text: Result<String, _>| text.map_err(RegistryError::from);
        let identity = Self {
            questions,
            rights,
            credentials: worker.credentials(),
            root: authority.root().clone(),
            texts: Arc::new(Texts {
                intermediate: text(authority.intermediate_pem())?,
                root: text(authority.root_pem())?,
            }),
        };
        // It ends when nobody can ask any more; whatever it has answered is on the disk.
        std::thread::Builder::new()
            .name("authority".to_owned())
            .spawn(move || worker.run(&asked))
            .map_err(IdentityError::Thread)?;
        Ok(identity)
    }

    /// Decides on a request, and grants a certificate where there is a right to one.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn enrol(
        &self,
        request: Request,
        token: Option<String>,
    ) -> Result<Outcome, AskError> {
        let (answer, answered) = oneshot::channel();
        let question = Question {
            request,
            token,
            answer,
        };
        self.questions
            .try_send(question)
            .map_err(|error| match error {
                TrySendError::Full(_) | TrySendError::Disconnected(_) => AskError::Busy,
            })?;
        Ok(answered.await.map_err(|_| AskError::Busy)??)
    }

    /// Who lost their rights, and who may do less than its role, whenever that changes.
    #[must_use]
    pub fn rights(&self) -> watch::Receiver<Arc<Rights>> {
        self.rights.clone()
    }

    /// Whether the holder of this key lost its rights.
    #[must_use]
    pub fn is_revoked(&self, key: &KeyFingerprint) -> bool {
        self.rights.borrow().revoked.contains(key)
    }

    /// What this token for the HTTP API is good for, while it holds.
    #[must_use]
    pub fn api_token(&self, token: &str) -> Option<ApiToken> {
        let rights = self.rights.borrow();
        let known = rights.api.get(&TokenHash::of(token))?;
        (known.expires_s > worker::now_s()).then(|| known.clone())
    }

    /// TLS for a server of this region.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn acceptor(&self, clients: Clients) -> Result<TlsAcceptor, TlsError> {
        let revocations = Arc::new(Known(self.rights.clone()));
        let config = tls::server(&self.root, clients, revocations, self.credentials())?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    /// What this indexer shows on its connections.
    #[must_use]
    pub fn credentials(&self) -> Arc<Credentials> {
        Arc::clone(&self.credentials)
    }

    /// The region's root.
    #[must_use]
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// A certificate and its intermediate, and the root, as PEM.
    #[must_use]
    pub fn texts(&self, certificate: &str) -> (String, String) {
        let chain = format!("{certificate}{}", self.texts.intermediate);
        (chain, self.texts.root.clone())
    }
}
