//! Names and roles, as certificates carry them: O = region, OU = role, CN = id. The id is also the prefix of the
//! holder's MQTT client ids and the last level of its request topics.

use std::{fmt, str::FromStr};

use edge_protocol::Id;
use rcgen::{DistinguishedName, DnType};
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// What the holder of a certificate is in its region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Answers requests.
    Box,
    /// Sends inference requests.
    Sensor,
    /// Sends inference and rendering requests.
    App,
    /// Judges boxes.
    Checker,
    /// Operates boxes.
    Admin,
    /// Sees the region and speaks for it; a server too.
    Indexer,
    /// A broker beside the indexer: a server, and no client.
    Broker,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 7] = [
        Self::Box,
        Self::Sensor,
        Self::App,
        Self::Checker,
        Self::Admin,
        Self::Indexer,
        Self::Broker,
    ];

    /// As it stands in certificates.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Box => "box",
            Self::Sensor => "sensor",
            Self::App => "app",
            Self::Checker => "checker",
            Self::Admin => "admin",
            Self::Indexer => "indexer",
            Self::Broker => "broker",
        }
    }

    /// Whether others connect to it.
    #[must_use]
    pub fn is_server(self) -> bool {
        matches!(self, Self::Indexer | Self::Broker)
    }

    /// Whether a token or an approval can make one: servers and admins are made by hand.
    #[must_use]
    pub fn enrols(self) -> bool {
        matches!(self, Self::Box | Self::Sensor | Self::App | Self::Checker)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that is no role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a role is one of box, sensor, app, checker, admin, indexer, broker")]
pub struct UnknownRole;

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        Self::ALL
            .into_iter()
            .find(|role| role.name() == text)
            .ok_or(UnknownRole)
    }
}

/// Who a certificate is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Subject {
    /// Its region.
    pub region: Id,
    /// What it is there.
    pub role: Role,
    /// Its id, unique in the region.
    pub name: Id,
}

/// Why a distinguished name names nobody of a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// An attribute is missing, or there are several, or it is no text.
    #[error("the name must have exactly one {0}, as text")]
    Attribute(&'static str),
    /// An attribute is no valid name.
    #[error("its {0} is no valid name (a-z, 0-9 and '-')")]
    Name(&'static str),
    /// The role.
    #[error("its organizational unit is no role: {0}")]
    Role(#[from] UnknownRole),
}

impl Subject {
    pub(crate) fn read(name: &X509Name<'_>) -> Result<Self, SubjectError> {
        let region = one(name.iter_organization(), "organization")?;
        let role = one(name.iter_organizational_unit(), "organizational unit")?.parse()?;
        let common_name = one(name.iter_common_name(), "common name")?;
        Ok(Self {
            region: Id::new(region).map_err(|_| SubjectError::Name("organization"))?,
            role,
            name: Id::new(common_name).map_err(|_| SubjectError::Name("common name"))?,
        })
    }

    pub(crate) fn distinguished_name(&self) -> DistinguishedName {
        let mut name = DistinguishedName::new();
        name.push(DnType::OrganizationName, self.region.as_str());
        name.push(DnType::OrganizationalUnitName, self.role.name());
        name.push(DnType::CommonName, self.name.as_str());
        name
    }

    /// Whether an MQTT client of this id may be its own: the name, or the name, a '.' and more. A '.' cannot be in a
    /// name, so nobody's client ids begin with another's name.
    #[must_use]
    pub fn owns_client_id(&self, client_id: &str) -> bool {
        client_id
            .strip_prefix(self.name.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} of region {}", self.role, self.name, self.region)
    }
}

/// The one organization of a name: of an authority's own, its region.
pub(crate) fn organization<'a>(name: &'a X509Name<'_>) -> Option<&'a str> {
    one(name.iter_organization(), "organization").ok()
}

fn one<'a>(
    mut found: impl Iterator<Item = &'a AttributeTypeAndValue<'a>>,
    what: &'static str,
) -> Result<&'a str, SubjectError> {
    let wrong = SubjectError::Attribute(what);
    let first = found.next().ok_or(wrong)?;
    if found.next().is_some() {
        return Err(wrong);
    }
    first.as_str().map_err(|_| wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_ids_belong_to_one_name() {
        let subject = Subject {
            region: Id::new("lab").unwrap(),
            role: Role::Box,
            name: Id::new("box-1").unwrap(),
        };
        for (client_id, owned) in [
            ("box-1", true),
            ("box-1.own", true),
            ("box-1.", true),
            ("box-1-own", false),
            ("box-10", false),
            ("box-", false),
            ("", false),
            ("other", false),
        ] {
            assert_eq!(subject.owns_client_id(client_id), owned, "{client_id}");
        }
    }

    #[test]
    fn roles_are_read_as_they_are_written() {
        for role in Role::ALL {
            assert_eq!(role.name().parse(), Ok(role));
        }
        assert!("root".parse::<Role>().is_err());
    }
}
