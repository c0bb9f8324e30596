//! Who this box is to its region: its key, made at the first start, and its certificate, which it gets by enrolling
//! and renews while it runs.
//!
//! - [`key`]: the key as certificates and TLS use it; [`kept`]: the certificate on disk
//! - [`enrol`]: asks the indexer until there is a certificate, and again before it ends

mod enrol;
mod kept;
mod key;

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use edge_hal::identity::{IdentityError, IdentityKey, KeyPlace};
use edge_identity::{
    key::{KeyError, UsableKey},
    subject::{Role, Subject},
    tls::{self, Credentials},
    verify::Trust,
};
use rustls::ClientConfig;
use tracing::{error, info};

use crate::settings::Options;

pub(crate) use self::enrol::Enrolment;

/// Why the key cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OwnKeyError {
    #[error(transparent)]
    Place(#[from] IdentityError),
    #[error(transparent)]
    Kind(#[from] KeyError),
}

/// The box's key; a new one when there is none.
pub(crate) fn own_key(place: &KeyPlace) -> Result<UsableKey, OwnKeyError> {
    usable(place.open_or_create()?)
}

fn usable(key: Box<dyn IdentityKey>) -> Result<UsableKey, OwnKeyError> {
    Ok(UsableKey::new(Arc::new(key::BoxKey(key.into())))?)
}

/// Makes the key if there is none, and says in the log which it is. A box whose key cannot be used serves all the
/// same where no certificate is needed.
pub(crate) fn ensure(place: &KeyPlace) {
    match own_key(place) {
        Ok(key) => info!(fingerprint = %key.fingerprint(), "this box's identity"),
        Err(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            error!(%error, cause, "this box has no identity; run edge-agent doctor");
        }
    }
}

/// What a connection of this box shows, for who looks from outside of the agent: doctor makes neither key nor
/// certificate.
pub(crate) fn shown(options: &Options) -> Result<Arc<ClientConfig>, String> {
    let (kept, key) = kept(options)?;
    let credentials = Arc::new(Credentials::default());
    credentials.set(kept.chain, Arc::new(key));
    let region = kept.identity.subject.region;
    tls::client(Trust::Root(kept.root), region, Some(credentials))
        .map(Arc::new)
        .map_err(|error| error.to_string())
}

/// Days until the certificate ends; below zero when it has.
pub(crate) fn days_left(options: &Options) -> Result<i64, String> {
    // Reading it takes no key: doctor may be another user than the agent.
    let identity = kept::peek(&options.data_dir()).map_err(|error| error.to_string())?;
    let now_s = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs());
    Ok(identity
        .not_after_s
        .cast_signed()
        .saturating_sub(now_s.cast_signed())
        .div_euclid(24 * 3_600))
}

fn kept(options: &Options) -> Result<(kept::Kept, UsableKey), String> {
    let (Some(region), Some(box_id)) = (options.region.clone(), options.box_id.clone()) else {
        return Err("without region and box-id it is not known whose it is".to_owned());
    };
    let root = options
        .region_ca_sha256
        .ok_or_else(|| "no region_ca_sha256 is set".to_owned())?;
    let data = options.data_dir();
    let key = options.key_place().open().map_err(OwnKeyError::from);
    let key = key.and_then(usable).map_err(|error| error.to_string())?;
    let wanted = kept::Wanted {
        subject: Subject {
            region,
            role: Role::Box,
            name: box_id,
        },
        key: key.fingerprint(),
        root,
    };
    let kept = kept::load(&data, &wanted).map_err(|error| error.to_string())?;
    Ok((kept, key))
}
