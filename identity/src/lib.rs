//! Who is who in a region, and who may do what. Certificates name a role and an id; the access list says what a role
//! may do on the broker.
//!
//! - [`subject`]: names and roles; [`certificate`]: reading what a certificate says of its holder
//! - [`request`]: what a new key asks for; [`enrolment`]: how it is asked over HTTP
//! - [`tls`] and [`verify`]: connections on which both sides show certificates
//! - [`scope`]: what a token for the HTTP API lets a program read
//! - [`limits`]: what one holder may do less than its role
//! - [`access`]: the access list; [`broker_files`]: the same list as foreign brokers read it
//! - [`authority`], [`folder`], [`registry`] (feature `authority`): who issues certificates, and to whom
//!
//! - [`client`] (feature `client`): questions to the indexer over HTTPS
//!
//! Nothing here knows the time. Only [`folder`] and [`registry`] touch files, only [`client`] opens a connection.

pub mod access;
pub mod broker_files;
pub mod certificate;
#[cfg(feature = "client")]
pub mod client;
pub mod enrolment;
pub mod key;
pub mod limits;
pub mod pem;
pub mod request;
pub mod scope;
pub mod subject;
pub mod tls;
pub mod verify;

#[cfg(feature = "authority")]
pub mod authority;
#[cfg(feature = "authority")]
pub mod decision;
#[cfg(feature = "authority")]
pub mod folder;
#[cfg(feature = "authority")]
pub mod registry;
#[cfg(feature = "authority")]
pub mod token;
