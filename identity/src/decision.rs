//! Whether a key gets the certificate that it asks for: a function of what the registry knows.

use edge_protocol::Id;

use crate::subject::{Role, Subject};

/// What the registry knows about a request.
#[derive(Debug, Clone)]
pub struct Known<'a> {
    /// Who the key wants to be.
    pub wanted: &'a Subject,
    /// The region.
    pub region: &'a Id,
    /// Who the key is already.
    pub key: Option<KnownKey>,
    /// Another key has the name, and is not revoked.
    pub is_name_taken: bool,
    /// The token that came along, as the registry knows it.
    pub token: KnownToken,
    /// An admin approved the key under this name and role.
    pub is_approved: bool,
    /// Now, in seconds since 1970.
    pub now_s: u64,
}

/// A key in the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownKey {
    /// Its name.
    pub name: Id,
    /// Its role.
    pub role: Role,
    /// It lost its rights.
    pub is_revoked: bool,
    /// Its last certificate, when that one's life is not half over.
    pub fresh: Option<String>,
}

/// What is known of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KnownToken {
    /// None came along.
    None,
    /// One that was never made.
    Unknown,
    /// One that was made.
    Made {
        /// The name that it is for.
        name: Option<Id>,
        /// The role that it is for.
        role: Role,
        /// Until when, in seconds since 1970.
        expires_s: u64,
        /// Somebody had it.
        is_used: bool,
    },
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Issue: the key is known.
    Renew,
    /// Give the last certificate again.
    Repeat(String),
    /// Issue, and burn the token.
    EnrolByToken,
    /// Issue, and forget that the key waited.
    EnrolByApproval,
    /// Wait for an admin.
    Wait,
    /// No.
    Refuse(Refusal),
}

/// Why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another region.
    #[error("the request is for another region than this indexer's; check the box's region")]
    Region,
    /// A role that is made by hand.
    #[error("certificates of this role are issued by hand: edgectl ca issue")]
    Role,
    /// The key lost its rights.
    #[error("this key is revoked; make a new key and enrol it with a new token")]
    Revoked,
    /// The key has another name.
    #[error("this key is enrolled under another name or role; revoke that one first")]
    KeyTaken,
    /// The name has another key.
    #[error(
        "another key is enrolled under this name; revoke that one first, or choose another name"
    )]
    NameTaken,
    /// No such token.
    #[error("the enrolment token is not one of this region")]
    UnknownToken,
    /// The token was used.
    #[error("the enrolment token was used already; ask for a new one")]
    UsedToken,
    /// The token is too old.
    #[error("the enrolment token has expired; ask for a new one")]
    ExpiredToken,
    /// The token is for somebody else.
    #[error("the enrolment token is for another name or role")]
    OtherToken,
}

/// Decides. A key that is enrolled needs no token: it renews, and has a lost answer again.
#[must_use]
pub fn decide(known: &Known<'_>) -> Decision {
    let wanted = known.wanted;
    if wanted.region != *known.region {
        return Decision::Refuse(Refusal::Region);
    }
    if let Some(key) = &known.key {
        return match &key.fresh {
            _ if key.is_revoked => Decision::Refuse(Refusal::Revoked),
            _ if key.name != wanted.name || key.role != wanted.role => {
                Decision::Refuse(Refusal::KeyTaken)
            }
            Some(certificate) => Decision::Repeat(certificate.clone()),
            None => Decision::Renew,
        };
    }
    if !wanted.role.enrols() {
        return Decision::Refuse(Refusal::Role);
    }
    if known.is_name_taken {
        return Decision::Refuse(Refusal::NameTaken);
    }
    match &known.token {
        KnownToken::None if known.is_approved => Decision::EnrolByApproval,
        KnownToken::None => Decision::Wait,
        KnownToken::Unknown => Decision::Refuse(Refusal::UnknownToken),
        KnownToken::Made { is_used: true, .. } => Decision::Refuse(Refusal::UsedToken),
        KnownToken::Made { expires_s, .. } if *expires_s <= known.now_s => {
            Decision::Refuse(Refusal::ExpiredToken)
        }
        KnownToken::Made { name, role, .. } => {
            let is_for_this = name.as_ref().is_none_or(|name| *name == wanted.name);
            if is_for_this && *role == wanted.role {
                Decision::EnrolByToken
            } else {
                Decision::Refuse(Refusal::OtherToken)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> Id {
        Id::new(name).unwrap()
    }

    fn token(name: Option<&str>, role: Role, expires_s: u64, is_used: bool) -> KnownToken {
        KnownToken::Made {
            name: name.map(id),
            role,
            expires_s,
            is_used,
        }
    }

    fn key(name: &str, is_revoked: bool, fresh: Option<&str>) -> Option<KnownKey> {
        Some(KnownKey {
            name: id(name),
            role: Role::Box,
            is_revoked,
            fresh: fresh.map(str::to_owned),
        })
    }

    #[test]
    fn each_case_has_its_answer() {
        use Decision::{EnrolByApproval, EnrolByToken, Refuse, Renew, Repeat, Wait};
        let good = token(Some("box-1"), Role::Box, 11, false);
        let none = KnownToken::None;
        let table = [
            // key, is the name taken, token, approved, decision
            (None, false, none.clone(), false, Wait),
            (None, false, none.clone(), true, EnrolByApproval),
            (None, true, none.clone(), true, Refuse(Refusal::NameTaken)),
            (None, false, good.clone(), false, EnrolByToken),
            (None, true, good.clone(), false, Refuse(Refusal::NameTaken)),
            (
                None,
                false,
                token(None, Role::Box, 11, false),
                false,
                EnrolByToken,
            ),
            (
                None,
                false,
                token(None, Role::Box, 10, false),
                false,
                Refuse(Refusal::ExpiredToken),
            ),
            (
                None,
                false,
                token(None, Role::Box, 11, true),
                false,
                Refuse(Refusal::UsedToken),
            ),
            (
                None,
                false,
                token(Some("box-2"), Role::Box, 11, false),
                false,
                Refuse(Refusal::OtherToken),
            ),
            (
                None,
                false,
                token(None, Role::Sensor, 11, false),
                false,
                Refuse(Refusal::OtherToken),
            ),
            // An approval does not save a wrong token: somebody tries something.
            (
                None,
                false,
                KnownToken::Unknown,
                true,
                Refuse(Refusal::UnknownToken),
            ),
            (key("box-1", false, None), false, none.clone(), false, Renew),
            (
                key("box-1", false, Some("x")),
                false,
                none.clone(),
                false,
                Repeat("x".into()),
            ),
            // The retry of one whose answer was lost brings its burnt token along.
            (
                key("box-1", false, Some("x")),
                false,
                token(None, Role::Box, 11, true),
                false,
                Repeat("x".into()),
            ),
            (
                key("box-2", false, Some("x")),
                false,
                good.clone(),
                false,
                Refuse(Refusal::KeyTaken),
            ),
            (
                key("box-1", true, Some("x")),
                false,
                good,
                true,
                Refuse(Refusal::Revoked),
            ),
        ];
        let wanted = Subject {
            region: id("lab"),
            role: Role::Box,
            name: id("box-1"),
        };
        for (row, (key, is_name_taken, token, is_approved, decision)) in
            table.into_iter().enumerate()
        {
            let known = Known {
                wanted: &wanted,
                region: &id("lab"),
                key,
                is_name_taken,
                token,
                is_approved,
                now_s: 10,
            };
            assert_eq!(decide(&known), decision, "row {row}");
        }
    }

    #[test]
    fn nobody_enrols_as_a_server_an_admin_or_elsewhere() {
        for role in Role::ALL {
            let wanted = Subject {
                region: id("lab"),
                role,
                name: id("x"),
            };
            let known = Known {
                wanted: &wanted,
                region: &id("lab"),
                key: None,
                is_name_taken: false,
                token: token(None, role, 11, false),
                is_approved: true,
                now_s: 10,
            };
            let expected = match role {
                Role::Admin | Role::Indexer | Role::Broker => Decision::Refuse(Refusal::Role),
                _ => Decision::EnrolByToken,
            };
            assert_eq!(decide(&known), expected, "{role}");
            let elsewhere = Known {
                region: &id("home"),
                ..known
            };
            assert_eq!(decide(&elsewhere), Decision::Refuse(Refusal::Region));
        }
    }
}
