//! TLS in front of the embedded broker: takes connections, checks certificates, and passes what follows on to the
//! broker inside, which listens on this machine only. The broker knows a client by the address that the passed-on
//! connection comes from; nobody else can have that address while the connection lives.
//!
//! RMQTT has TLS of its own, but with a second cryptography library, with TLS 1.2, and without a way to end the
//! connections of a revoked certificate.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use edge_identity::certificate::Identity;
use edge_identity::key::KeyFingerprint;
use edge_identity::registry::Rights;
use edge_protocol::Id;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

/// Longest handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a client may take to read why it is refused.
const LINGER: Duration = Duration::from_secs(2);
/// Handshakes at once; further connections wait in the kernel's queue.
const HANDSHAKES: usize = 256;
/// Pause after the system gave no connection, such as for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Who lost their rights, and who may do less than its role, as it changes.
pub(super) type RightsNow = watch::Receiver<Arc<Rights>>;

/// Who is connected, by the address that the broker sees.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<HashMap<SocketAddr, Session>>);

#[derive(Debug)]
struct Session {
    identity: Arc<Identity>,
    end: CancellationToken,
}

impl Sessions {
    /// Who is behind the address.
    pub(super) fn identity(&self, address: SocketAddr) -> Option<Arc<Identity>> {
        let sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sessions
            .get(&address)
            .map(|session| Arc::clone(&session.identity))
    }

    /// Ends the connections of these keys.
    fn end(&self, revoked: &HashSet<KeyFingerprint>) {
        let sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for session in sessions.values() {
            if revoked.contains(&session.identity.key) {
                tracing::warn!(who = %session.identity.subject, "a revoked client is disconnected");
                session.end.cancel();
            }
        }
    }

    fn enter(self: &Arc<Self>, address: SocketAddr, identity: Arc<Identity>) -> Entered {
        let end = CancellationToken::new();
        let session = Session {
            identity,
            end: end.clone(),
        };
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.insert(address, session);
        Entered {
            sessions: Arc::clone(self),
            address,
            end,
        }
    }
}

/// A session that is known until this is dropped.
struct Entered {
    sessions: Arc<Sessions>,
    address: SocketAddr,
    end: CancellationToken,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut sessions = self
            .sessions
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        sessions.remove(&self.address);
    }
}

/// The front.
#[derive(Clone)]
pub(super) struct Front {
    pub(super) acceptor: TlsAcceptor,
    pub(super) region: Id,
    /// Where the broker inside listens.
    pub(super) inside: SocketAddr,
    pub(super) sessions: Arc<Sessions>,
    pub(super) rights: RightsNow,
}

/// Why a connection is not passed on.
#[derive(Debug, thiserror::Error)]
enum FrontError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the TLS handshake took too long")]
    Slow,
    #[error("no certificate was shown")]
    None,
    #[error("{0}")]
    Certificate(#[from] edge_identity::certificate::CertificateError),
    #[error("the certificate is of region {0}")]
    Region(Id),
    #[error("the certificate of {0} is revoked")]
    Revoked(String),
    #[error("the certificate of a {0} is not for clients")]
    Role(edge_identity::subject::Role),
}

impl Front {
    /// Takes connections for ever.
    pub(super) async fn run(self, listener: TcpListener) {
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
        let (sessions, mut rights) = (Arc::clone(&self.sessions), self.rights.clone());
        let ending = tokio::spawn(async move {
            while rights.changed().await.is_ok() {
                let now = Arc::clone(&rights.borrow_and_update());
                sessions.end(&now.revoked);
            }
        });
        let _ending = tokio_util::task::AbortOnDropHandle::new(ending);
        loop {
            let permit = Arc::clone(&handshakes).acquire_owned().await;
            let (stream, address) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "no connection could be taken");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let front = self.clone();
            tokio::spawn(async move {
                let entered = front.enter(stream).await;
                drop(permit);
                match entered {
                    Ok((stream, identity)) => front.pass_on(stream, identity, address).await,
                    Err(error) => tracing::info!(%address, %error, "a client was refused"),
                }
            });
        }
    }

    async fn enter(
        &self,
        stream: TcpStream,
    ) -> Result<(TlsStream<TcpStream>, Arc<Identity>), FrontError> {
        stream.set_nodelay(true)?;
        let handshake = self.acceptor.accept(stream).into_fallible();
        let stream = match tokio::time::timeout(HANDSHAKE, handshake).await {
            Ok(Ok(stream)) => stream,
            Ok(Err((error, stream))) => {
                tokio::spawn(tokio::time::timeout(LINGER, let_read(stream)));
                return Err(error.into());
            }
            Err(_elapsed) => return Err(FrontError::Slow),
        };
        let shown = stream.get_ref().1.peer_certificates();
        let certificate = shown.and_then(<[_]>::first).ok_or(FrontError::None)?;
        let identity = Identity::read(certificate)?;
        let subject = &identity.subject;
        if subject.region != self.region {
            return Err(FrontError::Region(subject.region.clone()));
        }
        if edge_identity::access::rules(subject.role).is_empty() {
            return Err(FrontError::Role(subject.role));
        }
        Ok((stream, Arc::new(identity)))
    }

    /// Carries bytes both ways until one side, the certificate or its rights end.
    async fn pass_on(
        &self,
        mut stream: TlsStream<TcpStream>,
        identity: Arc<Identity>,
        address: SocketAddr,
    ) {
        let who = identity.subject.to_string();
        let carried = async {
            let mut inside = TcpStream::connect(self.inside).await?;
            inside.set_nodelay(true)?;
            let certificate_end = remaining(&identity);
            let key = identity.key;
            // Known before the first byte is passed on.
            let session = self.sessions.enter(inside.local_addr()?, identity);
            // Asked after entering: who is revoked from now on is found among the sessions.
            if self.rights.borrow().revoked.contains(&key) {
                return Err(FrontError::Revoked(who.clone()));
            }
            tokio::select! {
                copied = copy_bidirectional(&mut stream, &mut inside) => {
                    copied?;
                }
                () = session.end.cancelled() => return Err(FrontError::Revoked(who.clone())),
                () = tokio::time::sleep(certificate_end) => {
                    tracing::info!(%address, %who, "a client's certificate has ended");
                }
            }
            Ok(())
        };
        match carried.await {
            Ok(()) => tracing::debug!(%address, %who, "a client has gone"),
            // Most clients just vanish.
            Err(FrontError::Io(error)) => {
                tracing::debug!(%address, %who, %error, "a client has gone");
            }
            Err(error) => tracing::warn!(%address, %error, "a client was disconnected"),
        }
    }
}

/// Ends a connection so that the other side reads why: closing it with unread input would reset it, and take back the
/// reason that is on its way.
async fn let_read(mut stream: TcpStream) {
    let mut unread = [0; 1_024];
    if stream.shutdown().await.is_ok() {
        while matches!(stream.read(&mut unread).await, Ok(1..)) {}
    }
}

/// Time until the certificate has ended; its last second belongs to it.
fn remaining(identity: &Identity) -> Duration {
    let now_s = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs());
    Duration::from_secs(identity.not_after_s.saturating_add(1).saturating_sub(now_s))
}
