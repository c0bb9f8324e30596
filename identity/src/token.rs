//! Tokens, for one enrolment or for the HTTP API: 128 random bits that are shown once and kept as a hash.

use std::fmt;

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::key::hex;

/// What a token for enrolment begins with, so that people and scanners know it for one.
const ENROLMENT: &str = "edge-enrol-";
/// What a token for the HTTP API begins with.
const API: &str = "edge-api-";

/// A token as its owner has it.
pub struct Token(Zeroizing<String>);

/// A token as the registry keeps it. Of 128 random bits, a plain SHA-256 gives nothing away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash(pub [u8; 32]);

impl Token {
    /// A new one for enrolment.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn for_enrolment() -> Result<Self, getrandom::Error> {
        Self::random(ENROLMENT)
    }

    /// A new one for the HTTP API.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn for_api() -> Result<Self, getrandom::Error> {
        Self::random(API)
    }

    fn random(prefix: &str) -> Result<Self, getrandom::Error> {
        let mut bytes = Zeroizing::new([0; 16]);
        getrandom::fill(bytes.as_mut_slice())?;
        let text = format!("{prefix}{}", hex(bytes.as_slice()));
        Ok(Self(Zeroizing::new(text)))
    }

    /// As its owner has it. Show it once, log it never.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl TokenHash {
    /// That of a token, with the white space around it that files have.
    #[must_use]
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token.trim()).into())
    }
}
