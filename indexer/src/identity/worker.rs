//! The thread that owns the authority: answers requests one by one, and looks every half second whether another
//! program has changed the registry.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use edge_identity::authority::{Authority, Lifetime, new_key, public_key_of};
use edge_identity::folder::{self, INDEXER_KEY};
use edge_identity::pem;
use edge_identity::registry::{Outcome, Registry, Rights};
use edge_identity::subject::{Role, Subject};
use edge_identity::tls::Credentials;
use edge_protocol::Id;
use tokio::sync::watch;

use super::{IdentityError, IdentitySettings, Question};

/// How often the registry is looked at: a revoked certificate lives no longer.
const LOOK: Duration = Duration::from_millis(500);
/// How long the indexer's own certificate holds.
const OWN_LIFE_S: u64 = 30 * 24 * 3_600;
/// How long after a failure it is tried again.
const RETRY_S: u64 = 60;

pub(super) struct Worker {
    settings: IdentitySettings,
    authority: Authority,
    registry: Registry,
    own: Subject,
    key_pem: zeroize::Zeroizing<String>,
    credentials: Arc<Credentials>,
    renew_at_s: u64,
    rights: watch::Sender<Arc<Rights>>,
    version: i64,
}

impl Worker {
    pub(super) fn open(
        settings: IdentitySettings,
        region: &Id,
        indexer: &Id,
        rights: watch::Sender<Arc<Rights>>,
    ) -> Result<Self, IdentityError> {
        let (authority, registry) = folder::open(&settings.folder)?;
        if authority.region() != region {
            return Err(IdentityError::Region {
                folder: settings.folder,
                found: Box::new(authority.region().clone()),
                wanted: Box::new(region.clone()),
            });
        }
        let key_pem = own_key(&settings.folder.join(INDEXER_KEY))?;
        let mut worker = Self {
            settings,
            authority,
            version: registry.version()?,
            registry,
            own: Subject {
                region: region.clone(),
                role: Role::Indexer,
                name: indexer.clone(),
            },
            key_pem,
            credentials: Arc::default(),
            renew_at_s: 0,
            rights,
        };
        worker.renew(now_s())?;
        worker.tell_rights()?;
        Ok(worker)
    }

    pub(super) fn authority(&self) -> &Authority {
        &self.authority
    }

    pub(super) fn credentials(&self) -> Arc<Credentials> {
        Arc::clone(&self.credentials)
    }

    /// Answers until nobody can ask any more.
    pub(super) fn run(mut self, asked: &Receiver<Question>) {
        let mut look_at = Instant::now() + LOOK;
        loop {
            match asked.recv_timeout(look_at.saturating_duration_since(Instant::now())) {
                Ok(question) => self.answer(question),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if look_at <= Instant::now() {
                look_at = Instant::now() + LOOK;
                self.look();
            }
        }
    }

    fn answer(&mut self, question: Question) {
        let Question {
            request,
            token,
            answer,
        } = question;
        let lifetime = Lifetime {
            now_s: now_s(),
            for_s: self.settings.life_s,
        };
        let outcome = self
            .registry
            .enrol(&self.authority, &request, token.as_deref(), lifetime);
        let (who, key) = (&request.subject, request.key.to_hex());
        match &outcome {
            Ok(Outcome::Granted(_)) => tracing::info!(%who, key, "granted a certificate"),
            // It asks again and again; `edgectl ca pending` shows it.
            Ok(Outcome::Waits) => tracing::debug!(%who, key, "waits for approval"),
            Ok(Outcome::Refused(why)) => tracing::warn!(%who, key, %why, "refused a certificate"),
            Err(error) => tracing::error!(%who, key, %error, "cannot decide on a certificate"),
        }
        // Who asked may have gone; what was granted is kept for when it asks again.
        let _heard = answer.send(outcome);
    }

    fn look(&mut self) {
        match self.registry.version() {
            Ok(version) if version == self.version => {}
            Ok(version) => match self.tell_rights() {
                Ok(()) => self.version = version,
                Err(error) => tracing::error!(%error, "cannot read who has which rights"),
            },
            Err(error) => tracing::error!(%error, "cannot look at the registry"),
        }
        let now_s = now_s();
        if now_s >= self.renew_at_s
            && let Err(error) = self.renew(now_s)
        {
            self.renew_at_s = now_s + RETRY_S;
            tracing::error!(%error, "cannot renew this indexer's own certificate");
        }
    }

    fn tell_rights(&mut self) -> Result<(), IdentityError> {
        let rights = Arc::new(self.registry.rights()?);
        self.rights.send_if_modified(|told| {
            let is_news = **told != *rights;
            *told = rights;
            is_news
        });
        Ok(())
    }

    fn renew(&mut self, now_s: u64) -> Result<(), IdentityError> {
        let key = |why: String| IdentityError::Key(why);
        let public = public_key_of(&self.key_pem).map_err(|error| key(error.to_string()))?;
        let lifetime = Lifetime {
            now_s,
            for_s: OWN_LIFE_S,
        };
        let hosts = &self.settings.hosts;
        let issued = self
            .registry
            .issue(&self.authority, &self.own, &public, lifetime, hosts)?;
        let private =
            pem::private_key(self.key_pem.as_bytes()).map_err(|error| key(error.to_string()))?;
        self.renew_at_s = issued.identity.renew_at_s();
        let chain = self.authority.server_chain(issued.certificate);
        self.credentials.set_with_key(chain, &private)?;
        Ok(())
    }
}

/// The indexer's key; a new one when there is none.
fn own_key(path: &Path) -> Result<zeroize::Zeroizing<String>, IdentityError> {
    if !fs::exists(path).unwrap_or(true) {
        let (key_pem, _) = new_key().map_err(|error| IdentityError::Key(error.to_string()))?;
        folder::write_new(path, &key_pem, 0o600)?;
    }
    Ok(folder::read_private(path)?)
}

/// Seconds since 1970.
pub(super) fn now_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
}
