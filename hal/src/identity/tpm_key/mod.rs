//! An ES256 key in a TPM 2.0. The TPM derives it from its owner's seed and a fixed template each time it is opened, so
//! there is nothing to keep, to lose in a power cut, or to steal with a disk. A TPM that is cleared derives another.

mod channel;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use sha2::{Digest as _, Sha256};
use tpm2_protocol::{
    basic::TpmHandle,
    data::{
        Tpm2bData, Tpm2bDigest, Tpm2bEccParameter, Tpm2bPublic, Tpm2bSensitiveCreate, TpmAlgId,
        TpmEccCurve, TpmRh, TpmSt, TpmaObject, TpmlPcrSelection, TpmsEccParms, TpmsEccPoint,
        TpmsSchemeHash, TpmsSignatureEcc, TpmtEccScheme, TpmtKdfScheme, TpmtPublic, TpmtSigScheme,
        TpmtSymDefObject, TpmtTkHashcheck, TpmuAsymScheme, TpmuPublicId, TpmuPublicParms,
        TpmuSignature,
    },
    frame::{
        TpmCreatePrimaryCommand, TpmCreatePrimaryResponse, TpmFlushContextCommand,
        TpmFlushContextResponse, TpmSignCommand, TpmSignResponse,
    },
};

use self::channel::{Channel, ChannelError};
use super::{IdentityError, IdentityKey, KeyAlgorithm, PublicKey, Signature};

/// Sets this key apart from others of the same owner's seed. Another value is another key for every box.
const LABEL: &[u8] = b"aethir-edge identity 1";
/// Bytes of a coordinate and of half a signature.
const HALF_BYTES: usize = 32;

/// The box's key in its TPM.
pub struct TpmKey {
    path: PathBuf,
    public: PublicKey,
    loaded: Mutex<Loaded>,
}

/// The key on an open channel; dropped there when this is.
struct Loaded {
    channel: Channel,
    handle: TpmHandle,
}

impl Drop for Loaded {
    fn drop(&mut self) {
        // The resource manager does it anyway; a TPM without one has room for three keys.
        let command = TpmFlushContextCommand {
            handles: [],
            flush_handle: self.handle,
        };
        let _gone: Result<TpmFlushContextResponse, _> = self.channel.ask(&command, false);
    }
}

impl TpmKey {
    /// The key that the TPM at `path` derives: a device of the kernel's resource manager, or a socket on which a TPM in
    /// software answers.
    ///
    /// # Errors
    /// [`IdentityError::Tpm`].
    pub fn open(path: &Path) -> Result<Self, IdentityError> {
        let (public, loaded) = load(path)?;
        Ok(Self {
            path: path.to_owned(),
            public,
            loaded: Mutex::new(loaded),
        })
    }
}

impl IdentityKey for TpmKey {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    /// It takes the TPM some hundredths of a second, up to seconds when it is busy with others.
    fn sign(&self, message: &[u8]) -> Result<Signature, IdentityError> {
        let digest = Sha256::digest(message);
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(signature) = sign(&mut loaded, &digest) {
            return Ok(signature);
        }
        // A TPM that was reset, or a socket that was closed, has forgotten the key: once more from the start.
        let (public, again) = load(&self.path)?;
        if public != self.public {
            return Err(IdentityError::OtherTpm {
                path: self.path.clone(),
            });
        }
        *loaded = again;
        sign(&mut loaded, &digest).map_err(failed("sign", &self.path))
    }
}

impl fmt::Debug for TpmKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TpmKey")
            .field("path", &self.path)
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(ChannelError) -> IdentityError {
    let path = path.to_owned();
    move |why| IdentityError::Tpm {
        path,
        operation,
        why: why.to_string(),
    }
}

/// Has the TPM derive the key (TPM 2.0 Library, part 3, section 24.1).
fn load(path: &Path) -> Result<(PublicKey, Loaded), IdentityError> {
    let mut channel =
        Channel::open(path).map_err(|error| failed("be opened", path)(error.into()))?;
    let derive = |channel: &mut Channel| {
        let command = TpmCreatePrimaryCommand {
            handles: [TpmHandle::new(TpmRh::Owner.value())],
            in_sensitive: Tpm2bSensitiveCreate::default(),
            in_public: Tpm2bPublic { inner: template()? },
            outside_info: Tpm2bData::default(),
            creation_pcr: TpmlPcrSelection::default(),
        };
        let made: TpmCreatePrimaryResponse = channel.ask(&command, true)?;
        let TpmuPublicId::Ecc(point) = &made.out_public.inner.unique else {
            return Err(ChannelError::Form("its key is on no curve".to_owned()));
        };
        let mut sec1 = vec![4];
        for half in [&point.x, &point.y] {
            sec1.extend(padded(half)?);
        }
        let public = PublicKey::new(KeyAlgorithm::Es256, &sec1)
            .map_err(|error| ChannelError::Form(error.to_string()))?;
        let [handle] = made.handles;
        Ok((public, handle))
    };
    let (public, handle) = derive(&mut channel).map_err(failed("make the box's key", path))?;
    Ok((public, Loaded { channel, handle }))
}

/// What the key is: ECDSA on P-256 with SHA-256, made in this TPM and never to leave it.
fn template() -> Result<TpmtPublic, ChannelError> {
    let form = |error: tpm2_protocol::TpmError| ChannelError::Form(error.to_string());
    let sha256 = TpmsSchemeHash {
        hash_alg: TpmAlgId::Sha256,
    };
    Ok(TpmtPublic {
        object_type: TpmAlgId::Ecc,
        name_alg: TpmAlgId::Sha256,
        // No lock-out after wrong passwords: it has none.
        object_attributes: TpmaObject::FIXED_TPM
            | TpmaObject::FIXED_PARENT
            | TpmaObject::SENSITIVE_DATA_ORIGIN
            | TpmaObject::USER_WITH_AUTH
            | TpmaObject::NO_DA
            | TpmaObject::SIGN_ENCRYPT,
        auth_policy: Tpm2bDigest::default(),
        parameters: TpmuPublicParms::Ecc(TpmsEccParms {
            symmetric: TpmtSymDefObject::default(),
            scheme: TpmtEccScheme {
                scheme: TpmAlgId::Ecdsa,
                details: TpmuAsymScheme::Hash(sha256),
            },
            curve_id: TpmEccCurve::NistP256,
            kdf: TpmtKdfScheme::default(),
        }),
        unique: TpmuPublicId::Ecc(TpmsEccPoint {
            x: Tpm2bEccParameter::try_from(LABEL).map_err(form)?,
            y: Tpm2bEccParameter::default(),
        }),
    })
}

fn sign(loaded: &mut Loaded, digest: &[u8]) -> Result<Signature, ChannelError> {
    let form = |error: tpm2_protocol::TpmError| ChannelError::Form(error.to_string());
    let command = TpmSignCommand {
        handles: [loaded.handle],
        digest: Tpm2bDigest::try_from(digest).map_err(form)?,
        // As the key's own template says.
        in_scheme: TpmtSigScheme::default(),
        // The key signs what others hashed.
        validation: TpmtTkHashcheck {
            tag: TpmSt::HashCheck,
            hierarchy: TpmRh::Null,
            digest: Tpm2bDigest::default(),
        },
    };
    let signed: TpmSignResponse = loaded.channel.ask(&command, true)?;
    let TpmuSignature::Ecdsa(TpmsSignatureEcc {
        signature_r,
        signature_s,
        ..
    }) = &signed.signature.signature
    else {
        return Err(ChannelError::Form("its signature is no ECDSA".to_owned()));
    };
    let halves = [padded(signature_r)?, padded(signature_s)?].concat();
    let whole = halves.try_into();
    whole
        .map(Signature)
        .map_err(|_| ChannelError::Form("its signature has the wrong length".to_owned()))
}

/// A number in 32 bytes: a TPM may leave leading zeros out.
fn padded(number: &[u8]) -> Result<[u8; HALF_BYTES], ChannelError> {
    let mut bytes = [0; HALF_BYTES];
    let start = HALF_BYTES.checked_sub(number.len());
    let end = start.and_then(|start| bytes.get_mut(start..));
    match end {
        Some(end) => {
            end.copy_from_slice(number);
            Ok(bytes)
        }
        None => Err(ChannelError::Form("a number of it is too long".to_owned())),
    }
}
