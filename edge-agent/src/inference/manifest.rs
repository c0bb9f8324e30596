//! A version's manifest: `manifest.sha256` beside its graph, as `sha256sum * > manifest.sha256` writes it. Where there
//! is one, the version is complete once every file in it has its hash.

use std::{
    fs::File,
    io::{self, Read},
    path::{Component, Path},
};

use sha2::{Digest, Sha256};

/// Name of the file.
const MANIFEST: &str = "manifest.sha256";
/// Longest manifest in bytes.
const MANIFEST_MAX_BYTES: u64 = 64 << 10;

/// Whether all of a version is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Completeness {
    /// Every file of the manifest has its hash.
    Complete,
    /// There is no manifest to say so.
    Unknown,
    /// A file of the manifest is missing or has another hash, or the manifest is none.
    Incomplete(String),
}

/// Compares the files of a version's folder with its manifest.
pub(super) fn check(version: &Path) -> Completeness {
    let text = match read(&version.join(MANIFEST)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Completeness::Unknown,
        Err(error) => return Completeness::Incomplete(format!("cannot read {MANIFEST}: {error}")),
    };
    match compare(version, &text) {
        Ok(()) => Completeness::Complete,
        Err(why) => Completeness::Incomplete(why),
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?
        .take(MANIFEST_MAX_BYTES)
        .read_to_string(&mut text)?;
    Ok(text)
}

fn compare(version: &Path, text: &str) -> Result<(), String> {
    let mut has_graph = false;
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let (hash, name) = parse(line).ok_or_else(|| {
            format!(
                "{MANIFEST} has a line that is not SHA256, two spaces and a file name: {line:?}"
            )
        })?;
        has_graph |= name == "model.onnx";
        let found = hash_of(&version.join(name))
            .map_err(|error| format!("{name} of {MANIFEST} cannot be read: {error}"))?;
        if !found.eq_ignore_ascii_case(hash) {
            return Err(format!("{name} has not the hash that {MANIFEST} says"));
        }
    }
    if has_graph {
        Ok(())
    } else {
        Err(format!("{MANIFEST} does not name model.onnx"))
    }
}

/// Hash and file name of a line. The name must stay inside the version's folder.
fn parse(line: &str) -> Option<(&str, &str)> {
    let (hash, name) = line.split_at_checked(64)?;
    // A star marks a file that was read as binary.
    let name = name
        .strip_prefix("  ")
        .or_else(|| name.strip_prefix(" *"))?;
    let is_hash = hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut components = Path::new(name).components();
    let stays_inside = components.all(|component| matches!(component, Component::Normal(_)));
    (is_hash && stays_inside && !name.is_empty()).then_some((hash, name))
}

/// SHA-256 of a file, in hex.
pub(super) fn hash_of(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = file.read(&mut buffer)?;
        match buffer.get(..read) {
            Some([]) | None => break,
            Some(bytes) => hasher.update(bytes),
        }
    }
    Ok(hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    /// SHA-256 of `abc` (FIPS 180-2, appendix B.1).
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn version(manifest: Option<&str>) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("model.onnx"), "abc").unwrap();
        if let Some(manifest) = manifest {
            fs::write(dir.path().join(MANIFEST), manifest).unwrap();
        }
        dir
    }

    #[test]
    fn a_version_is_complete_when_every_file_has_its_hash() {
        assert_eq!(check(version(None).path()), Completeness::Unknown);
        for manifest in [
            format!("{ABC}  model.onnx\n"),
            format!("{} *model.onnx\n\n", ABC.to_uppercase()),
        ] {
            assert_eq!(
                check(version(Some(&manifest)).path()),
                Completeness::Complete
            );
        }
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let zeros = "0".repeat(64);
        for (manifest, wanted) in [
            (
                format!("{zeros}  model.onnx"),
                "model.onnx has not the hash",
            ),
            (
                format!("{ABC}  model.onnx\n{ABC}  weights.bin"),
                "weights.bin of",
            ),
            (format!("{ABC}  ../model.onnx"), "a line that is not"),
            (format!("{ABC}  /etc/passwd"), "a line that is not"),
            (format!("{ABC} model.onnx"), "a line that is not"),
            (String::new(), "does not name model.onnx"),
        ] {
            let Completeness::Incomplete(why) = check(version(Some(&manifest)).path()) else {
                panic!("incomplete: {manifest}")
            };
            assert!(why.contains(wanted), "{manifest}: {why}");
        }
    }

    proptest! {
        #[test]
        fn a_line_never_leads_out_of_the_folder(line in "[0-9a-f]{64}  [./a-z]{0,12}") {
            if let Some((_, name)) = parse(&line) {
                prop_assert!(!name.split('/').any(|part| part == ".."));
                prop_assert!(!name.starts_with('/'));
            }
        }

        #[test]
        fn any_line_is_read_or_refused(line in "\\PC{0,80}") {
            parse(&line);
        }
    }
}
