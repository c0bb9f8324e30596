//! What strangers send: requests, certificates, questions. None may panic, none may be taken for another one.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use edge_identity::{
    authority::request,
    certificate::Identity,
    enrolment::Ask,
    pem,
    request::{MAX_BYTES, Request, RequestError},
    subject::Role,
};
use proptest::prelude::*;
use rustls::pki_types::{CertificateSigningRequestDer, pem::PemObject as _};
use support::{Holder, NOW_S, at, authority, subject};

fn valid() -> (Vec<u8>, Request) {
    let holder = Holder::new();
    let text = request(&subject(Role::Box, "box-1"), &holder.key_pem).unwrap();
    let der = CertificateSigningRequestDer::from_pem_slice(text.as_bytes()).unwrap();
    (der.to_vec(), Request::read(&text).unwrap())
}

/// As a stranger would send it.
fn read(der: &[u8]) -> Result<Request, RequestError> {
    use base64::Engine as _;

    let body = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = body
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    let text = format!(
        "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
        lines.join("\n")
    );
    Request::read(&text)
}

/// Every bit is signed, or is the signature. What is not signed says nothing that is read.
#[test]
fn a_request_with_a_changed_bit_is_refused_or_the_same() {
    let (der, request) = valid();
    assert_eq!(read(&der).unwrap(), request);
    for index in 0..der.len() {
        for bit in 0..8 {
            let mut changed = der.clone();
            changed[index] ^= 1 << bit;
            if let Ok(other) = read(&changed) {
                assert_eq!(other, request, "byte {index}, bit {bit}");
            }
        }
    }
    for end in 0..der.len() {
        assert!(read(&der[..end]).is_err(), "cut at {end}");
    }
}

#[test]
fn a_request_of_another_key_is_refused() {
    let (first, second) = (valid().0, valid().0);
    // The public key of one in the request of the other: 65 bytes that begin with 04, in both at the same place.
    let at = first
        .windows(2)
        .position(|bytes| bytes == [0x00, 0x04])
        .unwrap()
        + 1;
    let mut forged = first.clone();
    forged[at..at + 65].copy_from_slice(&second[at..at + 65]);
    assert_eq!(read(&forged), Err(RequestError::Forged));
}

#[test]
fn a_long_request_is_not_read() {
    let text = "A".repeat(MAX_BYTES + 1);
    assert_eq!(Request::read(&text), Err(RequestError::Form));
}

proptest! {
    #[test]
    fn any_bytes_are_taken_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _request = read(&bytes);
        let _identity = Identity::read(&bytes);
        let _certificates = pem::certificates(&bytes);
        let _key = pem::private_key(&bytes);
        let _ask = serde_json::from_slice::<Ask>(&bytes);
    }

    #[test]
    fn damaged_certificates_are_taken_or_refused(index in 0..400_usize, byte in any::<u8>()) {
        let holder = Holder::new();
        let issued = authority("lab")
            .issue(&subject(Role::Box, "box-1"), &holder.public, at(NOW_S), &[])
            .unwrap();
        let mut der = issued.certificate.to_vec();
        if let Some(place) = der.get_mut(index) {
            *place = byte;
        }
        let _identity = Identity::read(&der);
    }
}
