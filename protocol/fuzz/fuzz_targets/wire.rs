//! Every decoder of foreign bytes: the first byte chooses which, so that one corpus serves all.
//!
//! Run with `cargo xtask fuzz wire`.
#![no_main]

use std::time::Duration;

use bytes::Bytes;
use edge_protocol::{
    Id, compact, envelope,
    oip::{Answer, Encoding, Request, server::Subject},
    sensor::{Client, Patience},
    sparkplug::Payload,
    topic::{InferTopic, OpTopic},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((choice, data)) = data.split_first() else {
        return;
    };
    let body = Bytes::copy_from_slice(data);
    match choice % 11 {
        0 => round_trip(&body, Encoding::Json),
        1 => round_trip(&body, Encoding::Cbor),
        2 => {
            if let Some((length, rest)) = data.split_first() {
                let header_length = usize::from(*length);
                round_trip(&Bytes::copy_from_slice(rest), Encoding::Binary { header_length });
            }
        }
        3 => drop(Answer::decode(&body, Encoding::Json)),
        4 => drop(compact::Answer::decode(data)),
        5 => drop(envelope::Request::decode(&body)),
        6 => drop(Payload::read(data)),
        7 => drop(Subject::decode(data)),
        8 => {
            if let Ok(text) = std::str::from_utf8(data)
                && let Ok(topic) = OpTopic::parse(text)
            {
                assert_eq!(topic.to_string(), text);
            }
        }
        9 => answer_to_a_sensor(data),
        _ => {
            if let Ok(text) = std::str::from_utf8(data)
                && let Ok(topic) = InferTopic::parse(text)
            {
                assert_eq!(topic.to_string(), text);
            }
        }
    }
});

/// An answer in an envelope, at a sensor that waits for one.
fn answer_to_a_sensor(payload: &[u8]) {
    let (Ok(region), Ok(name)) = (Id::new("lab"), Id::new("probe-7")) else {
        return;
    };
    let mut client = Client::<1>::new(region, name, 0, Patience::until(Duration::from_secs(1)));
    if client.begin(Duration::ZERO).is_ok() {
        drop(client.receive_envelope(Duration::ZERO, payload));
    }
}

/// What is read can be written, and reads the same again.
fn round_trip(body: &Bytes, encoding: Encoding) {
    if let Ok(request) = Request::decode(body, encoding)
        && let Ok(written) = request.encode(encoding)
    {
        let again = Request::decode(&written.bytes, written.encoding);
        assert_eq!(again.expect("what was written can be read"), request);
    }
}
