//! The authority's folder, as `edgectl ca init` makes it and the indexer uses it: `root.crt`, `intermediate.crt`,
//! `intermediate.key` (mode 0600) and `registry.sqlite3`. The root's key lies elsewhere.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use edge_protocol::Id;
use rustls::pki_types::CertificateDer;
use zeroize::Zeroizing;

use crate::{
    authority::{Authority, AuthorityError, Lifetime, NewAuthority},
    pem::{self, PemError},
    registry::{Registry, RegistryError},
};

/// The region's root certificate.
pub const ROOT: &str = "root.crt";
/// The intermediate's certificate.
pub const INTERMEDIATE: &str = "intermediate.crt";
/// The intermediate's key.
pub const INTERMEDIATE_KEY: &str = "intermediate.key";
/// What somebody else's root shall sign.
pub const INTERMEDIATE_REQUEST: &str = "intermediate.csr";
/// The key of the indexer that uses the folder, made at its first start.
pub const INDEXER_KEY: &str = "indexer.key";
/// Whom the region knows.
pub const REGISTRY: &str = "registry.sqlite3";

/// Longest file that is read.
const MAX_BYTES: u64 = 64 << 10;

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// A file.
    #[error("cannot {operation} {}", path.display())]
    File {
        /// What was attempted.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A file that others can read.
    #[error("{} has mode {mode:o}, so others may have the key; if nobody else could log in, run chmod 600", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A file that is not what it should be.
    #[error("{} is not usable: {source}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: PemError,
    },
    /// The authority itself.
    #[error("the authority in {} is not usable", path.display())]
    Authority {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: AuthorityError,
    },
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// Opens the authority and its registry.
///
/// # Errors
/// [`FolderError`].
pub fn open(folder: &Path) -> Result<(Authority, Registry), FolderError> {
    let root = certificate(&folder.join(ROOT))?;
    let intermediate = certificate(&folder.join(INTERMEDIATE))?;
    let key = read_private(&folder.join(INTERMEDIATE_KEY))?;
    let authority =
        Authority::new(root, intermediate, &key).map_err(|source| FolderError::Authority {
            path: folder.to_owned(),
            source,
        })?;
    let registry = Registry::open(&folder.join(REGISTRY))?;
    Ok((authority, registry))
}

/// Makes a folder that only its user can look into, and those above it.
///
/// # Errors
/// [`FolderError::File`].
pub fn make(path: &Path) -> Result<(), FolderError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(failed("make the folder", path))
}

/// Makes a new intermediate of `root`, and the folder with it. The registry is made when the folder is opened.
///
/// # Errors
/// [`FolderError`]; an intermediate that is there is not replaced.
pub fn write_intermediate(
    root: &NewAuthority,
    region: &Id,
    lifetime: Lifetime,
    folder: &Path,
) -> Result<(), FolderError> {
    let made = root.intermediate(region, lifetime);
    let intermediate = made.map_err(|source| FolderError::Authority {
        path: folder.to_owned(),
        source,
    })?;
    make(folder)?;
    for (name, text, mode) in [
        (INTERMEDIATE_KEY, intermediate.key_pem().as_str(), 0o600),
        (INTERMEDIATE, &intermediate.certificate_pem, 0o644),
        (ROOT, &root.certificate_pem, 0o644),
    ] {
        write_new(&folder.join(name), text, mode)?;
    }
    Ok(())
}

/// Makes the key of an intermediate that somebody else's root shall sign, and the folder with it; gives the request.
///
/// # Errors
/// [`FolderError`]; a key that is there is not replaced.
pub fn request_intermediate(region: &Id, folder: &Path) -> Result<String, FolderError> {
    let (key, request) =
        NewAuthority::request(region).map_err(|source| FolderError::Authority {
            path: folder.to_owned(),
            source,
        })?;
    make(folder)?;
    write_new(&folder.join(INTERMEDIATE_KEY), &key, 0o600)?;
    write_new(&folder.join(INTERMEDIATE_REQUEST), &request, 0o644)?;
    Ok(request)
}

/// Puts the certificates that answer [`request_intermediate`] beside the key, and opens the authority.
///
/// # Errors
/// [`FolderError`] when they do not fit it or each other; then nothing was written.
pub fn adopt(folder: &Path, intermediate: &Path, root: &Path) -> Result<Authority, FolderError> {
    let key = read_private(&folder.join(INTERMEDIATE_KEY))?;
    let authority = Authority::new(certificate(root)?, certificate(intermediate)?, &key);
    let failed = |source| FolderError::Authority {
        path: folder.to_owned(),
        source,
    };
    let authority = authority.map_err(failed)?;
    for (name, pem) in [
        (ROOT, authority.root_pem()),
        (INTERMEDIATE, authority.intermediate_pem()),
    ] {
        write_new(&folder.join(name), &pem.map_err(failed)?, 0o644)?;
    }
    Ok(authority)
}

/// The first certificate of a file.
///
/// # Errors
/// [`FolderError`].
pub fn certificate(path: &Path) -> Result<CertificateDer<'static>, FolderError> {
    let text = read(path)?;
    let found = pem::certificates(text.as_bytes()).and_then(|certificates| {
        let first = certificates.into_iter().next();
        first.ok_or(PemError::Count(0))
    });
    found.map_err(|source| FolderError::Pem {
        path: path.to_owned(),
        source,
    })
}

/// A text file of bounded size.
///
/// # Errors
/// [`FolderError::File`].
pub fn read(path: &Path) -> Result<Zeroizing<String>, FolderError> {
    use io::Read as _;

    let mut text = Zeroizing::new(String::new());
    File::open(path)
        .and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text))
        .map_err(failed("read", path))?;
    Ok(text)
}

/// A file that only its user can read.
///
/// # Errors
/// [`FolderError`].
pub fn read_private(path: &Path) -> Result<Zeroizing<String>, FolderError> {
    let mode = fs::metadata(path).map_err(failed("look at", path))?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        let path = path.to_owned();
        return Err(FolderError::Exposed { path, mode });
    }
    read(path)
}

/// Writes a new file of this mode that is whole and on the disk when this returns; a crash leaves none or a whole one.
/// An existing one is never replaced.
///
/// # Errors
/// [`FolderError::File`].
pub fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), FolderError> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    let unfinished = path.with_file_name(name);
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("remove", &unfinished)(error));
        }
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&unfinished)
        .map_err(failed("create", &unfinished))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(failed("write", &unfinished))?;
    // A link, unlike a rename, refuses to replace.
    fs::hard_link(&unfinished, path).map_err(failed("create", path))?;
    fs::remove_file(&unfinished).map_err(failed("remove", &unfinished))?;
    let folder = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))
        .and_then(|folder| folder.sync_all())
        .map_err(failed("sync the folder of", path))
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    move |source| FolderError::File {
        operation,
        path: path.to_owned(),
        source,
    }
}
