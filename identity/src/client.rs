//! Questions to the indexer over HTTPS: one connection for one question, with bounds on time and size.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::enrolment::{Ask, Granted, PATH, Refused, Waiting};

/// Longest time for connecting, asking and the answer together.
const LIMIT: Duration = Duration::from_secs(20);
/// Longest answer that is read.
const MAX_BYTES: usize = 1 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection.
    #[error("cannot connect to {host}:{port}: {source}")]
    Connect {
        /// The server.
        host: String,
        /// Its port.
        port: u16,
        /// Why not.
        source: std::io::Error,
    },
    /// No TLS, or not the region's server.
    #[error("{host}:{port} is not taken for the region's server: {source}")]
    Tls {
        /// The server.
        host: String,
        /// Its port.
        port: u16,
        /// Why not.
        source: std::io::Error,
    },
    /// No HTTP.
    #[error("the server does not answer as an indexer does: {0}")]
    Http(String),
    /// Too late.
    #[error("the server did not answer within {} s", LIMIT.as_secs())]
    TooLate,
    /// A host that cannot be in TLS.
    #[error("{0:?} is neither the name nor the address of a host")]
    Host(String),
}

/// Where the indexer is: host, without brackets, and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// What the indexer says to an enrolment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The certificate.
    Granted(Granted),
    /// An admin has to approve the key.
    Waiting(Waiting),
    /// No, for good: asking again does not help.
    Refused(String),
    /// Not now.
    Later(String),
}

/// Asks for a certificate.
///
/// # Errors
/// [`ClientError`].
pub async fn enrol(
    server: &Server,
    tls: Arc<ClientConfig>,
    ask: &Ask,
) -> Result<Answer, ClientError> {
    let body = serde_json::to_vec(ask).map_err(|error| ClientError::Http(error.to_string()))?;
    let (status, body) = exchange(server, tls, Method::POST, PATH, body).await?;
    let form = |error: serde_json::Error| ClientError::Http(error.to_string());
    match status {
        StatusCode::OK => serde_json::from_slice(&body).map(Answer::Granted),
        StatusCode::ACCEPTED => serde_json::from_slice(&body).map(Answer::Waiting),
        _ => {
            let why = serde_json::from_slice::<Refused>(&body)
                .map_or_else(|_| format!("status {status}"), |refused| refused.error);
            let is_final = matches!(
                status,
                StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN | StatusCode::CONFLICT
            );
            Ok(if is_final {
                Answer::Refused(why)
            } else {
                Answer::Later(why)
            })
        }
    }
    .map_err(form)
}

/// Reads what is at `path`, which has no `/` in front: the status, and the body.
///
/// # Errors
/// [`ClientError`].
pub async fn get(
    server: &Server,
    tls: Arc<ClientConfig>,
    path: &str,
) -> Result<(u16, Bytes), ClientError> {
    let (status, body) = exchange(server, tls, Method::GET, path, Vec::new()).await?;
    Ok((status.as_u16(), body))
}

async fn exchange(
    server: &Server,
    tls: Arc<ClientConfig>,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> Result<(StatusCode, Bytes), ClientError> {
    let exchanged = exchange_unbounded(server, tls, method, path, body);
    tokio::time::timeout(LIMIT, exchanged)
        .await
        .map_err(|_elapsed| ClientError::TooLate)?
}

async fn exchange_unbounded(
    Server { host, port }: &Server,
    tls: Arc<ClientConfig>,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> Result<(StatusCode, Bytes), ClientError> {
    let stream = TcpStream::connect((host.as_str(), *port))
        .await
        .map_err(|source| ClientError::Connect {
            host: host.clone(),
            port: *port,
            source,
        })?;
    let name = ServerName::try_from(host.clone()).map_err(|_| ClientError::Host(host.clone()))?;
    let stream = TlsConnector::from(tls)
        .connect(name, stream)
        .await
        .map_err(|source| ClientError::Tls {
            host: host.clone(),
            port: *port,
            source,
        })?;
    let http = |error: &dyn std::error::Error| ClientError::Http(error.to_string());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| http(&error))?;
    let request = Request::builder()
        .method(method)
        .uri(format!("/{path}"))
        .header(header::HOST, format!("{host}:{port}"))
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONNECTION, "close")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| http(&error))?;
    let asked = async {
        let answer = sender
            .send_request(request)
            .await
            .map_err(|error| http(&error))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_BYTES)
            .collect()
            .await
            .map_err(|error| http(error.as_ref()))?;
        Ok((status, body.to_bytes()))
    };
    // The connection moves only while it is polled; its own error is that of the question too.
    tokio::pin!(asked);
    tokio::pin!(connection);
    tokio::select! {
        answer = &mut asked => answer,
        ended = &mut connection => match ended {
            Ok(()) => asked.await,
            Err(error) => Err(http(&error)),
        },
    }
}
