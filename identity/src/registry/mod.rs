//! Whom the region knows: keys with their names, certificates, tokens, and who waits for approval. SQLite in one file,
//! shared by the indexer and the command line.
//!
//! Whatever belongs together is one transaction that is on the disk when it is acknowledged: a token is burnt with the
//! certificate that it bought, or not at all.
//!
//! - [`views`]: what it tells; `rows`: single questions and writes within a transaction

mod rows;
pub mod views;

use std::{
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::Duration,
};

use edge_protocol::Id;
use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};

use self::rows::{
    integer, is_approved, is_name_taken, issuer, keep_certificate, keep_key, known_key,
    known_token, limits_of, wait,
};
pub use self::views::{ApiToken, KnownHolder, Rights, WaitingKey};
use crate::{
    authority::{Authority, AuthorityError, Issued, Lifetime},
    decision::{Decision, Known, Refusal, decide},
    key::KeyFingerprint,
    limits::Limits,
    request::Request,
    subject::{Role, Subject},
    token::{Token, TokenHash},
};

/// Version of the tables; `PRAGMA user_version`.
const VERSION: i64 = 1;
/// Keys that wait for approval at most. More are refused, so that a stranger cannot fill the disk.
const WAITING_MAX: i64 = 1_000;
/// A key that has not asked for so long waits no more.
const WAITING_S: u64 = 24 * 3_600;
/// How often it is written down that a key still asks.
const SEEN_S: u64 = 60;
/// How long one program waits for another's transaction.
const BUSY: Duration = Duration::from_secs(5);

const TABLES: &str = "
    -- Who holds which key. A revoked key stays, so that it is refused for ever.
    CREATE TABLE keys (
        fingerprint BLOB PRIMARY KEY,
        name TEXT NOT NULL,
        role TEXT NOT NULL,
        since_s INTEGER NOT NULL,
        revoked_s INTEGER,
        models TEXT,
        per_minute INTEGER
    ) STRICT;
    CREATE UNIQUE INDEX one_key_a_name ON keys (name) WHERE revoked_s IS NULL;
    CREATE TABLE certificates (
        serial BLOB PRIMARY KEY,
        fingerprint BLOB NOT NULL REFERENCES keys,
        issuer BLOB NOT NULL,
        not_before_s INTEGER NOT NULL,
        not_after_s INTEGER NOT NULL,
        pem TEXT NOT NULL
    ) STRICT;
    CREATE INDEX certificates_of_a_key ON certificates (fingerprint, not_after_s);
    CREATE TABLE tokens (
        hash BLOB PRIMARY KEY,
        name TEXT,
        role TEXT NOT NULL,
        expires_s INTEGER NOT NULL,
        used_by BLOB,
        models TEXT,
        per_minute INTEGER
    ) STRICT;
    -- Programs that read the HTTP API without a certificate.
    CREATE TABLE api_tokens (
        hash BLOB PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        scopes TEXT NOT NULL,
        expires_s INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE waiting (
        fingerprint BLOB PRIMARY KEY,
        name TEXT NOT NULL,
        role TEXT NOT NULL,
        since_s INTEGER NOT NULL,
        seen_s INTEGER NOT NULL,
        is_approved INTEGER NOT NULL,
        models TEXT,
        per_minute INTEGER
    ) STRICT;
";

/// Why the registry does not do it.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The file.
    #[error("the registry {} cannot be used", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// A later version's file.
    #[error("the registry {} is of a later version ({found}, this one knows {VERSION})", path.display())]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Version in the file.
        found: i64,
    },
    /// The authority.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// Too many wait.
    #[error("too many keys wait for approval; ask again later, or enrol with a token")]
    TooManyWaiting,
    /// A name that has a key.
    #[error("another key is known as {0}; revoke that one first, or choose another name")]
    NameTaken(Id),
    /// A key that has a name.
    #[error("this key is known under another name or role, or was revoked; make a new one")]
    KeyTaken,
    /// Nobody of this name and key waits.
    #[error("no key with this fingerprint waits to be {0}; `edgectl ca pending` shows who waits")]
    NobodyWaits(Id),
    /// Nobody has this name.
    #[error("no key is known as {0}; `edgectl ca list` shows all")]
    NobodyKnown(Id),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    Random(#[from] getrandom::Error),
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The certificate, as PEM without its intermediate.
    Granted(String),
    /// An admin has to approve the key.
    Waits,
    /// No.
    Refused(Refusal),
}

/// A step of an enrolment, named for what is done when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Decided,
    Issued,
    Kept,
    Burnt,
    Committed,
}

/// The registry.
#[derive(Debug)]
pub struct Registry {
    connection: Connection,
    path: PathBuf,
}

impl Registry {
    /// Opens the registry, and makes it where there is none.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub fn open(path: &Path) -> Result<Self, RegistryError> {
        let failed = |source| RegistryError::Sqlite {
            path: path.to_owned(),
            source,
        };
        let mut connection = Connection::open(path).map_err(failed)?;
        connection.busy_timeout(BUSY).map_err(failed)?;
        // On the disk when it is acknowledged: with NORMAL, a power cut could take the last transactions back.
        connection
            .pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))
            .and_then(|()| connection.pragma_update(None, "synchronous", "FULL"))
            .and_then(|()| connection.pragma_update(None, "foreign_keys", true))
            .map_err(failed)?;
        let found = prepare(&mut connection).map_err(failed)?;
        if found > VERSION {
            let path = path.to_owned();
            return Err(RegistryError::TooNew { path, found });
        }
        Ok(Self {
            connection,
            path: path.to_owned(),
        })
    }

    /// Decides on a request, and grants it a certificate where it has a right to one. What is granted is on the disk.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub fn enrol(
        &mut self,
        authority: &Authority,
        request: &Request,
        token: Option<&str>,
        lifetime: Lifetime,
    ) -> Result<Outcome, RegistryError> {
        self.enrol_stepwise(authority, request, token, lifetime, &mut |_| Ok(()))
    }

    /// `after` is asked after each step whether to go on; tests stop it there, as a crash would.
    fn enrol_stepwise(
        &mut self,
        authority: &Authority,
        request: &Request,
        token: Option<&str>,
        lifetime: Lifetime,
        after: &mut dyn FnMut(Step) -> rusqlite::Result<()>,
    ) -> Result<Outcome, RegistryError> {
        let now_s = lifetime.now_s;
        let issuer = issuer(authority);
        let token = token.map(TokenHash::of);
        self.transact(|transaction| {
            let known = Known {
                wanted: &request.subject,
                region: authority.region(),
                key: known_key(transaction, request.key, &issuer, now_s)?,
                is_name_taken: is_name_taken(transaction, &request.subject.name, request.key)?,
                token: known_token(transaction, token)?,
                is_approved: is_approved(transaction, request)?,
                now_s,
            };
            let decision = decide(&known);
            after(Step::Decided)?;
            match decision {
                Decision::Repeat(pem) => return Ok(Ok(Outcome::Granted(pem))),
                Decision::Refuse(why) => return Ok(Ok(Outcome::Refused(why))),
                Decision::Wait => return wait(transaction, request, now_s),
                Decision::Renew | Decision::EnrolByToken | Decision::EnrolByApproval => {}
            }
            let key = &request.public_key_der;
            let issued = match authority.issue(&request.subject, key, lifetime, &[]) {
                Ok(issued) => issued,
                Err(error) => return Ok(Err(error.into())),
            };
            after(Step::Issued)?;
            let limits = match (&decision, token) {
                (Decision::EnrolByToken, Some(token)) => Some(limits_of(
                    transaction,
                    "SELECT models, per_minute FROM tokens WHERE hash = ?",
                    &token.0,
                )?),
                (Decision::EnrolByApproval, _) => Some(limits_of(
                    transaction,
                    "SELECT models, per_minute FROM waiting WHERE fingerprint = ?",
                    &request.key.0,
                )?),
                _ => None,
            };
            if let Some(limits) = limits {
                keep_key(transaction, &request.subject, request.key, &limits, now_s)?;
            }
            keep_certificate(transaction, &issued, &issuer, now_s)?;
            after(Step::Kept)?;
            if let (Decision::EnrolByToken, Some(token)) = (decision, token) {
                transaction.execute(
                    "UPDATE tokens SET used_by = ? WHERE hash = ?",
                    params![request.key.0, token.0],
                )?;
            }
            let waited = "DELETE FROM waiting WHERE fingerprint = ?";
            transaction.execute(waited, params![request.key.0])?;
            after(Step::Burnt)?;
            Ok(Ok(Outcome::Granted(issued.pem)))
        })
        .and_then(|outcome| {
            let outcome = outcome?;
            after(Step::Committed).map_err(|source| self.failed(source))?;
            Ok(outcome)
        })
    }

    /// Makes a token with which one key enrols as `role`, under `name` if given and within `limits`, until `expires_s`.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub fn new_token(
        &mut self,
        name: Option<&Id>,
        role: Role,
        limits: &Limits,
        expires_s: u64,
        now_s: u64,
    ) -> Result<Token, RegistryError> {
        let token = Token::for_enrolment()?;
        let hash = TokenHash::of(token.reveal());
        self.transact(|transaction| {
            // Old ones say nothing any more but that they are old; for a day they still say so.
            let forgotten = "DELETE FROM tokens WHERE expires_s < ?";
            transaction.execute(forgotten, [integer(now_s.saturating_sub(24 * 3_600))])?;
            transaction.execute(
                "INSERT INTO tokens (hash, name, role, expires_s, models, per_minute) VALUES (?, ?, ?, ?, ?, ?)",
                params![
                    hash.0,
                    name.map(Id::as_str),
                    role.name(),
                    integer(expires_s),
                    limits.models_text(),
                    limits.per_minute.map(NonZeroU32::get)
                ],
            )
        })?;
        Ok(token)
    }

    /// Makes a token with which a program reads these parts of the HTTP API. One of the same name ends.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub fn new_api_token(&mut self, grant: &ApiToken) -> Result<Token, RegistryError> {
        let token = Token::for_api()?;
        let hash = TokenHash::of(token.reveal());
        let scopes: Vec<&str> = grant.scopes.iter().map(|scope| scope.name()).collect();
        self.transact(|transaction| {
            transaction.execute(
                "INSERT OR REPLACE INTO api_tokens (hash, name, scopes, expires_s) VALUES (?, ?, ?, ?)",
                params![
                    hash.0,
                    grant.name.as_str(),
                    scopes.join(","),
                    integer(grant.expires_s)
                ],
            )
        })?;
        Ok(token)
    }

    /// Ends the token for the HTTP API that has this name; false when there is none.
    ///
    /// # Errors
    /// [`RegistryError::Sqlite`].
    pub fn end_api_token(&mut self, name: &Id) -> Result<bool, RegistryError> {
        let count = self.transact(|transaction| {
            let ended = "DELETE FROM api_tokens WHERE name = ?";
            transaction.execute(ended, [name.as_str()])
        })?;
        Ok(count > 0)
    }

    /// Issues a certificate to a key that needs no leave to ask: one by hand, or the indexer's own. It is on the disk
    /// before it is given away.
    ///
    /// # Errors
    /// [`RegistryError::NameTaken`] and [`RegistryError::KeyTaken`] when name or key are another's.
    pub fn issue(
        &mut self,
        authority: &Authority,
        subject: &Subject,
        public_key_der: &[u8],
        lifetime: Lifetime,
        hosts: &[String],
    ) -> Result<Issued, RegistryError> {
        let key = KeyFingerprint::of(public_key_der);
        let now_s = lifetime.now_s;
        let issuer = issuer(authority);
        self.transact(|transaction| {
            if is_name_taken(transaction, &subject.name, key)? {
                return Ok(Err(RegistryError::NameTaken(subject.name.clone())));
            }
            match known_key(transaction, key, &issuer, now_s)? {
                None => keep_key(transaction, subject, key, &Limits::default(), now_s)?,
                Some(known)
                    if known.name == subject.name
                        && known.role == subject.role
                        && !known.is_revoked => {}
                Some(_) => return Ok(Err(RegistryError::KeyTaken)),
            }
            let issued = match authority.issue(subject, public_key_der, lifetime, hosts) {
                Ok(issued) => issued,
                Err(error) => return Ok(Err(error.into())),
            };
            keep_certificate(transaction, &issued, &issuer, now_s)?;
            Ok(Ok(issued))
        })?
    }

    /// Approves a key that waits to be `name`: it gets its certificate when it asks next, within `limits`.
    ///
    /// # Errors
    /// [`RegistryError::NobodyWaits`].
    pub fn approve(
        &mut self,
        name: &Id,
        key: KeyFingerprint,
        limits: &Limits,
    ) -> Result<(), RegistryError> {
        let count = self.transact(|transaction| {
            transaction.execute(
                "UPDATE waiting SET is_approved = 1, models = ?3, per_minute = ?4 \
                 WHERE fingerprint = ?1 AND name = ?2",
                params![
                    key.0,
                    name.as_str(),
                    limits.models_text(),
                    limits.per_minute.map(NonZeroU32::get)
                ],
            )
        })?;
        match count {
            0 => Err(RegistryError::NobodyWaits(name.clone())),
            _ => Ok(()),
        }
    }

    /// Binds who is known as `name` to `limits`, from now on.
    ///
    /// # Errors
    /// [`RegistryError::NobodyKnown`].
    pub fn limit(&mut self, name: &Id, limits: &Limits) -> Result<(), RegistryError> {
        let count = self.transact(|transaction| {
            transaction.execute(
                "UPDATE keys SET models = ?2, per_minute = ?3 WHERE name = ?1 AND revoked_s IS NULL",
                params![
                    name.as_str(),
                    limits.models_text(),
                    limits.per_minute.map(NonZeroU32::get)
                ],
            )
        })?;
        match count {
            0 => Err(RegistryError::NobodyKnown(name.clone())),
            _ => Ok(()),
        }
    }

    /// Takes all rights from the key that is known as `name`, for ever. The name is free for another key.
    ///
    /// # Errors
    /// [`RegistryError::NobodyKnown`].
    pub fn revoke(&mut self, name: &Id, now_s: u64) -> Result<KeyFingerprint, RegistryError> {
        let key = self.transact(|transaction| {
            transaction
                .query_row(
                    "UPDATE keys SET revoked_s = ? WHERE name = ? AND revoked_s IS NULL RETURNING fingerprint",
                    params![integer(now_s), name.as_str()],
                    |row| row.get(0).map(KeyFingerprint),
                )
                .optional()
        })?;
        key.ok_or_else(|| RegistryError::NobodyKnown(name.clone()))
    }

    fn transact<T>(
        &mut self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, RegistryError> {
        // Immediate: what is read stays true until the end.
        let done = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .and_then(|transaction| {
                let done = work(&transaction)?;
                transaction.commit()?;
                Ok(done)
            });
        done.map_err(|source| self.failed(source))
    }

    fn read<T>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, RegistryError> {
        work(&self.connection).map_err(|source| self.failed(source))
    }

    fn failed(&self, source: rusqlite::Error) -> RegistryError {
        RegistryError::Sqlite {
            path: self.path.clone(),
            source,
        }
    }
}

/// Makes the tables where there are none; returns the version that was found.
fn prepare(connection: &mut Connection) -> rusqlite::Result<i64> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found == 0 {
        transaction.execute_batch(TABLES)?;
        transaction.pragma_update(None, "user_version", VERSION)?;
    }
    transaction.commit()?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use crate::authority::{NewAuthority, new_key, request};

    use super::*;

    const NOW_S: u64 = 1_800_000_000;
    const STEPS: [Step; 5] = [
        Step::Decided,
        Step::Issued,
        Step::Kept,
        Step::Burnt,
        Step::Committed,
    ];

    /// A power cut after each step of an enrolment by token: what was done is there whole or not at all, the token buys
    /// exactly one identity, and the box gets it with the same question.
    #[test]
    fn a_crash_neither_burns_a_token_in_vain_nor_makes_two_identities() {
        let region = Id::new("lab").unwrap();
        let week = Lifetime {
            now_s: NOW_S,
            for_s: 7 * 24 * 3_600,
        };
        let root = NewAuthority::root(&region, week).unwrap();
        let intermediate = root.intermediate(&region, week).unwrap();
        let key = intermediate.key_pem();
        let authority = Authority::new(root.certificate, intermediate.certificate, &key).unwrap();
        let subject = Subject {
            region,
            role: Role::Box,
            name: Id::new("box-1").unwrap(),
        };
        for crash in STEPS {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("registry.sqlite3");
            let mut registry = Registry::open(&path).unwrap();
            let token = registry
                .new_token(None, Role::Box, &Limits::default(), NOW_S + 60, NOW_S)
                .unwrap();
            let (key_pem, _) = new_key().unwrap();
            let request = Request::read(&request(&subject, &key_pem).unwrap()).unwrap();
            let mut done = Vec::new();
            let cut = registry.enrol_stepwise(
                &authority,
                &request,
                Some(token.reveal()),
                week,
                &mut |step| {
                    done.push(step);
                    if step == crash {
                        return Err(rusqlite::Error::ExecuteReturnedResults);
                    }
                    Ok(())
                },
            );
            assert!(cut.is_err(), "{crash:?}");
            assert_eq!(done.last(), Some(&crash));
            drop(registry);

            let mut registry = Registry::open(&path).unwrap();
            let holders = registry.holders().unwrap().len();
            assert_eq!(holders, usize::from(crash == Step::Committed), "{crash:?}");
            let mut ask = || {
                registry
                    .enrol(&authority, &request, Some(token.reveal()), week)
                    .unwrap()
            };
            let first = ask();
            assert!(matches!(first, Outcome::Granted(_)), "{crash:?}: {first:?}");
            assert_eq!(ask(), first, "the same certificate again");
            assert_eq!(registry.holders().unwrap().len(), 1);
            let certificates: i64 = registry
                .read(|c| c.query_row("SELECT count(*) FROM certificates", [], |row| row.get(0)))
                .unwrap();
            assert_eq!(certificates, 1, "{crash:?}");
        }
    }
}
