//! A sensor's side of the wire against the box's side: every request ends once, whatever the network does.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use edge_protocol::{
    Datatype, Id, Status,
    compact::{self, Shape},
    envelope,
    oip::{self, Encoding, Inputs},
    property,
    sensor::{
        Answer, Body, Client, Due, Full, Outcome, Patience, Properties, Send, To, Unreadable,
    },
    topic::{InferTopic, ReplyRoot},
};
use proptest::prelude::*;

const PATIENCE: Patience = Patience::until(Duration::from_secs(20));
const RUN: u64 = 0x5eed;

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn id(text: &str) -> Id {
    Id::new(text).expect("a name")
}

fn client<const N: usize>() -> Client<N> {
    let mut client = Client::new(id("lab"), id("probe-7"), RUN, PATIENCE);
    client.link_up(s(0));
    client
}

fn first_send<const N: usize>(client: &mut Client<N>, now: Duration) -> Send {
    client.begin(now).expect("room");
    match client.take_due(now) {
        Some(Due::Send(send)) => send,
        other => panic!("a request is sent when it begins, not {other:?}"),
    }
}

fn status(code: &str) -> Properties<'_> {
    Properties::new(Some(property::CONTENT_TYPE_CBOR), [("status", code)])
}

fn correlation(number: u64) -> String {
    format!("{RUN:016x}-{number}")
}

#[test]
fn silence_is_answered_by_growing_pauses_until_expiry() {
    let mut client = client::<1>();
    first_send(&mut client, s(0));
    let mut seen = Vec::new();
    while let Some(due) = client.next_due() {
        while let Some(what) = client.take_due(due) {
            seen.push((due, what));
        }
    }
    let again = |at: u64| {
        let remaining = s(20 - at);
        (
            s(at),
            Due::Send(Send {
                number: 0,
                remaining,
            }),
        )
    };
    let given_up = Due::GivenUp {
        number: 0,
        status: None,
    };
    assert_eq!(seen, [again(2), again(6), again(14), (s(20), given_up)]);
}

#[test]
fn a_refusal_is_waited_for_and_is_the_reason_in_the_end() {
    let mut client = client::<1>();
    first_send(&mut client, s(0));
    let busy = Properties::new(None, [("status", "503"), ("retry-after-ms", "500")]);
    assert!(
        client
            .receive(s(1), correlation(0).as_bytes(), &busy, b"")
            .is_none()
    );
    assert_eq!(client.next_due(), Some(Duration::from_millis(1_500)));
    let later = Properties::new(None, [("status", "429"), ("retry-after-ms", "60000")]);
    assert!(
        client
            .receive(s(2), correlation(0).as_bytes(), &later, b"")
            .is_none()
    );
    assert_eq!(client.next_due(), Some(s(20)));
    let given_up = Due::GivenUp {
        number: 0,
        status: Some(429),
    };
    assert_eq!(client.take_due(s(20)), Some(given_up));
}

#[test]
fn without_a_connection_nothing_is_sent_and_with_it_all_at_once() {
    let mut client = Client::<2>::new(id("lab"), id("probe-7"), RUN, PATIENCE);
    client.begin(s(0)).expect("room");
    assert_eq!(client.take_due(s(5)), None);
    client.link_up(s(6));
    let sent = Due::Send(Send {
        number: 0,
        remaining: s(14),
    });
    assert_eq!(client.take_due(s(6)), Some(sent));
    client.link_down();
    assert_eq!(client.take_due(s(19)), None);
    assert_eq!(client.next_due(), Some(s(20)));
    assert!(matches!(client.take_due(s(20)), Some(Due::GivenUp { .. })));
}

#[test]
fn there_is_room_for_so_many() {
    let mut client = client::<2>();
    first_send(&mut client, s(0));
    first_send(&mut client, s(0));
    assert_eq!(client.begin(s(0)), Err(Full));
    let _ended = client.receive(s(0), correlation(0).as_bytes(), &status("400"), b"");
    assert_eq!(client.begin(s(0)), Ok(2));
}

#[test]
fn patience_goes_no_further_than_a_box_keeps_a_request() {
    let patience = Patience::until(Duration::MAX);
    let mut client = Client::<1>::new(id("lab"), id("probe-7"), RUN, patience);
    client.link_up(s(0));
    let send = first_send(&mut client, s(0));
    let digits = id("digits");
    let to = To {
        model: &digits,
        box_id: None,
    };
    assert_eq!(client.publish(send, to, Body::Raw(b"1")).expiry_s, 3_600);
}

#[test]
fn an_answer_ends_its_request_once_and_foreign_ones_end_nothing() {
    let mut client = client::<1>();
    first_send(&mut client, s(0));
    for foreign in ["", "7", "-", "0000000000000001-0", "0000000000005eed-1"] {
        assert!(
            client
                .receive(s(1), foreign.as_bytes(), &status("400"), b"")
                .is_none()
        );
    }
    let failed = Properties::new(None, [("status", "400"), ("status-message", "wrong shape")]);
    let Some((
        0,
        Outcome::Failed {
            status: 400,
            message: "wrong shape",
        },
    )) = client.receive(s(1), correlation(0).as_bytes(), &failed, b"")
    else {
        panic!("the box's words come through")
    };
    assert!(
        client
            .receive(s(1), correlation(0).as_bytes(), &failed, b"")
            .is_none()
    );
    assert_eq!(client.next_due(), None);
}

#[test]
fn answers_that_cannot_be_read_end_the_request_with_a_reason() {
    let binary = Some(property::CONTENT_TYPE_BINARY);
    let length = property::INFERENCE_HEADER_CONTENT_LENGTH;
    let cases = [
        (Properties::default(), "no user property"),
        (
            Properties::new(Some("text/plain"), [("status", "200")]),
            "neither",
        ),
        (
            Properties::new(binary, [("status", "200")]),
            "where its JSON ends",
        ),
        (
            Properties::new(binary, [("status", "200"), (length, "9")]),
            "where its JSON ends",
        ),
        (status("200"), "not the compact CBOR form"),
    ];
    for (properties, expected) in cases {
        let mut client = client::<1>();
        first_send(&mut client, s(0));
        let outcome = client.receive(s(1), correlation(0).as_bytes(), &properties, b"\xff");
        let Some((0, Outcome::Unreadable(error))) = outcome else {
            panic!("{outcome:?}")
        };
        assert!(error.to_string().contains(expected), "{error}");
        if matches!(error, Unreadable::NoStatus) {
            assert_eq!(properties.status, None);
        }
    }
}

/// The longest names that there are, on every topic.
#[test]
fn the_longest_names_fit() {
    let long = id(&"a".repeat(63));
    let mut client = Client::<1>::new(long.clone(), long.clone(), u64::MAX, PATIENCE);
    client.link_up(s(0));
    let send = Send {
        number: u64::MAX,
        ..first_send(&mut client, s(0))
    };
    let to = To {
        model: &long,
        box_id: Some(&long),
    };
    let publish = client.publish(send, to, Body::Raw(b"x"));
    let topic = InferTopic::parse(&publish.topic).expect("a request topic");
    assert_eq!(topic.client, long.as_str());
    let root = ReplyRoot {
        region: topic.region,
        client: topic.client,
    };
    root.check(&publish.response_topic).expect("a reply topic");
    assert_eq!(
        publish.correlation.as_str(),
        format!("{}-{}", "f".repeat(16), u64::MAX)
    );
    assert_eq!(client.reply_filter().as_str(), format!("{root}/#"));
    let mut buffer = [0; 321];
    let enveloped = client
        .envelope(send, to, Body::Raw(b"x"), &mut buffer)
        .expect("room");
    envelope::Request::decode(&Bytes::copy_from_slice(enveloped.payload)).expect("an envelope");
}

fn compact_body(buffer: &mut [u8]) -> usize {
    let mut request = compact::Request::default();
    let tensor = compact::Tensor {
        name: "pixels",
        datatype: Datatype::Uint8,
        shape: Shape::from_slice(&[1, 4]).expect("two dimensions"),
        data: &[1, 2, 3, 4],
    };
    request.inputs.push(tensor).expect("room");
    request.encode(buffer).expect("room")
}

/// What a box answers to this body: the input again, as output `echo`.
fn serve(body: &oip::Body) -> oip::Body {
    let request = oip::Request::decode(&body.bytes, body.encoding).expect("a request");
    let data = match &request.inputs {
        Inputs::Raw(data) => data.clone(),
        Inputs::Named(tensors) => tensors[0].data.clone(),
    };
    let shape = vec![1, data.len() as u64];
    let echo = oip::Tensor::new("echo".to_owned(), Datatype::Uint8, shape, data).expect("a tensor");
    let answer = oip::Answer {
        model_name: "echo".to_owned(),
        model_version: Some("1".to_owned()),
        id: None,
        outputs: vec![echo],
    };
    answer.encode(&request, body.encoding).expect("an answer")
}

fn echoed(outcome: Option<(u64, Outcome<'_>)>) -> Vec<u8> {
    match outcome {
        Some((0, Outcome::Answered(Answer::Raw { header, data }))) => {
            assert!(header.starts_with(b"{"));
            data.to_vec()
        }
        Some((0, Outcome::Answered(Answer::Compact(compact::Answer::Outputs { outputs, .. })))) => {
            outputs[0].data.to_vec()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn both_bodies_go_to_a_box_and_back_in_both_versions_of_mqtt() {
    let mut buffer = [0; 128];
    let length = compact_body(&mut buffer);
    let digits = id("digits");
    let to = To {
        model: &digits,
        box_id: None,
    };
    for body in [Body::Compact(&buffer[..length]), Body::Raw(&[1, 2, 3, 4])] {
        let mut client = client::<1>();
        let send = first_send(&mut client, s(0));
        let publish = client.publish(send, to, body);
        let header_length = publish.user_property.map(|(name, value)| {
            assert_eq!(name, property::INFERENCE_HEADER_CONTENT_LENGTH);
            value
        });
        let encoding =
            Encoding::from_properties(Some(publish.content_type), header_length).expect("known");
        let bytes = Bytes::copy_from_slice(publish.payload);
        let answer = serve(&oip::Body { bytes, encoding });
        let mut properties =
            Properties::new(Some(answer.encoding.content_type()), [("status", "200")]);
        if let Encoding::Binary { header_length } = answer.encoding {
            properties.header_length = Some(header_length);
        }
        let correlation = publish.correlation.as_bytes();
        let outcome = client.receive(s(1), correlation, &properties, &answer.bytes);
        assert_eq!(echoed(outcome), [1, 2, 3, 4]);

        let mut client = crate::client::<1>();
        let send = first_send(&mut client, s(0));
        let mut buffer = [0; 512];
        let enveloped = client.envelope(send, to, body, &mut buffer).expect("room");
        assert_eq!(enveloped.topic, publish.topic);
        let request = envelope::Request::decode(&Bytes::copy_from_slice(enveloped.payload))
            .expect("an envelope");
        assert_eq!(request.form, envelope::Form::Cbor);
        assert_eq!(request.reply, publish.response_topic.as_str());
        assert_eq!(request.timeout_ms, 20_000);
        let answer = envelope::Answer {
            correlation: &request.correlation,
            status: Status::Ok,
            message: None,
            retry_after_ms: None,
            body: &serve(&request.body),
        }
        .encode(request.form);
        let outcome = client.receive_envelope(s(1), &answer).expect("an answer");
        assert_eq!(echoed(outcome), [1, 2, 3, 4]);
    }
}

#[test]
fn an_envelope_tells_of_refusals_and_failures() {
    let mut client = client::<1>();
    first_send(&mut client, s(0));
    let answer = |status, message, retry_after_ms| {
        envelope::Answer {
            correlation: &correlation(0),
            status,
            message,
            retry_after_ms,
            body: &oip::encode_failure(message.unwrap_or_default(), Encoding::Cbor),
        }
        .encode(envelope::Form::Cbor)
    };
    let busy = answer(Status::Unavailable, Some("full"), Some(700));
    assert!(
        client
            .receive_envelope(s(1), &busy)
            .expect("an answer")
            .is_none()
    );
    assert_eq!(client.next_due(), Some(Duration::from_millis(1_700)));
    let failed = answer(Status::NotFound, Some("no such model"), None);
    let Some((
        0,
        Outcome::Failed {
            status: 404,
            message: "no such model",
        },
    )) = client.receive_envelope(s(2), &failed).expect("an answer")
    else {
        panic!("the box's words come through")
    };
    let mut small = [0; 64];
    let send = Send {
        number: 0,
        remaining: s(1),
    };
    let digits = id("digits");
    let to = To {
        model: &digits,
        box_id: None,
    };
    client
        .envelope(send, to, Body::Raw(b"x"), &mut small)
        .expect_err("no room");
}

/// What may happen to a sensor.
#[derive(Debug, Clone)]
enum Event {
    Begin,
    Pass(u16),
    LinkUp,
    LinkDown,
    /// An answer with this status to this request, whether or not it waits.
    Answer(u64, u16),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => Just(Event::Begin),
        8 => (0..9_000_u16).prop_map(Event::Pass),
        1 => Just(Event::LinkUp),
        1 => Just(Event::LinkDown),
        4 => (0..12_u64, prop::sample::select(vec![200, 400, 408, 429, 503]))
            .prop_map(|(number, status)| Event::Answer(number, status)),
    ]
}

proptest! {
    /// Every request ends exactly once and not after its expiry; between, it is published only while there is a
    /// connection, and always for less time than is left.
    #[test]
    fn every_request_ends_once(events in prop::collection::vec(event(), 0..120)) {
        let mut client = Client::<3>::new(id("lab"), id("probe-7"), RUN, PATIENCE);
        let (mut now, mut is_up) = (s(0), false);
        let mut begun: BTreeMap<u64, Duration> = BTreeMap::new();
        let mut ended: BTreeSet<u64> = BTreeSet::new();
        let drain = [Event::LinkUp, Event::Pass(21_000)];
        for event in events.into_iter().chain(drain) {
            match event {
                Event::Begin => {
                    let open = begun.len() - ended.len();
                    match client.begin(now) {
                        Ok(number) => {
                            prop_assert!(open < 3);
                            prop_assert!(begun.insert(number, now).is_none());
                        }
                        Err(Full) => prop_assert_eq!(open, 3),
                    }
                }
                Event::Pass(ms) => now += Duration::from_millis(ms.into()),
                Event::LinkUp => {
                    client.link_up(now);
                    is_up = true;
                }
                Event::LinkDown => {
                    client.link_down();
                    is_up = false;
                }
                Event::Answer(number, code) => {
                    let code_text = code.to_string();
                    let correlation = correlation(number);
                    let payload = [0xa1, 2, 0x80];
                    let properties = status(&code_text);
                    let outcome = client.receive(now, correlation.as_bytes(), &properties, &payload);
                    let is_final = !matches!(code, 429 | 503);
                    let is_open = begun.contains_key(&number) && !ended.contains(&number);
                    prop_assert_eq!(outcome.is_some(), is_open && is_final);
                    if let Some((number, _)) = outcome {
                        ended.insert(number);
                    }
                }
            }
            let mut sends = 0;
            while let Some(due) = client.take_due(now) {
                match due {
                    Due::Send(Send { number, remaining }) => {
                        sends += 1;
                        prop_assert!(sends <= 3, "the same request again at the same moment");
                        prop_assert!(is_up && !ended.contains(&number));
                        prop_assert_eq!(remaining, begun[&number] + s(20) - now);
                        prop_assert!(remaining > Duration::ZERO);
                    }
                    Due::GivenUp { number, .. } => {
                        prop_assert!(ended.insert(number), "it had ended before");
                        prop_assert!(now >= begun[&number] + s(20));
                    }
                }
            }
            prop_assert!(client.next_due().is_none_or(|due| due > now));
        }
        prop_assert_eq!(begun.len(), ended.len());
    }

    #[test]
    fn foreign_bytes_never_panic(
        correlation in prop::collection::vec(any::<u8>(), 0..40),
        payload in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut client = client::<1>();
        first_send(&mut client, s(0));
        let _envelope = client.receive_envelope(s(1), &payload);
        let _foreign = client.receive(s(1), &correlation, &status("200"), &payload);
        let own = crate::correlation(0);
        let _own = client.receive(s(1), own.as_bytes(), &status("200"), &payload);
    }
}
