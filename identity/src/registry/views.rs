//! What the registry tells: who is known, who waits, and what counts beside certificates.

use std::collections::{HashMap, HashSet};

use edge_protocol::Id;

use super::{
    Registry, RegistryError, WAITING_S,
    rows::{integer, limits, parsed, scopes, unsigned},
};
use crate::{key::KeyFingerprint, limits::Limits, scope::Scope, subject::Role, token::TokenHash};

/// A key that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingKey {
    /// The key.
    pub key: KeyFingerprint,
    /// Who it wants to be.
    pub name: Id,
    /// As what.
    pub role: Role,
    /// Since when, in seconds since 1970.
    pub since_s: u64,
    /// When it asked last.
    pub seen_s: u64,
    /// An admin approved it, and it has not asked since.
    pub is_approved: bool,
}

/// A key that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownHolder {
    /// The key.
    pub key: KeyFingerprint,
    /// Its name.
    pub name: Id,
    /// Its role.
    pub role: Role,
    /// Since when, in seconds since 1970.
    pub since_s: u64,
    /// When it lost its rights.
    pub revoked_s: Option<u64>,
    /// When its last certificate ends.
    pub ends_s: Option<u64>,
    /// What it may do less than its role.
    pub limits: Limits,
}

/// What counts beside certificates, for who lets people in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rights {
    /// Keys that lost their rights.
    pub revoked: HashSet<KeyFingerprint>,
    /// Keys that may do less than their role.
    pub limits: HashMap<KeyFingerprint, Limits>,
    /// Tokens for the HTTP API.
    pub api: HashMap<TokenHash, ApiToken>,
}

/// What a token for the HTTP API is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiToken {
    /// Whose it is.
    pub name: Id,
    /// What it lets a program read.
    pub scopes: Vec<Scope>,
    /// Until when, in seconds since 1970.
    pub expires_s: u64,
}

impl Registry {
    /// What counts beside certificates, as it is now.
    ///
    /// # Errors
    /// [`RegistryError::Sqlite`].
    pub fn rights(&self) -> Result<Rights, RegistryError> {
        self.read(|connection| {
            let mut rights = Rights::default();
            let mut statement = connection.prepare(
                "SELECT fingerprint, models, per_minute, revoked_s IS NOT NULL FROM keys \
                 WHERE revoked_s IS NOT NULL OR models IS NOT NULL OR per_minute IS NOT NULL",
            )?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let key = KeyFingerprint(row.get(0)?);
                if row.get(3)? {
                    rights.revoked.insert(key);
                } else {
                    rights.limits.insert(key, limits(row, 1)?);
                }
            }
            let mut statement =
                connection.prepare("SELECT hash, name, scopes, expires_s FROM api_tokens")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let token = ApiToken {
                    name: parsed(row, 1)?,
                    scopes: scopes(row, 2)?,
                    expires_s: unsigned(row.get(3)?),
                };
                rights.api.insert(TokenHash(row.get(0)?), token);
            }
            Ok(rights)
        })
    }

    /// Numbers of the certificates of revoked keys that have not ended by themselves.
    ///
    /// # Errors
    /// [`RegistryError::Sqlite`].
    pub fn revoked_serials(&self, now_s: u64) -> Result<Vec<Vec<u8>>, RegistryError> {
        self.read(|connection| {
            let mut statement = connection.prepare(
                "SELECT serial FROM certificates JOIN keys USING (fingerprint) \
                 WHERE revoked_s IS NOT NULL AND not_after_s > ? ORDER BY serial",
            )?;
            let serials = statement.query_map([integer(now_s)], |row| row.get(0))?;
            serials.collect()
        })
    }

    /// All keys, by name.
    ///
    /// # Errors
    /// [`RegistryError::Sqlite`].
    pub fn holders(&self) -> Result<Vec<KnownHolder>, RegistryError> {
        self.read(|connection| {
            let mut statement = connection.prepare(
                "SELECT fingerprint, name, role, since_s, revoked_s, \
                 (SELECT max(not_after_s) FROM certificates WHERE certificates.fingerprint = keys.fingerprint), \
                 models, per_minute FROM keys ORDER BY name, since_s",
            )?;
            let holders = statement.query_map([], |row| {
                Ok(KnownHolder {
                    key: KeyFingerprint(row.get(0)?),
                    name: parsed(row, 1)?,
                    role: parsed(row, 2)?,
                    since_s: unsigned(row.get(3)?),
                    revoked_s: row.get::<_, Option<i64>>(4)?.map(unsigned),
                    ends_s: row.get::<_, Option<i64>>(5)?.map(unsigned),
                    limits: limits(row, 6)?,
                })
            })?;
            holders.collect()
        })
    }

    /// The keys that wait for approval, the longest first.
    ///
    /// # Errors
    /// [`RegistryError::Sqlite`].
    pub fn waiting(&self, now_s: u64) -> Result<Vec<WaitingKey>, RegistryError> {
        self.read(|connection| {
            let mut statement = connection.prepare(
                "SELECT fingerprint, name, role, since_s, seen_s, is_approved FROM waiting WHERE seen_s > ? \
                 ORDER BY since_s, fingerprint",
            )?;
            let oldest = integer(now_s.saturating_sub(WAITING_S));
            let waiting = statement.query_map([oldest], |row| {
                Ok(WaitingKey {
                    key: KeyFingerprint(row.get(0)?),
                    name: parsed(row, 1)?,
                    role: parsed(row, 2)?,
                    since_s: unsigned(row.get(3)?),
                    seen_s: unsigned(row.get(4)?),
                    is_approved: row.get(5)?,
                })
            })?;
            waiting.collect()
        })
    }

    /// A number that changes when another program has changed the registry.
    ///
    /// # Errors
    /// [`RegistryError::Sqlite`].
    pub fn version(&self) -> Result<i64, RegistryError> {
        self.read(|connection| {
            connection.pragma_query_value(None, "data_version", |row| row.get(0))
        })
    }
}
