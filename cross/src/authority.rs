//! A region's certificate authority, made by `edgectl ca` as an admin would, for a region that lives some minutes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::region::NAME;
use crate::shell::{self, CommandError};

/// Nobody uses the root of a region that is thrown away.
const PASSPHRASE: &str = "thrown away with the region";

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// `edgectl ca`.
    #[error("the region's certificate authority does not work")]
    Edgectl(#[from] CommandError),
    /// A file.
    #[error("could not write {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// A region's authority.
#[derive(Debug)]
pub struct Authority {
    edgectl: PathBuf,
    folder: PathBuf,
    /// What boxes know their region by.
    pub fingerprint: String,
}

impl Authority {
    /// Makes one in `folder`, which is there.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn make(edgectl: &Path, folder: &Path) -> Result<Self, AuthorityError> {
        let passphrase = folder.join("passphrase");
        write(&passphrase, PASSPHRASE)?;
        let out = folder.join("ca");
        let mut command = Command::new(edgectl);
        command
            .args(["ca", "init", "--region", NAME, "--out"])
            .arg(&out);
        command.arg("--passphrase-file").arg(&passphrase);
        shell::output(&mut command)?;
        let mut authority = Self {
            edgectl: edgectl.to_path_buf(),
            folder: out.join("online"),
            fingerprint: String::new(),
        };
        let fingerprint = authority.ask("fingerprint", &[])?;
        fingerprint.trim().clone_into(&mut authority.fingerprint);
        Ok(authority)
    }

    /// The part that the indexer uses.
    #[must_use]
    pub fn online(&self) -> &Path {
        &self.folder
    }

    /// Writes a token for this box into a file.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn token(&self, box_id: &str, file: &Path) -> Result<(), AuthorityError> {
        write(file, &self.ask("token", &["--name", box_id])?)
    }

    /// Whom it knows, as `edgectl ca list` prints it.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn holders(&self) -> Result<String, AuthorityError> {
        self.ask("list", &[])
    }

    /// Issues a certificate into a folder that is made.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn issue(&self, role: &str, name: &str, out: &Path) -> Result<(), AuthorityError> {
        let out = out.display().to_string();
        self.ask("issue", &["--role", role, "--name", name, "--out", &out])?;
        Ok(())
    }

    /// Takes all rights from whom it knows as `name`: the name is free for another key.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn revoke(&self, name: &str) -> Result<(), AuthorityError> {
        self.ask("revoke", &[name])?;
        Ok(())
    }

    fn ask(&self, what: &str, arguments: &[&str]) -> Result<String, AuthorityError> {
        let mut command = Command::new(&self.edgectl);
        command.args(["ca", what, "--ca"]).arg(&self.folder);
        Ok(shell::output(command.args(arguments))?)
    }
}

fn write(path: &Path, text: &str) -> Result<(), AuthorityError> {
    fs::write(path, text).map_err(|source| AuthorityError::File {
        path: path.to_path_buf(),
        source,
    })
}
