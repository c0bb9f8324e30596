//! The box's certificate on disk: one file with the certificate, its intermediate and the region's root, replaced as a
//! whole, so that a power cut leaves the old one or the new one.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use edge_hal::slots::state_file::{ReplacedFile, StateFile as _};
use edge_identity::{
    certificate::{CertificateError, Identity},
    enrolment,
    key::{CertificateFingerprint, KeyFingerprint},
    pem::{self, PemError},
    subject::Subject,
};
use rustls::pki_types::CertificateDer;

/// A certificate that belongs to this box and its region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    /// What it says.
    pub(crate) identity: Identity,
    /// The certificate and its intermediate.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// The region's root.
    pub(crate) root: CertificateDer<'static>,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeptError {
    #[error("this box has no certificate yet")]
    Absent,
    #[error("cannot {operation} {}", path.display())]
    File {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the certificate is not usable: {0}")]
    Pem(#[from] PemError),
    #[error("the certificate is not usable: {0}")]
    Certificate(#[from] CertificateError),
    #[error("the certificate is of {found}, and this box is {wanted}")]
    Other {
        found: Box<Subject>,
        wanted: Box<Subject>,
    },
    #[error("the certificate is of another key than this box's")]
    Key,
    #[error("the certificate is of a region with another root than {0}")]
    Root(CertificateFingerprint),
}

/// What a certificate must say to be this box's.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) subject: Subject,
    pub(crate) key: KeyFingerprint,
    pub(crate) root: CertificateFingerprint,
}

/// Where it lies in the data folder.
pub(crate) fn file(data: &Path) -> PathBuf {
    data.join("identity.crt")
}

/// The certificate in the data folder.
///
/// # Errors
/// [`KeptError`].
pub(crate) fn load(data: &Path, wanted: &Wanted) -> Result<Kept, KeptError> {
    read(&text(data)?, wanted)
}

/// What the certificate in the data folder says, whosever it is.
///
/// # Errors
/// [`KeptError`].
pub(crate) fn peek(data: &Path) -> Result<Identity, KeptError> {
    let chain = pem::certificates(&text(data)?)?;
    let leaf = chain.first().ok_or(PemError::Count(0))?;
    Ok(Identity::read(leaf)?)
}

fn text(data: &Path) -> Result<Vec<u8>, KeptError> {
    let path = file(data);
    let mut text = Vec::new();
    let limit = u64::try_from(2 * enrolment::MAX_BYTES).unwrap_or(u64::MAX);
    match File::open(&path).and_then(|file| file.take(limit).read_to_end(&mut text)) {
        Ok(_) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(KeptError::Absent),
        Err(source) => Err(KeptError::File {
            operation: "read",
            path,
            source,
        }),
    }
}

/// The certificate, its intermediate and the root in a text.
///
/// # Errors
/// [`KeptError`] when they are not this box's.
pub(crate) fn read(text: &[u8], wanted: &Wanted) -> Result<Kept, KeptError> {
    let mut chain = pem::certificates(text)?;
    let root = chain.pop().ok_or(PemError::Count(0))?;
    let leaf = chain.first().ok_or(PemError::Count(1))?;
    let identity = Identity::read(leaf)?;
    if identity.subject != wanted.subject {
        return Err(KeptError::Other {
            found: Box::new(identity.subject),
            wanted: Box::new(wanted.subject.clone()),
        });
    }
    if identity.key != wanted.key {
        return Err(KeptError::Key);
    }
    if CertificateFingerprint::of(&root) != wanted.root {
        return Err(KeptError::Root(wanted.root));
    }
    Ok(Kept {
        identity,
        chain,
        root,
    })
}

/// Keeps a text that [`read`] took. It is on the disk when this returns.
///
/// # Errors
/// [`KeptError::File`]; then the old one is still there.
pub(crate) fn store(data: &Path, text: &str) -> Result<(), KeptError> {
    let mut kept = ReplacedFile(file(data));
    kept.write(text.as_bytes())
        .map_err(|source| KeptError::File {
            operation: "write",
            path: file(data),
            source,
        })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use edge_identity::{
        authority::{Authority, Lifetime, NewAuthority, new_key},
        subject::Role,
    };
    use edge_protocol::Id;

    use super::*;

    /// A certificate of a new region with its intermediate and root, and what it must say.
    fn granted() -> (String, Wanted) {
        let lifetime = Lifetime {
            now_s: 1_800_000_000,
            for_s: 1_000,
        };
        let region = Id::new("lab").unwrap();
        let root = NewAuthority::root(&region, lifetime).unwrap();
        let intermediate = root.intermediate(&region, lifetime).unwrap();
        let key = intermediate.key_pem();
        let authority = Authority::new(root.certificate, intermediate.certificate, &key).unwrap();
        let subject = Subject {
            region,
            role: Role::Box,
            name: Id::new("box-1").unwrap(),
        };
        let (_, public) = new_key().unwrap();
        let issued = authority.issue(&subject, &public, lifetime, &[]).unwrap();
        let text =
            issued.pem + &authority.intermediate_pem().unwrap() + &authority.root_pem().unwrap();
        let wanted = Wanted {
            subject,
            key: issued.identity.key,
            root: CertificateFingerprint::of(authority.root()),
        };
        (text, wanted)
    }

    #[test]
    fn what_is_stored_is_loaded_and_replaced_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let (text, wanted) = granted();
        let absent = load(folder.path(), &wanted).unwrap_err();
        assert!(matches!(absent, KeptError::Absent), "{absent}");
        store(folder.path(), &text).unwrap();
        let kept = load(folder.path(), &wanted).unwrap();
        assert_eq!(kept.chain.len(), 2);
        assert_eq!(peek(folder.path()).unwrap(), kept.identity);
        // A power cut while the next one is written: the old one is still there.
        fs::write(folder.path().join("identity.crt.new"), "-----BEGIN").unwrap();
        assert_eq!(load(folder.path(), &wanted).unwrap(), kept);
        store(folder.path(), &text).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_not_this_boxs_or_not_whole_is_refused() {
        let (text, wanted) = granted();
        let (_, other) = granted();
        let error = read(text.as_bytes(), &other).unwrap_err();
        assert!(matches!(error, KeptError::Key), "{error}");
        let other_root = Wanted {
            key: wanted.key,
            ..other
        };
        let error = read(text.as_bytes(), &other_root).unwrap_err();
        assert!(matches!(error, KeptError::Root(_)), "{error}");
        let mut renamed = wanted.clone();
        renamed.subject.name = Id::new("box-2").unwrap();
        let error = read(text.as_bytes(), &renamed).unwrap_err();
        assert!(matches!(error, KeptError::Other { .. }), "{error}");
        for end in 0..text.trim_end().len() {
            assert!(
                read(&text.as_bytes()[..end], &wanted).is_err(),
                "torn at {end}"
            );
        }
    }
}
