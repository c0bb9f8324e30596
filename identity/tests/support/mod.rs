//! A region's authority for tests.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test file is a crate and uses its part; a test fails by panicking"
)]

use std::path::Path;

use edge_identity::{
    authority::{Authority, Lifetime, NewAuthority, new_key, request},
    folder,
    registry::Registry,
    request::Request,
    subject::{Role, Subject},
};
use edge_protocol::Id;

pub const DAY_S: u64 = 24 * 3_600;
/// A day on which everything happens.
pub const NOW_S: u64 = 1_800_000_000;

pub fn id(name: &str) -> Id {
    Id::new(name).unwrap()
}

pub fn lasting(days: u64) -> Lifetime {
    Lifetime {
        now_s: NOW_S,
        for_s: days * DAY_S,
    }
}

pub fn at(now_s: u64) -> Lifetime {
    Lifetime {
        now_s,
        for_s: 7 * DAY_S,
    }
}

pub fn subject(role: Role, name: &str) -> Subject {
    Subject {
        region: id("lab"),
        role,
        name: id(name),
    }
}

/// An authority of a region.
pub fn authority(region: &str) -> Authority {
    let region = id(region);
    let root = NewAuthority::root(&region, lasting(7_300)).unwrap();
    let intermediate = root.intermediate(&region, lasting(1_825)).unwrap();
    let key = intermediate.key_pem();
    Authority::new(root.certificate, intermediate.certificate, &key).unwrap()
}

/// A holder of a key.
pub struct Holder {
    pub key_pem: zeroize::Zeroizing<String>,
    pub public: Vec<u8>,
}

impl Holder {
    pub fn new() -> Self {
        let (key_pem, public) = new_key().unwrap();
        Self { key_pem, public }
    }

    pub fn request(&self, subject: &Subject) -> Request {
        let pem = request(subject, &self.key_pem).unwrap();
        Request::read(&pem).unwrap()
    }
}

pub fn registry(folder: &Path) -> Registry {
    Registry::open(&folder.join(folder::REGISTRY)).unwrap()
}
