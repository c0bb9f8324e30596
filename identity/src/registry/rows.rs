//! Single questions and writes within a transaction.

use std::num::NonZeroU32;

use edge_protocol::Id;
use rusqlite::{OptionalExtension as _, Transaction, params};
use sha2::{Digest as _, Sha256};

use super::{Outcome, RegistryError, SEEN_S, WAITING_MAX, WAITING_S};
use crate::{
    authority::{Authority, Issued},
    decision::{KnownKey, KnownToken},
    key::KeyFingerprint,
    limits::Limits,
    request::Request,
    scope::{Scope, UnknownScope},
    subject::Subject,
    token::TokenHash,
};

/// What the certificates of this authority are known by: those of an earlier intermediate are not given again.
pub(super) fn issuer(authority: &Authority) -> [u8; 32] {
    Sha256::digest(authority.intermediate()).into()
}

pub(super) fn known_key(
    transaction: &Transaction<'_>,
    key: KeyFingerprint,
    issuer: &[u8; 32],
    now_s: u64,
) -> rusqlite::Result<Option<KnownKey>> {
    let fresh = transaction
        .query_row(
            "SELECT pem FROM certificates WHERE fingerprint = ? AND issuer = ? \
             AND not_before_s + (not_after_s - not_before_s) / 2 > ? ORDER BY not_after_s DESC LIMIT 1",
            params![key.0, issuer, integer(now_s)],
            |row| row.get(0),
        )
        .optional()?;
    transaction
        .query_row(
            "SELECT name, role, revoked_s FROM keys WHERE fingerprint = ?",
            params![key.0],
            |row| {
                Ok(KnownKey {
                    name: parsed(row, 0)?,
                    role: parsed(row, 1)?,
                    is_revoked: row.get::<_, Option<i64>>(2)?.is_some(),
                    fresh,
                })
            },
        )
        .optional()
}

pub(super) fn is_name_taken(
    transaction: &Transaction<'_>,
    name: &Id,
    key: KeyFingerprint,
) -> rusqlite::Result<bool> {
    transaction.query_row(
        "SELECT EXISTS (SELECT 1 FROM keys WHERE name = ? AND revoked_s IS NULL AND fingerprint != ?)",
        params![name.as_str(), key.0],
        |row| row.get(0),
    )
}

pub(super) fn known_token(
    transaction: &Transaction<'_>,
    token: Option<TokenHash>,
) -> rusqlite::Result<KnownToken> {
    let Some(token) = token else {
        return Ok(KnownToken::None);
    };
    let made = transaction
        .query_row(
            "SELECT name, role, expires_s, used_by FROM tokens WHERE hash = ?",
            params![token.0],
            |row| {
                let is_bound = row.get_ref(0)? != rusqlite::types::ValueRef::Null;
                Ok(KnownToken::Made {
                    name: if is_bound {
                        Some(parsed(row, 0)?)
                    } else {
                        None
                    },
                    role: parsed(row, 1)?,
                    expires_s: unsigned(row.get(2)?),
                    is_used: row.get::<_, Option<Vec<u8>>>(3)?.is_some(),
                })
            },
        )
        .optional()?;
    Ok(made.unwrap_or(KnownToken::Unknown))
}

pub(super) fn is_approved(
    transaction: &Transaction<'_>,
    request: &Request,
) -> rusqlite::Result<bool> {
    transaction.query_row(
        "SELECT EXISTS (SELECT 1 FROM waiting WHERE fingerprint = ? AND name = ? AND role = ? AND is_approved)",
        params![
            request.key.0,
            request.subject.name.as_str(),
            request.subject.role.name()
        ],
        |row| row.get(0),
    )
}

/// Writes down that a key waits.
pub(super) fn wait(
    transaction: &Transaction<'_>,
    request: &Request,
    now_s: u64,
) -> rusqlite::Result<Result<Outcome, RegistryError>> {
    let (name, role) = (&request.subject.name, request.subject.role);
    let is_known = transaction.query_row(
        "SELECT EXISTS (SELECT 1 FROM waiting WHERE fingerprint = ? AND name = ? AND role = ? AND seen_s > ?)",
        params![
            request.key.0,
            name.as_str(),
            role.name(),
            integer(now_s.saturating_sub(SEEN_S))
        ],
        |row| row.get(0),
    )?;
    if is_known {
        return Ok(Ok(Outcome::Waits));
    }
    let gone = integer(now_s.saturating_sub(WAITING_S));
    transaction.execute("DELETE FROM waiting WHERE seen_s <= ?", [gone])?;
    let others: i64 = transaction.query_row(
        "SELECT count(*) FROM waiting WHERE fingerprint != ?",
        params![request.key.0],
        |row| row.get(0),
    )?;
    if others >= WAITING_MAX {
        return Ok(Err(RegistryError::TooManyWaiting));
    }
    // An approval is for one name: who asks for another one waits again.
    transaction.execute(
        "INSERT INTO waiting (fingerprint, name, role, since_s, seen_s, is_approved) VALUES (?1, ?2, ?3, ?4, ?4, 0) \
         ON CONFLICT (fingerprint) DO UPDATE SET name = ?2, role = ?3, seen_s = ?4, is_approved = 0",
        params![request.key.0, name.as_str(), role.name(), integer(now_s)],
    )?;
    Ok(Ok(Outcome::Waits))
}

pub(super) fn keep_key(
    transaction: &Transaction<'_>,
    subject: &Subject,
    key: KeyFingerprint,
    limits: &Limits,
    now_s: u64,
) -> rusqlite::Result<()> {
    transaction.execute(
        "INSERT INTO keys (fingerprint, name, role, since_s, models, per_minute) VALUES (?, ?, ?, ?, ?, ?)",
        params![
            key.0,
            subject.name.as_str(),
            subject.role.name(),
            integer(now_s),
            limits.models_text(),
            limits.per_minute.map(NonZeroU32::get)
        ],
    )?;
    Ok(())
}

pub(super) fn keep_certificate(
    transaction: &Transaction<'_>,
    issued: &Issued,
    issuer: &[u8; 32],
    now_s: u64,
) -> rusqlite::Result<()> {
    let identity = &issued.identity;
    // Those that have ended say nothing any more.
    transaction.execute(
        "DELETE FROM certificates WHERE fingerprint = ? AND not_after_s < ?",
        params![identity.key.0, integer(now_s)],
    )?;
    transaction.execute(
        "INSERT INTO certificates (serial, fingerprint, issuer, not_before_s, not_after_s, pem) \
         VALUES (?, ?, ?, ?, ?, ?)",
        params![
            identity.serial,
            identity.key.0,
            issuer,
            integer(identity.not_before_s),
            integer(identity.not_after_s),
            issued.pem,
        ],
    )?;
    Ok(())
}

/// The limits that a token or an approval carries.
pub(super) fn limits_of(
    transaction: &Transaction<'_>,
    question: &str,
    key: &[u8; 32],
) -> rusqlite::Result<Limits> {
    transaction.query_row(question, params![key], |row| limits(row, 0))
}

/// Scopes in a column of a row.
pub(super) fn scopes(row: &rusqlite::Row<'_>, index: usize) -> rusqlite::Result<Vec<Scope>> {
    let text = row.get_ref(index)?.as_str()?;
    text.split(',')
        .map(|name| {
            name.parse()
                .map_err(|error| damaged::<UnknownScope>(index, error))
        })
        .collect()
}

/// Limits in two columns of a row.
pub(super) fn limits(row: &rusqlite::Row<'_>, index: usize) -> rusqlite::Result<Limits> {
    let models = row.get_ref(index)?.as_str_or_null()?;
    let models = models.map(Limits::read_models).transpose();
    Ok(Limits {
        models: models
            .map_err(|error| damaged(index, error))?
            .unwrap_or_default(),
        per_minute: row
            .get::<_, Option<u32>>(index + 1)?
            .and_then(NonZeroU32::new),
    })
}

/// A name or a role in a row; this crate wrote it, so anything else is damage.
pub(super) fn parsed<T>(row: &rusqlite::Row<'_>, index: usize) -> rusqlite::Result<T>
where
    T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    let text = row.get_ref(index)?.as_str()?;
    text.parse().map_err(|error| damaged(index, error))
}

fn damaged<E: std::error::Error + Send + Sync + 'static>(
    index: usize,
    error: E,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(index, rusqlite::types::Type::Text, Box::new(error))
}

/// SQLite has no unsigned numbers; times beyond its range become its largest.
pub(super) fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
