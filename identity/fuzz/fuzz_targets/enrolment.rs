//! What strangers send before they are known: questions, certificate requests, certificates, fingerprints, topics.
#![no_main]

use edge_identity::{
    access::{Action, may},
    certificate::Identity,
    enrolment::Ask,
    key::KeyFingerprint,
    limits::Limits,
    pem,
    request::Request,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(ask) = serde_json::from_slice::<Ask>(bytes) {
        let _request = Request::read(&ask.request);
    }
    let _certificates = pem::certificates(bytes);
    let _key = pem::private_key(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _request = Request::read(text);
        let _fingerprint = text.parse::<KeyFingerprint>();
    }
    if let Ok(identity) = Identity::read(bytes) {
        let text = String::from_utf8_lossy(bytes);
        let limits = Limits {
            models: Limits::read_models(&text).unwrap_or_default(),
            per_minute: None,
        };
        let _published = may(&identity.subject, &limits, Action::Publish, &text);
        let _subscribed = may(&identity.subject, &limits, Action::Subscribe, &text);
    }
});
