//! Gets the box its certificate and keeps it fresh. It asks for as long as it takes, and says in the log and in the
//! status line what it waits for.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use edge_hal::identity::KeyPlace;
use edge_identity::{
    client::{self, Answer, ClientError, Server},
    enrolment::Ask,
    key::{CertificateFingerprint, UsableKey},
    request::{Request, RequestError},
    subject::{Role, Subject},
    tls::{self, Credentials, TlsError},
    verify::Trust,
};
use edge_protocol::Id;
use rustls::ClientConfig;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{
    OwnKeyError,
    kept::{self, Kept, KeptError, Wanted},
    own_key,
};
use crate::health::Vitals;

/// Pause after the first failure; it doubles.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Longest pause while the box has no certificate.
const LAST_RETRY: Duration = Duration::from_secs(60);
/// Longest pause while it has one that still holds.
const LAST_RENEWAL_RETRY: Duration = Duration::from_secs(600);
/// How often a box that waits for approval asks.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// How often it is looked whether the certificate is to be renewed. Not one long sleep: clocks are set meanwhile.
const LOOK: Duration = Duration::from_secs(60);
/// Shortest time between two renewals that the broker's refusals cause.
const REFUSALS: Duration = Duration::from_secs(30);
/// Longest token file that is read.
const TOKEN_MAX_BYTES: usize = 1 << 10;

/// What it takes to enrol.
#[derive(Debug, Clone)]
pub(crate) struct Enrolment {
    /// The indexer, over HTTPS.
    pub(crate) server: Server,
    /// The region's root.
    pub(crate) root: CertificateFingerprint,
    /// File with a one-time token.
    pub(crate) token_file: Option<PathBuf>,
    /// The box's region.
    pub(crate) region: Id,
    /// The box's name.
    pub(crate) box_id: Id,
    /// Where the key lies, and the certificate beside it.
    pub(crate) place: KeyPlace,
}

/// Why there is no certificate yet.
#[derive(Debug, thiserror::Error)]
enum EnrolError {
    #[error(transparent)]
    Key(#[from] OwnKeyError),
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("cannot read the enrolment token {}: {source}", path.display())]
    Token {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the enrolment token {} is longer than {TOKEN_MAX_BYTES} bytes", .0.display())]
    LongToken(PathBuf),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("waiting for approval: an admin runs `edgectl ca approve {name} \"{fingerprint}\"`")]
    Waiting { name: Id, fingerprint: String },
    #[error("the region refuses to enrol this box: {0}")]
    Refused(String),
    #[error("the region cannot enrol this box now: {0}")]
    Later(String),
    #[error("the region's answer is not kept: {0}")]
    Answer(#[from] KeptError),
}

/// A box that has its certificate.
#[derive(Debug)]
pub(crate) struct Refresh {
    enrolment: Enrolment,
    credentials: Arc<Credentials>,
    client: Arc<ClientConfig>,
    kept: Kept,
    /// The broker did not take the certificate.
    refused: Arc<Notify>,
}

impl Enrolment {
    /// Waits until the box has a certificate, and gives what its connections show.
    pub(crate) async fn obtain(self, vitals: &Vitals) -> Refresh {
        let retries = ExponentialBuilder::default()
            .with_min_delay(FIRST_RETRY)
            .with_max_delay(LAST_RETRY)
            .with_jitter()
            .without_max_times();
        let mut retry = retries.build();
        let mut told = None;
        loop {
            let error = match self.have().await {
                Ok(refresh) => {
                    vitals.set_waits_for(None);
                    return refresh;
                }
                Err(error) => error,
            };
            let wait = match error {
                EnrolError::Waiting { .. } => ASK_AGAIN,
                _ => retry.next().unwrap_or(LAST_RETRY),
            };
            // Once, as long as nothing changes: the status line goes on telling it.
            let why = error.to_string();
            if told.as_ref() != Some(&why) {
                match &error {
                    EnrolError::Waiting { .. } => warn!(%error, "this box has no certificate yet"),
                    _ => error!(%error, "this box has no certificate yet; it goes on asking"),
                }
                told = Some(why.clone());
            }
            vitals.set_waits_for(Some(why));
            tokio::time::sleep(wait).await;
        }
    }

    fn wanted(&self, key: &UsableKey) -> Wanted {
        Wanted {
            subject: Subject {
                region: self.region.clone(),
                role: Role::Box,
                name: self.box_id.clone(),
            },
            key: key.fingerprint(),
            root: self.root,
        }
    }

    /// The certificate on disk while it holds, otherwise one that is asked for.
    async fn have(&self) -> Result<Refresh, EnrolError> {
        let key = own_key(&self.place)?;
        let kept = match kept::load(&self.place.folder, &self.wanted(&key)) {
            Ok(kept) if kept.identity.not_after_s > now_s() => kept,
            Ok(_) => {
                info!("this box's certificate has ended");
                self.ask(&key).await?
            }
            Err(KeptError::Absent) => self.ask(&key).await?,
            Err(error) => {
                warn!(%error, "another certificate is asked for");
                self.ask(&key).await?
            }
        };
        let credentials = Arc::new(Credentials::default());
        credentials.set(kept.chain.clone(), Arc::new(key));
        let trust = Trust::Root(kept.root.clone());
        let client = tls::client(trust, self.region.clone(), Some(Arc::clone(&credentials)))?;
        Ok(Refresh {
            enrolment: self.clone(),
            credentials,
            client: Arc::new(client),
            kept,
            refused: Arc::default(),
        })
    }

    /// Asks once. What is granted is on the disk when this returns.
    async fn ask(&self, key: &UsableKey) -> Result<Kept, EnrolError> {
        let wanted = self.wanted(key);
        let ask = Ask {
            request: Request::write(&wanted.subject, key)?,
            token: self.token()?,
        };
        // The root is known by its fingerprint alone: the server has to show it.
        let tls = tls::client(Trust::Pinned(self.root), self.region.clone(), None)?;
        match client::enrol(&self.server, Arc::new(tls), &ask).await? {
            Answer::Granted(granted) => {
                let text = granted.certificate + &granted.region_ca;
                let kept = kept::read(text.as_bytes(), &wanted)?;
                kept::store(&self.place.folder, &text)?;
                let days = kept.identity.not_after_s.saturating_sub(now_s()) / (24 * 3_600);
                info!(days, "this box has a certificate");
                Ok(kept)
            }
            Answer::Waiting(_) => Err(EnrolError::Waiting {
                name: self.box_id.clone(),
                fingerprint: key.fingerprint().to_string(),
            }),
            Answer::Refused(why) => Err(EnrolError::Refused(why)),
            Answer::Later(why) => Err(EnrolError::Later(why)),
        }
    }

    /// The token; none without a file. A file that is gone was used: the box is known by its key.
    fn token(&self) -> Result<Option<String>, EnrolError> {
        let Some(path) = &self.token_file else {
            return Ok(None);
        };
        match std::fs::read_to_string(path) {
            Ok(token) if token.len() > TOKEN_MAX_BYTES => Err(EnrolError::LongToken(path.clone())),
            Ok(token) => Ok(Some(token.trim().to_owned())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(EnrolError::Token {
                path: path.clone(),
                source,
            }),
        }
    }
}

impl Refresh {
    /// What connections use; it always shows the newest certificate.
    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.client)
    }

    /// Told when the broker does not take the certificate.
    pub(crate) fn refused(&self) -> Arc<Notify> {
        Arc::clone(&self.refused)
    }

    /// Renews the certificate when two thirds of its life are over or the broker does not take it, until `stop`.
    pub(crate) async fn keep_fresh(mut self, stop: CancellationToken) {
        let retries = ExponentialBuilder::default()
            .with_min_delay(LOOK)
            .with_max_delay(LAST_RENEWAL_RETRY)
            .with_jitter()
            .without_max_times();
        let mut retry = retries.build();
        let mut wait = LOOK;
        loop {
            let is_refused = tokio::select! {
                () = tokio::time::sleep(wait) => false,
                () = self.refused.notified() => true,
                () = stop.cancelled() => return,
            };
            wait = LOOK;
            if !is_refused && now_s() < self.kept.identity.renew_at_s() {
                continue;
            }
            match self.renew().await {
                Ok(()) => retry = retries.build(),
                Err(error) => {
                    wait = retry.next().unwrap_or(LAST_RENEWAL_RETRY);
                    let retry_s = wait.as_secs();
                    error!(%error, retry_s, "this box's certificate is not renewed");
                }
            }
            if is_refused {
                // The indexer may give the same certificate again, and the broker refuse it again.
                tokio::select! {
                    () = tokio::time::sleep(REFUSALS) => {}
                    () = stop.cancelled() => return,
                }
            }
        }
    }

    async fn renew(&mut self) -> Result<(), EnrolError> {
        let key = own_key(&self.enrolment.place)?;
        self.kept = self.enrolment.ask(&key).await?;
        self.credentials.set(self.kept.chain.clone(), Arc::new(key));
        Ok(())
    }
}

/// Seconds since 1970.
fn now_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
}
