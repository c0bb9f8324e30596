//! Where set-up keeps what it fetched and built. Knows paths and stamps, not how to fill them.
//!
//! A stamp is a small file that holds the pinned version or hash of a finished step, so that the
//! next set-up neither repeats the step nor touches the network.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// The cache folder could not be used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// Neither of the variables that lead to a cache folder is set.
    #[error("no cache folder: set EDGE_CACHE_DIR, XDG_CACHE_HOME or HOME")]
    NoFolder,
    /// A file or folder below the cache could not be changed.
    #[error("could not {operation} {}", path.display())]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// A processor that a box or a developer's machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    /// Developers' machines and CI.
    X86_64,
    /// Boxes.
    Aarch64,
}

impl Arch {
    /// Both, in a fixed order.
    pub const ALL: [Self; 2] = [Self::X86_64, Self::Aarch64];

    /// This machine's, if ONNX Runtime is published for it.
    #[must_use]
    pub fn host() -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|arch| arch.name() == env::consts::ARCH)
    }

    /// As Rust and wheels spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }
}

/// The cache folder of this user.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// `EDGE_CACHE_DIR`, else `$XDG_CACHE_HOME/aethir-edge`, else `~/.cache/aethir-edge`.
    ///
    /// # Errors
    /// When none of the three variables is set, or the folder cannot be created.
    pub fn from_env() -> Result<Self, CacheError> {
        let folder = |name: &str| {
            env::var_os(name)
                .filter(|v| !v.is_empty())
                .map(PathBuf::from)
        };
        let root = folder("EDGE_CACHE_DIR")
            .or_else(|| folder("XDG_CACHE_HOME").map(|cache| cache.join("aethir-edge")))
            .or_else(|| folder("HOME").map(|home| home.join(".cache/aethir-edge")))
            .ok_or(CacheError::NoFolder)?;
        Self::at(&std::path::absolute(&root).unwrap_or(root))
    }

    /// A cache in that folder, which is created if need be.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn at(root: &Path) -> Result<Self, CacheError> {
        let root = root.to_path_buf();
        fs::create_dir_all(&root).map_err(|source| CacheError::Io {
            operation: "create the cache folder",
            path: root.clone(),
            source,
        })?;
        Ok(Self { root })
    }

    /// The folder itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// ONNX Runtime's shared library for a processor.
    #[must_use]
    pub fn onnxruntime(&self, arch: Arch) -> PathBuf {
        let version = crate::setup::onnxruntime::VERSION;
        self.root
            .join("onnxruntime")
            .join(version)
            .join(arch.name())
            .join("libonnxruntime.so")
    }

    /// The Python environment with the pinned packages of `models/requirements.txt`.
    #[must_use]
    pub fn venv(&self) -> PathBuf {
        self.root.join("venv")
    }

    /// That environment's interpreter.
    #[must_use]
    pub fn python(&self) -> PathBuf {
        self.venv().join("bin/python")
    }

    /// Node.js and AsyncAPI's parser.
    #[must_use]
    pub fn asyncapi(&self) -> PathBuf {
        self.root.join("asyncapi")
    }

    /// A model repository of realistic cost: SqueezeNet and ResNet50.
    #[must_use]
    pub fn models(&self) -> PathBuf {
        self.root.join("models")
    }

    /// The source of Rust's library for a compiler version; empty where the target is installed.
    #[must_use]
    pub fn rust_library(&self, rustc_version: &str) -> PathBuf {
        self.root
            .join("rust-library")
            .join(rustc_version)
            .join("library")
    }

    /// Debian's root file system for boxes, of a release.
    #[must_use]
    pub fn debian(&self, suite: &str) -> PathBuf {
        self.root.join("debian").join(suite)
    }

    /// Debian's kernel for boxes, of a release, with what starts it.
    #[must_use]
    pub fn kernel(&self, suite: &str) -> PathBuf {
        self.root.join("kernel").join(suite)
    }

    /// QEMU's emulator of programs for boxes; empty where the system's own is new enough.
    #[must_use]
    pub fn emulator(&self) -> PathBuf {
        self.root.join("qemu-aarch64")
    }

    /// Cargo's sub-commands that we had to build: the `--root` of `cargo install`.
    #[must_use]
    pub fn tools(&self) -> PathBuf {
        self.root.join("tools")
    }

    /// The state of an apt of our own, for one suite.
    #[must_use]
    pub fn apt(&self, suite: &str) -> PathBuf {
        self.root.join("apt").join(suite)
    }

    /// One set-up at a time: held until the file is dropped.
    ///
    /// # Errors
    /// When the lock file cannot be created or locked.
    pub fn lock(&self) -> Result<fs::File, CacheError> {
        let path = self.root.join("setup.lock");
        fs::File::create(&path)
            .and_then(|file| file.lock().map(|()| file))
            .map_err(|source| CacheError::Io {
                operation: "lock",
                path,
                source,
            })
    }

    /// Is `step` done as `pin` wants it, and is its product still there?
    #[must_use]
    pub fn is_done(&self, step: &str, pin: &str, product: &Path) -> bool {
        product.exists() && fs::read_to_string(self.stamp(step)).is_ok_and(|done| done == pin)
    }

    /// Puts what `build` makes in a scratch folder (which it returns the path of) at `product`, at
    /// once or not at all, and stamps the step.
    ///
    /// # Errors
    /// `build`'s own, or when the file system refuses.
    pub fn finish<E: From<CacheError>>(
        &self,
        step: &str,
        pin: &str,
        product: &Path,
        build: impl FnOnce(&Path) -> Result<PathBuf, E>,
    ) -> Result<(), E> {
        let attempt = |operation, path: &Path, result: io::Result<()>| {
            let path = path.to_path_buf();
            result.map_err(|source| CacheError::Io {
                operation,
                path,
                source,
            })
        };
        let scratch = tempfile::Builder::new()
            .prefix("scratch-")
            .tempdir_in(&self.root)
            .map_err(|source| CacheError::Io {
                operation: "create a scratch folder in",
                path: self.root.clone(),
                source,
            })?;
        let built = build(scratch.path())?;
        if let Some(parent) = product.parent() {
            attempt("create", parent, fs::create_dir_all(parent))?;
        }
        if product.is_dir() {
            attempt("remove the old", product, fs::remove_dir_all(product))?;
        }
        attempt("put in place", product, fs::rename(built, product))?;
        self.set_stamp(step, pin)?;
        Ok(())
    }

    /// Notes that `step` is done as `pin` wants it.
    ///
    /// # Errors
    /// When the stamp cannot be written.
    pub fn set_stamp(&self, step: &str, pin: &str) -> Result<(), CacheError> {
        let path = self.stamp(step);
        let folder = path.parent().map_or(Ok(()), fs::create_dir_all);
        folder
            .and_then(|()| fs::write(&path, pin))
            .map_err(|source| CacheError::Io {
                operation: "write",
                path,
                source,
            })
    }

    fn stamp(&self, step: &str) -> PathBuf {
        self.root.join("stamps").join(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_done_only_as_pinned_and_a_failed_one_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::at(folder.path()).expect("a cache");
        let product = cache.root().join("tool");
        let build = |scratch: &Path| {
            fs::write(scratch.join("tool"), "1").expect("a file");
            Ok::<_, CacheError>(scratch.join("tool"))
        };
        cache.finish("tool", "1", &product, build).expect("a step");
        assert!(cache.is_done("tool", "1", &product));
        assert!(
            !cache.is_done("tool", "2", &product),
            "another version is pinned now"
        );

        let fails = |scratch: &Path| {
            build(scratch)?;
            Err(CacheError::NoFolder)
        };
        cache
            .finish("tool", "2", &product, fails)
            .expect_err("it failed");
        assert!(
            cache.is_done("tool", "1", &product),
            "the old one is still there"
        );
        let left = fs::read_dir(cache.root()).expect("the cache").count();
        assert_eq!(left, 2, "the product and the stamps, and no scratch folder");
    }
}
