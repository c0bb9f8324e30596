//! Who gets a certificate, and what is left of it over restarts.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use std::thread;

use edge_identity::{
    certificate::Identity,
    decision::Refusal,
    limits::Limits,
    pem,
    registry::{Outcome, RegistryError},
    subject::Role,
};
use support::{DAY_S, Holder, NOW_S, at, authority, id, lasting, registry, subject};

fn granted(outcome: Outcome) -> Identity {
    let Outcome::Granted(text) = outcome else {
        panic!("not granted: {outcome:?}");
    };
    let certificates = pem::certificates(text.as_bytes()).unwrap();
    Identity::read(&certificates[0]).unwrap()
}

/// Bound to one model and 60 publishes a minute.
fn bound() -> Limits {
    Limits {
        models: vec![id("digits")],
        per_minute: std::num::NonZeroU32::new(60),
    }
}

#[test]
fn limits_come_with_the_token_or_the_approval_and_can_be_changed() {
    let folder = tempfile::tempdir().unwrap();
    let mut registry = registry(folder.path());
    let authority = authority("lab");
    let expires_s = NOW_S + 60;
    let token = registry
        .new_token(None, Role::Sensor, &bound(), expires_s, NOW_S)
        .unwrap();
    let by_token = Holder::new().request(&subject(Role::Sensor, "cam-1"));
    let token = Some(token.reveal());
    let outcome = registry.enrol(&authority, &by_token, token, lasting(7));
    granted(outcome.unwrap());
    let by_approval = Holder::new().request(&subject(Role::Sensor, "cam-2"));
    let outcome = registry.enrol(&authority, &by_approval, None, lasting(7));
    assert_eq!(outcome.unwrap(), Outcome::Waits);
    registry
        .approve(&id("cam-2"), by_approval.key, &bound())
        .unwrap();
    let outcome = registry.enrol(&authority, &by_approval, None, lasting(7));
    granted(outcome.unwrap());
    let rights = registry.rights().unwrap();
    for key in [by_token.key, by_approval.key] {
        assert_eq!(rights.limits[&key], bound());
    }
    let fewer = Limits {
        per_minute: None,
        ..bound()
    };
    registry.limit(&id("cam-1"), &fewer).unwrap();
    assert_eq!(registry.rights().unwrap().limits[&by_token.key], fewer);
    registry.limit(&id("cam-1"), &Limits::default()).unwrap();
    registry.revoke(&id("cam-2"), NOW_S).unwrap();
    let rights = registry.rights().unwrap();
    assert!(rights.limits.is_empty() && rights.revoked.contains(&by_approval.key));
    let error = registry.limit(&id("cam-2"), &bound()).unwrap_err();
    assert!(matches!(error, RegistryError::NobodyKnown(_)), "{error}");
}

#[test]
fn a_token_buys_one_certificate_for_one_key() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), authority("lab"));
    let mut registry = registry(folder.path());
    let box_1 = subject(Role::Box, "box-1");
    let token = registry
        .new_token(
            Some(&id("box-1")),
            Role::Box,
            &Limits::default(),
            NOW_S + 60,
            NOW_S,
        )
        .unwrap();
    let (holder, thief) = (Holder::new(), Holder::new());
    let request = holder.request(&box_1);
    let taken = thief.request(&box_1);
    let mut enrol = |request, token, now_s| {
        registry
            .enrol(&authority, request, token, at(now_s))
            .unwrap()
    };

    let wrong_name = holder.request(&subject(Role::Box, "box-2"));
    let token = Some(token.reveal());
    assert_eq!(
        enrol(&wrong_name, token, NOW_S),
        Outcome::Refused(Refusal::OtherToken)
    );
    let first = enrol(&request, token, NOW_S);
    let identity = granted(first.clone());
    assert_eq!(
        (identity.subject, identity.key),
        (box_1.clone(), request.key)
    );
    assert_eq!(identity.not_after_s, NOW_S + 7 * DAY_S);

    // A lost answer is had again, with the token and without.
    assert_eq!(enrol(&request, token, NOW_S + 5), first);
    assert_eq!(enrol(&request, None, NOW_S + 5), first);
    // Nobody else has anything of it.
    let other = thief.request(&subject(Role::Box, "box-2"));
    assert_eq!(
        enrol(&other, token, NOW_S),
        Outcome::Refused(Refusal::UsedToken)
    );
    assert_eq!(
        enrol(&taken, token, NOW_S),
        Outcome::Refused(Refusal::NameTaken)
    );
    assert_eq!(
        enrol(&wrong_name, None, NOW_S),
        Outcome::Refused(Refusal::KeyTaken)
    );

    // From the half of its life on it is renewed, and also when it has long ended.
    let renewed = enrol(&request, None, NOW_S + 5 * DAY_S);
    assert_ne!(renewed, first);
    assert_eq!(granted(renewed).key, request.key);
    let late = granted(enrol(&request, None, NOW_S + 100 * DAY_S));
    assert_eq!(late.not_after_s, NOW_S + 107 * DAY_S);
}

#[test]
fn a_token_ends() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), authority("lab"));
    let mut registry = registry(folder.path());
    let token = registry
        .new_token(None, Role::Box, &Limits::default(), NOW_S + 60, NOW_S)
        .unwrap();
    let request = Holder::new().request(&subject(Role::Box, "box-1"));
    let late = registry
        .enrol(&authority, &request, Some(token.reveal()), at(NOW_S + 60))
        .unwrap();
    assert_eq!(late, Outcome::Refused(Refusal::ExpiredToken));
}

#[test]
fn a_key_without_a_token_waits_for_its_approval() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), authority("lab"));
    let mut registry = registry(folder.path());
    let holder = Holder::new();
    let request = holder.request(&subject(Role::Box, "box-1"));
    let ask = |registry: &mut edge_identity::registry::Registry, request| {
        registry
            .enrol(&authority, request, None, at(NOW_S))
            .unwrap()
    };
    assert_eq!(ask(&mut registry, &request), Outcome::Waits);
    assert_eq!(ask(&mut registry, &request), Outcome::Waits);
    let waiting = registry.waiting(NOW_S).unwrap();
    assert_eq!(waiting.len(), 1);
    assert_eq!(
        (&waiting[0].name, waiting[0].key),
        (&id("box-1"), request.key)
    );

    let unknown = registry
        .approve(&id("box-2"), request.key, &Limits::default())
        .unwrap_err();
    assert!(
        matches!(unknown, RegistryError::NobodyWaits(_)),
        "{unknown}"
    );
    registry
        .approve(&id("box-1"), request.key, &Limits::default())
        .unwrap();
    // What was approved is the key under this name, and no other.
    let other_name = holder.request(&subject(Role::Box, "box-2"));
    assert_eq!(ask(&mut registry, &other_name), Outcome::Waits);
    assert_eq!(ask(&mut registry, &request), Outcome::Waits);
    registry
        .approve(&id("box-1"), request.key, &Limits::default())
        .unwrap();
    assert_eq!(granted(ask(&mut registry, &request)).key, request.key);
    assert!(registry.waiting(NOW_S).unwrap().is_empty());
}

#[test]
fn strangers_cannot_fill_the_disk() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), authority("lab"));
    let mut registry = registry(folder.path());
    let one = Holder::new().request(&subject(Role::Box, "box-1"));
    for number in 0..1_000_u32 {
        let mut request = one.clone();
        request.key.0[..4].copy_from_slice(&number.to_be_bytes());
        let waits = registry
            .enrol(&authority, &request, None, at(NOW_S))
            .unwrap();
        assert_eq!(waits, Outcome::Waits);
    }
    let error = registry
        .enrol(&authority, &one, None, at(NOW_S))
        .unwrap_err();
    assert!(matches!(error, RegistryError::TooManyWaiting), "{error}");
    // Who has not asked for a day makes room.
    let later = registry.enrol(&authority, &one, None, at(NOW_S + DAY_S));
    assert_eq!(later.unwrap(), Outcome::Waits);
    assert_eq!(registry.waiting(NOW_S + DAY_S).unwrap().len(), 1);
}

#[test]
fn a_revoked_key_is_refused_for_ever_and_its_name_is_free() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), authority("lab"));
    let mut registry = registry(folder.path());
    let box_1 = subject(Role::Box, "box-1");
    let stolen = Holder::new();
    let issued = registry
        .issue(&authority, &box_1, &stolen.public, lasting(7), &[])
        .unwrap();
    let error = registry.revoke(&id("box-2"), NOW_S).unwrap_err();
    assert!(matches!(error, RegistryError::NobodyKnown(_)), "{error}");
    assert_eq!(
        registry.revoke(&id("box-1"), NOW_S).unwrap(),
        issued.identity.key
    );
    assert!(
        registry
            .rights()
            .unwrap()
            .revoked
            .contains(&issued.identity.key)
    );
    assert_eq!(
        registry.revoked_serials(NOW_S).unwrap(),
        [issued.identity.serial]
    );
    assert!(
        registry
            .revoked_serials(NOW_S + 8 * DAY_S)
            .unwrap()
            .is_empty()
    );

    let token = registry
        .new_token(None, Role::Box, &Limits::default(), NOW_S + 60, NOW_S)
        .unwrap();
    let mut enrol = |holder: &Holder| {
        let request = holder.request(&box_1);
        registry
            .enrol(&authority, &request, Some(token.reveal()), at(NOW_S))
            .unwrap()
    };
    assert_eq!(enrol(&stolen), Outcome::Refused(Refusal::Revoked));
    granted(enrol(&Holder::new()));
    let again = registry.issue(&authority, &box_1, &stolen.public, lasting(7), &[]);
    assert!(
        matches!(again, Err(RegistryError::NameTaken(_))),
        "{again:?}"
    );
}

/// The indexer and the command line use the same file.
#[test]
fn of_many_that_use_one_token_one_gets_it() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), authority("lab"));
    let mut first = registry(folder.path());
    let token = first
        .new_token(None, Role::Box, &Limits::default(), NOW_S + 60, NOW_S)
        .unwrap();
    let version = first.version().unwrap();
    let outcomes: Vec<Outcome> = thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|number| {
                let (folder, authority, token) = (folder.path(), &authority, &token);
                scope.spawn(move || {
                    let name = format!("box-{number}");
                    let request = Holder::new().request(&subject(Role::Box, &name));
                    registry(folder)
                        .enrol(authority, &request, Some(token.reveal()), at(NOW_S))
                        .unwrap()
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let lucky = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Outcome::Granted(_)));
    assert_eq!(lucky.count(), 1, "{outcomes:?}");
    assert_eq!(first.holders().unwrap().len(), 1);
    assert_ne!(
        first.version().unwrap(),
        version,
        "others' changes are seen"
    );
}
