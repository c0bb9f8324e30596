//! The box's key, made at the agent's first start.

use std::path::{Path, PathBuf};

use edge_hal::identity::{FileKey, IdentityKey};
use tracing::{error, info};

/// Where the key lies in the data folder.
pub(crate) fn file(data: &Path) -> PathBuf {
    data.join("identity.key")
}

/// Makes the key if there is none, and says in the log which it is. A box whose key cannot be used serves all the
/// same: only what needs the key fails.
pub(crate) fn ensure(data: &Path) {
    match FileKey::open_or_create(&file(data)) {
        Ok(key) => info!(fingerprint = %key.fingerprint(), "this box's identity"),
        Err(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            error!(%error, cause, "this box has no identity; run edge-agent doctor");
        }
    }
}
