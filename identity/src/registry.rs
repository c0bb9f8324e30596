//! Whom the region knows: keys with their names, certificates, tokens, and who waits for approval. SQLite in one file,
//! shared by the indexer and the command line.
//!
//! Whatever belongs together is one transaction that is on the disk when it is acknowledged: a token is burnt with the
//! certificate that it bought, or not at all.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    time::Duration,
};

use edge_protocol::Id;
use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};
use sha2::{Digest as _, Sha256};

use crate::{
    authority::{Authority, AuthorityError, Issued, Lifetime},
    decision::{Decision, Known, KnownKey, KnownToken, Refusal, decide},
    key::KeyFingerprint,
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
        revoked_s INTEGER
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
        used_by BLOB
    ) STRICT;
    CREATE TABLE waiting (
        fingerprint BLOB PRIMARY KEY,
        name TEXT NOT NULL,
        role TEXT NOT NULL,
        since_s INTEGER NOT NULL,
        seen_s INTEGER NOT NULL,
        is_approved INTEGER NOT NULL
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
            if decision != Decision::Renew {
                keep_key(transaction, &request.subject, request.key, now_s)?;
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

    /// Makes a token with which one key enrols as `role`, under `name` if given, until `expires_s`.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub fn new_token(
        &mut self,
        name: Option<&Id>,
        role: Role,
        expires_s: u64,
        now_s: u64,
    ) -> Result<Token, RegistryError> {
        let token = Token::random()?;
        let hash = TokenHash::of(token.reveal());
        self.transact(|transaction| {
            // Old ones say nothing any more but that they are old; for a day they still say so.
            let forgotten = "DELETE FROM tokens WHERE expires_s < ?";
            transaction.execute(forgotten, [integer(now_s.saturating_sub(24 * 3_600))])?;
            transaction.execute(
                "INSERT INTO tokens (hash, name, role, expires_s) VALUES (?, ?, ?, ?)",
                params![
                    hash.0,
                    name.map(Id::as_str),
                    role.name(),
                    integer(expires_s)
                ],
            )
        })?;
        Ok(token)
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
                None => keep_key(transaction, subject, key, now_s)?,
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

    /// Approves a key that waits to be `name`: it gets its certificate when it asks next.
    ///
    /// # Errors
    /// [`RegistryError::NobodyWaits`].
    pub fn approve(&mut self, name: &Id, key: KeyFingerprint) -> Result<(), RegistryError> {
        let count = self.transact(|transaction| {
            transaction.execute(
                "UPDATE waiting SET is_approved = 1 WHERE fingerprint = ? AND name = ?",
                params![key.0, name.as_str()],
            )
        })?;
        match count {
            0 => Err(RegistryError::NobodyWaits(name.clone())),
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

    /// The keys that lost their rights.
    ///
    /// # Errors
    /// [`RegistryError::Sqlite`].
    pub fn revoked_keys(&self) -> Result<HashSet<KeyFingerprint>, RegistryError> {
        self.read(|connection| {
            let mut statement =
                connection.prepare("SELECT fingerprint FROM keys WHERE revoked_s IS NOT NULL")?;
            let keys = statement.query_map([], |row| row.get(0).map(KeyFingerprint))?;
            keys.collect()
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
                 (SELECT max(not_after_s) FROM certificates WHERE certificates.fingerprint = keys.fingerprint) \
                 FROM keys ORDER BY name, since_s",
            )?;
            let holders = statement.query_map([], |row| {
                Ok(KnownHolder {
                    key: KeyFingerprint(row.get(0)?),
                    name: parsed(row, 1)?,
                    role: parsed(row, 2)?,
                    since_s: unsigned(row.get(3)?),
                    revoked_s: row.get::<_, Option<i64>>(4)?.map(unsigned),
                    ends_s: row.get::<_, Option<i64>>(5)?.map(unsigned),
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

/// What the certificates of this authority are known by: those of an earlier intermediate are not given again.
fn issuer(authority: &Authority) -> [u8; 32] {
    Sha256::digest(authority.intermediate()).into()
}

fn known_key(
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

fn is_name_taken(
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

fn known_token(
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

fn is_approved(transaction: &Transaction<'_>, request: &Request) -> rusqlite::Result<bool> {
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
fn wait(
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

fn keep_key(
    transaction: &Transaction<'_>,
    subject: &Subject,
    key: KeyFingerprint,
    now_s: u64,
) -> rusqlite::Result<()> {
    transaction.execute(
        "INSERT INTO keys (fingerprint, name, role, since_s) VALUES (?, ?, ?, ?)",
        params![
            key.0,
            subject.name.as_str(),
            subject.role.name(),
            integer(now_s)
        ],
    )?;
    Ok(())
}

fn keep_certificate(
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

/// A name or a role in a row; this crate wrote it, so anything else is damage.
fn parsed<T>(row: &rusqlite::Row<'_>, index: usize) -> rusqlite::Result<T>
where
    T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    let text = row.get_ref(index)?.as_str()?;
    text.parse().map_err(|error: T::Err| {
        rusqlite::Error::FromSqlConversionFailure(
            index,
            rusqlite::types::Type::Text,
            Box::new(error),
        )
    })
}

/// SQLite has no unsigned numbers; times beyond its range become its largest.
fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
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
                .new_token(None, Role::Box, NOW_S + 60, NOW_S)
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
