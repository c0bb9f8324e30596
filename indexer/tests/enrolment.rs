//! Keys enrol over HTTPS, show their certificates to the broker and the API, and lose their rights.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking, in their helpers too"
)]

mod secured;
mod support;

use std::sync::Arc;

use edge_identity::certificate::Identity;
use edge_identity::client::{Answer, get};
use edge_identity::enrolment::Granted;
use edge_identity::limits::Limits;
use edge_identity::pem;
use edge_identity::registry::ApiToken;
use edge_identity::scope::Scope;
use edge_identity::subject::Role;
use edge_identity::tls::Credentials;
use edge_indexer::run::{Indexer, StartError};
use edge_indexer::settings::Settings;
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, Incoming};
use secured::{Ca, Holder, id, lasting_s, now_s, options, server};
use support::{DEADLINE, World, settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn granted(answer: Answer) -> Granted {
    let Answer::Granted(granted) = answer else {
        panic!("not granted: {answer:?}");
    };
    granted
}

/// Polls until the broker has accepted the client.
async fn accepted(connection: &mut EventLoop) -> Result<(), ConnectionError> {
    let polling = async {
        loop {
            if let Event::Incoming(Incoming::ConnAck(_)) = connection.poll().await? {
                return Ok(());
            }
        }
    };
    tokio::time::timeout(DEADLINE, polling).await.unwrap()
}

async fn ends(connection: &mut EventLoop) -> ConnectionError {
    let polling = async {
        loop {
            if let Err(error) = connection.poll().await {
                return error;
            }
        }
    };
    tokio::time::timeout(DEADLINE, polling).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_box_enrols_with_a_token_and_connects() {
    let folder = tempfile::tempdir().unwrap();
    let mut ca = Ca::make(folder.path());
    let world = World::start(ca.settings(folder.path())).await;
    let https = server(world.indexer.https().unwrap());
    let token = ca
        .registry
        .new_token(
            Some(&id("box-1")),
            Role::Box,
            &Limits::default(),
            now_s() + 60,
            now_s(),
        )
        .unwrap();
    let holder = Holder::new(Role::Box, "box-1");
    let ask = holder.ask(Some(token.reveal()));
    let first = granted(ca.enrol(&https, &ask).await);
    let again = granted(ca.enrol(&https, &ask).await);
    assert_eq!(again, first, "a lost answer is had again");
    let chain = pem::certificates(first.certificate.as_bytes()).unwrap();
    let identity = Identity::read(&chain[0]).unwrap();
    assert_eq!(identity.subject, holder.subject);
    let root = pem::certificates(first.region_ca.as_bytes()).unwrap();
    assert_eq!(&root[0], ca.authority.root());

    let thief = Holder::new(Role::Box, "box-1");
    let refused = ca.enrol(&https, &thief.ask(Some(token.reveal()))).await;
    assert!(matches!(refused, Answer::Refused(_)), "{refused:?}");

    let credentials = Arc::new(Credentials::default());
    let key = pem::private_key(holder.key_pem.as_bytes()).unwrap();
    credentials.set_with_key(chain, &key).unwrap();
    let tls = ca.client(Some(credentials));
    let broker = world.indexer.listeners().unwrap().tls.unwrap();
    let options = options(broker, "box-1.own", Arc::clone(&tls));
    let (_client, mut connection) = AsyncClient::new(options, 8);
    accepted(&mut connection).await.unwrap();

    // The API over TLS: a box reads itself, and nobody reads without a certificate.
    for (path, tls, status) in [
        ("api/v1/region", &tls, 200),
        ("api/v1/boxes/box-1", &tls, 404),
        ("api/v1/boxes/box-2", &tls, 403),
        ("api/v1/boxes", &tls, 403),
        ("api/v1/boxes", &ca.client(None), 401),
        ("healthz", &ca.client(None), 200),
    ] {
        let (found, body) = get(&https, Arc::clone(tls), path).await.unwrap();
        assert_eq!(found, status, "{path}: {body:?}");
    }

    // Revoked while it is connected.
    ca.registry.revoke(&id("box-1"), now_s()).unwrap();
    ends(&mut connection).await;
    let (_client, mut connection) = AsyncClient::new(connection.options.clone(), 8);
    let why = ends(&mut connection).await.to_string();
    assert!(why.contains("CertificateRevoked"), "{why}");
    let no_api = get(&https, tls, "api/v1/region").await;
    assert!(no_api.is_err(), "{no_api:?}");
    let refused = ca.enrol(&https, &ask).await;
    assert!(
        matches!(&refused, Answer::Refused(why) if why.contains("revoked")),
        "{refused:?}"
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_box_without_a_token_waits_until_an_admin_approves_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let mut ca = Ca::make(folder.path());
    let world = World::start(ca.settings(folder.path())).await;
    let https = server(world.indexer.https().unwrap());
    let holder = Holder::new(Role::Box, "box-1");
    let ask = holder.ask(None);
    let Answer::Waiting(waiting) = ca.enrol(&https, &ask).await else {
        panic!("it should wait");
    };
    let pending = ca.registry.waiting(now_s()).unwrap();
    assert_eq!(pending[0].key.to_hex(), waiting.fingerprint);
    ca.registry
        .approve(&id("box-1"), pending[0].key, &Limits::default())
        .unwrap();
    granted(ca.enrol(&https, &ask).await);
    // Nobody becomes an admin that way.
    let admin = ca
        .enrol(&https, &Holder::new(Role::Admin, "me").ask(None))
        .await;
    assert!(matches!(admin, Answer::Refused(_)), "{admin:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_question_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let ca = Ca::make(folder.path());
    let world = World::start(ca.settings(folder.path())).await;
    let address = world.indexer.https().unwrap();
    for (body, status) in [
        ("{".to_owned(), "400"),
        ("{}".to_owned(), "400"),
        (r#"{"request":"x"}"#.to_owned(), "400"),
        (r#"{"request":"x","more":1}"#.to_owned(), "400"),
        ("x".repeat(20 << 10), "413"),
    ] {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        let connector = tokio_rustls::TlsConnector::from(ca.client(None));
        let mut stream = connector.connect(name, stream).await.unwrap();
        let request = format!(
            "POST /api/v1/enrol HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        // The server may answer before it has read all.
        let _written = stream.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        let reading = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer));
        let _read = reading.await.unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{answer}"
        );
    }
    // And without TLS there is no enrolment at all.
    let url = world.url("/api/v1/enrol");
    let answer = world.http.post(url).body("{}").send().await.unwrap();
    assert_eq!(answer.status(), 404);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_ends_ends_the_connection() {
    let folder = tempfile::tempdir().unwrap();
    let mut ca = Ca::make(folder.path());
    let world = World::start(ca.settings(folder.path())).await;
    let broker = world.indexer.listeners().unwrap().tls.unwrap();
    let tls = ca.issue(&Holder::new(Role::Sensor, "cam-1"), lasting_s(3));
    let (_client, mut connection) = AsyncClient::new(options(broker, "cam-1", tls), 8);
    accepted(&mut connection).await.unwrap();
    ends(&mut connection).await;
    let refused = accepted(&mut connection).await.unwrap_err();
    assert!(
        refused.to_string().to_lowercase().contains("expired"),
        "{refused}"
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_needs_the_right_authority() {
    let folder = tempfile::tempdir().unwrap();
    let mut ca = Ca::make(folder.path());
    let secured = ca.settings(folder.path());
    let without = Settings {
        identity: None,
        ..secured.clone()
    };
    let error = Indexer::start(without).await.unwrap_err();
    assert!(matches!(error, StartError::NoAuthority(_)), "{error}");
    let elsewhere = Settings {
        region: id("other"),
        ..secured.clone()
    };
    let error = Indexer::start(elsewhere).await.unwrap_err();
    assert!(
        error.to_string().contains("region home, not of other"),
        "{error}"
    );
    // Somebody else has the indexer's name: its connections would push out the indexer's.
    ca.holder(Role::Sensor, "indexer");
    let error = Indexer::start(secured).await.unwrap_err();
    assert!(matches!(error, StartError::Identity(_)), "{error}");
    let _plain = settings(folder.path());
}

/// A program without a certificate reads what its token lets it read, and nothing when that has ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_reads_its_part_of_the_api() {
    let folder = tempfile::tempdir().unwrap();
    let mut ca = Ca::make(folder.path());
    let world = World::start(ca.settings(folder.path())).await;
    let address = world.indexer.https().unwrap();
    let mut grant = ApiToken {
        name: id("grafana"),
        scopes: vec![Scope::Region, Scope::Metrics],
        expires_s: now_s() + 60,
    };
    let token = ca.registry.new_api_token(&grant).unwrap();
    let tls = ca.client(None);
    let ask = async |path: &str, more: &str| {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(&tls));
        let mut stream = connector.connect(name, stream).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{more}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let reading = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer));
        let _read = reading.await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    };
    let shown = format!("authorization: Bearer {}\r\n", token.reveal());
    // The indexer looks at its registry twice a second.
    let known = async {
        while !ask("/metrics", &shown).await.starts_with("HTTP/1.1 200") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, known).await.unwrap();
    for (path, more, status) in [
        ("/api/v1/region", shown.as_str(), 200),
        ("/api/v1/boxes", &shown, 403),
        ("/", &shown, 403),
        ("/metrics", "", 401),
        ("/metrics", "authorization: Bearer edge-api-0\r\n", 401),
        ("/metrics", "authorization: Basic eDp5\r\n", 401),
    ] {
        let answer = ask(path, more).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{path}: {answer}"
        );
        assert_eq!(
            answer.contains("www-authenticate: Bearer"),
            status == 401,
            "{answer}"
        );
    }
    // Another one of its name takes its place, and that one's time ends.
    grant.expires_s = now_s();
    let late = ca.registry.new_api_token(&grant).unwrap();
    let late = format!("authorization: Bearer {}\r\n", late.reveal());
    let ended = async {
        while !ask("/metrics", &shown).await.starts_with("HTTP/1.1 401") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, ended).await.unwrap();
    assert!(ask("/metrics", &late).await.starts_with("HTTP/1.1 401"));
    assert!(ca.registry.end_api_token(&id("grafana")).unwrap());
    assert!(!ca.registry.end_api_token(&id("grafana")).unwrap());
    world.stop().await;
}
