//! How a key asks the indexer for its certificate: `POST /api/v1/enrol` with [`Ask`] as JSON.
//!
//! 200 with [`Granted`]: the certificate. 202 with [`Waiting`]: an admin has to approve the key first; ask again later.
//! 400 malformed, 403 refused, 409 the name or the key is taken, 503 busy: `{"error": "..."}`.
//!
//! A key that is known asks without a token: that is how a certificate is renewed, also one that has ended, and how
//! an answer that was lost is had again.

use serde::{Deserialize, Serialize};

/// Path of the question, below the indexer's address and without `/` in front.
pub const PATH: &str = "api/v1/enrol";

/// Longest question or answer in bytes.
pub const MAX_BYTES: usize = 16 << 10;

/// What a key asks.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// Certificate request in PEM: O = region, OU = role, CN = name.
    pub request: String,
    /// One-time token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// The certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    /// The certificate and its intermediate, in PEM.
    pub certificate: String,
    /// The region's root, in PEM.
    pub region_ca: String,
}

/// An admin has to approve the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// What the admin approves: 64 hexadecimal digits.
    pub fingerprint: String,
}

/// A question that was not granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Why, and what to do.
    pub error: String,
}
