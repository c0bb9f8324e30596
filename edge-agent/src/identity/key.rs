//! The box's key, in the form that certificates and TLS want its signatures in.

use std::{fmt, sync::Arc};

use edge_hal::identity::{IdentityKey, KeyAlgorithm};
use edge_identity::key::DeviceKey;

/// The key, wherever it lies.
pub(super) struct BoxKey(pub(super) Arc<dyn IdentityKey>);

impl DeviceKey for BoxKey {
    fn public_key_der(&self) -> Vec<u8> {
        self.0.public_key().to_spki_der()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, String> {
        let signature = self.0.sign(message).map_err(|error| error.to_string())?;
        match self.0.algorithm() {
            KeyAlgorithm::Ed25519 => Ok(signature.0.to_vec()),
            // A secure store gives two numbers; certificates want them as a sequence (RFC 3279, section 2.2.3).
            KeyAlgorithm::Es256 => p256::ecdsa::Signature::from_slice(&signature.0)
                .map(|signature| signature.to_der().as_bytes().to_vec())
                .map_err(|error| error.to_string()),
        }
    }
}

impl fmt::Debug for BoxKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BoxKey({})", self.0.fingerprint())
    }
}

#[cfg(test)]
mod tests {
    use edge_hal::identity::SimKey;
    use edge_identity::{
        key::UsableKey,
        request::Request,
        subject::{Role, Subject},
    };
    use edge_protocol::Id;

    use super::*;

    /// The request's own check is the verifier: one of another library than the signer's.
    #[test]
    fn both_kinds_of_keys_sign_what_others_verify() {
        for algorithm in [KeyAlgorithm::Ed25519, KeyAlgorithm::Es256] {
            let key: Arc<dyn IdentityKey> = Arc::new(SimKey::new(algorithm, "box-1"));
            let fingerprint = key.fingerprint();
            let usable = UsableKey::new(Arc::new(BoxKey(key))).unwrap();
            assert_eq!(
                usable.fingerprint().0,
                fingerprint.0,
                "both crates name it alike"
            );
            assert_eq!(usable.fingerprint().to_string(), fingerprint.to_string());
            let subject = Subject {
                region: Id::new("lab").unwrap(),
                role: Role::Box,
                name: Id::new("box-1").unwrap(),
            };
            let request = Request::write(&subject, &usable).unwrap();
            let read = Request::read(&request).unwrap();
            assert_eq!((read.subject, read.key), (subject, usable.fingerprint()));
        }
    }

    #[test]
    fn a_store_that_does_not_answer_is_told() {
        let key = SimKey::new(KeyAlgorithm::Es256, "box-1");
        key.store.fail("chip does not answer");
        let error = BoxKey(Arc::new(key)).sign(b"hello").unwrap_err();
        assert!(error.contains("chip does not answer"), "{error}");
    }
}
