//! The indexer is killed while boxes enrol, again and again, as a power cut would: no answer that a box has had is
//! forgotten, no token is burnt in vain, and nobody is there twice.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking, in their helpers too"
)]

mod secured;
mod support;

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use edge_identity::client::{Answer, ClientError, enrol};
use edge_identity::limits::Limits;
use edge_identity::subject::Role;
use secured::{Ca, Holder, id, now_s, server};
use support::DEADLINE;
use tokio::task::JoinSet;

const BOXES: usize = 24;
const KILLS: u32 = 8;

/// Ended when it is dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended by itself, and then the test says so elsewhere.
        let _killed = self.0.kill();
        let _waited = self.0.wait();
    }
}

fn start(https: SocketAddr, ca: &Ca, data: &Path) -> Killed {
    let child = Command::new(env!("CARGO_BIN_EXE_edge-indexer"))
        .args([
            "run",
            "--region",
            "home",
            "--embedded-broker",
            "--mqtt",
            "127.0.0.1:0",
        ])
        .args(["--http", "127.0.0.1:0", "--https", &https.to_string()])
        .arg("--ca")
        .arg(&ca.folder)
        .arg("--data")
        .arg(data)
        .env("RUST_LOG", "error")
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    Killed(child)
}

/// A port that is free now, and hardly taken by another program in the next seconds.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_is_true_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let mut ca = Ca::make(folder.path());
    let data = folder.path().join("data");
    let https = free_address();
    let mut asks = Vec::new();
    for number in 0..BOXES {
        let name = format!("box-{number}");
        let token = ca
            .registry
            .new_token(
                Some(&id(&name)),
                Role::Box,
                &Limits::default(),
                now_s() + 600,
                now_s(),
            )
            .unwrap();
        let ask = Holder::new(Role::Box, &name).ask(Some(token.reveal()));
        asks.push((name, ask));
    }
    let tls = ca.client(None);
    let mut had: HashMap<String, String> = HashMap::new();
    for kill in 0..=KILLS {
        let process = start(https, &ca, &data);
        let started = Instant::now();
        while tokio::net::TcpStream::connect(https).await.is_err() {
            assert!(started.elapsed() < DEADLINE, "the indexer does not listen");
            tokio::task::yield_now().await;
        }
        let mut asking = JoinSet::new();
        for (name, ask) in asks.clone() {
            let tls = tls.clone();
            asking.spawn(async move { (name, enrol(&server(https), tls, &ask).await) });
        }
        let is_last = kill == KILLS;
        if !is_last {
            // At another moment each time: before, among and after the answers.
            tokio::time::sleep(Duration::from_millis(u64::from(kill) * 7)).await;
            drop(process);
        }
        while let Some(asked) = asking.join_next().await {
            match asked.unwrap() {
                (name, Ok(Answer::Granted(granted))) => {
                    let before = had
                        .entry(name)
                        .or_insert_with(|| granted.certificate.clone());
                    assert_eq!(*before, granted.certificate, "the same certificate again");
                }
                (
                    name,
                    Err(
                        ClientError::Connect { .. }
                        | ClientError::Tls { .. }
                        | ClientError::Http(_),
                    ),
                ) if !is_last => {
                    tracing::debug!(name, "cut off");
                }
                // Many ask at once, and the queue is bounded.
                (_, Ok(Answer::Later(_))) if !is_last => {}
                (name, other) => panic!("{name}: {other:?}"),
            }
        }
        let holders = ca.registry.holders().unwrap();
        for name in had.keys() {
            let known = holders.iter().filter(|holder| holder.name.as_str() == name);
            assert_eq!(known.count(), 1, "{name} has its answer");
        }
    }
    assert_eq!(had.len(), BOXES);
    let boxes = ca.registry.holders().unwrap();
    let boxes = boxes.iter().filter(|holder| holder.role == Role::Box);
    assert_eq!(boxes.count(), BOXES);
}
