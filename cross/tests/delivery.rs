//! What a sensor may rely on: once for each request, through repeats, lost brokers and a box that ends.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod support;

use std::collections::HashSet;

use cross::processes;
use nix::sys::signal::Signal;
use rumqttc::v5::mqttbytes::QoS;
use support::{Agent, Client, OneBox, wait_for_log, wait_for_log_times};

/// A repeated request runs once and is answered each time, with the same answer.
#[test]
fn a_repeated_request_runs_once() {
    let lab = OneBox::start();
    let mut client = Client::connect("sensor-1", lab.port);
    let request = client.request();
    let first = client.ask(&request);
    assert_eq!(first.status, "200", "{first:?}");
    for topic in [
        "edge/v1/lab/any/infer/digits/sensor-1",
        "edge/v1/lab/box/box-1/infer/digits/sensor-1",
    ] {
        // The body is nonsense now: an answer of 200 comes from the cache.
        let mut repeat = request.clone();
        repeat.topic = topic.to_owned();
        repeat.body = b"nonsense".to_vec();
        let again = client.ask(&repeat);
        assert_eq!(again.status, "200", "{again:?}");
        assert_eq!(again.body, first.body);
    }
    // Another client's request under the same correlation is another request.
    let mut other = Client::connect("sensor-2", lab.port);
    let mut request = other.request();
    request.body = b"nonsense".to_vec();
    assert_eq!(other.ask(&request).status, "400");
}

/// A box that starts before its broker, and outlives it, serves whenever the broker is there.
#[test]
fn a_broker_may_come_late_and_go() {
    let folder = tempfile::tempdir().expect("a folder");
    let [port] = processes::free_ports().expect("a port");
    let mut agent = Agent::new("box-1", port).start(folder.path());
    wait_for_log(&mut agent, "no connection to the broker");
    for connections in [3, 6] {
        let mut broker = processes::mosquitto(port, folder.path()).expect("mosquitto");
        wait_for_log_times(&mut agent, "connected to the broker", connections);
        let mut client = Client::connect("sensor-1", port);
        let request = client.request();
        support::eventually("an answer", || {
            // Mosquitto drops a request for a shared topic that nobody has subscribed to yet.
            let mut own = request.clone();
            own.topic = "edge/v1/lab/box/box-1/infer/digits/sensor-1".into();
            client.ask(&own).status == "200"
        });
        broker.kill().expect("mosquitto is killed");
    }
    assert!(agent.ended().expect("a state").is_none(), "the agent lives");
    agent
        .stop()
        .expect("the agent ends with 0 while the broker is away");
}

/// Requests at QoS 0 are bounded by nothing on the wire; however many come, those at QoS 1 are answered.
#[test]
fn a_flood_at_qos_0_holds_up_nobody() {
    let lab = OneBox::start();
    let mut flood = Client::connect("flood-1", lab.port);
    let mut honest = Client::connect("sensor-1", lab.port);
    for _ in 0..10 {
        for _ in 0..900 {
            let mut request = flood.request();
            request.body.clear();
            flood.send_at(QoS::AtMostOnce, &request);
        }
        // One answer drives the connection until all are written.
        flood.receive();
        for _ in 0..30 {
            let request = honest.request();
            assert_eq!(honest.ask(&request).status, "200");
        }
    }
    lab.agent.stop().expect("the agent ends with 0");
}

/// SIGTERM in the middle of a burst: what the broker has given to the box is answered, the process ends with 0.
#[test]
fn sigterm_drains() {
    let mut lab = OneBox::start();
    let mut client = Client::connect("sensor-1", lab.port);
    let warm_up = client.request();
    assert_eq!(client.ask(&warm_up).status, "200");

    // The box stands still until the broker has passed on all requests, and wakes up with the signal.
    lab.agent.signal(Signal::SIGSTOP);
    let mut waiting = HashSet::new();
    for _ in 0..100 {
        let request = client.request();
        client.send(&request);
        let correlation = request.properties.correlation_data.expect("a correlation");
        waiting.insert(correlation.to_vec());
    }
    client.wait_for_acks(waiting.len());
    lab.agent.signal(Signal::SIGTERM);
    lab.agent.signal(Signal::SIGCONT);
    while !waiting.is_empty() {
        let answer = client.receive();
        assert_eq!(answer.status, "200", "{answer:?}");
        assert!(waiting.remove(&answer.correlation), "exactly once");
    }
    let status = lab.agent.wait(support::PATIENCE).expect("the agent ends");
    assert!(status.success(), "{status}{}", lab.agent.log());
}
