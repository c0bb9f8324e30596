//! The box's key in a TPM: Debian's `swtpm` is one in software.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use edge_hal::identity::{IdentityError, IdentityKey as _, KeyAlgorithm, KeyPlace, TpmKey};

/// A TPM whose memory is in `folder`.
struct Tpm {
    process: Child,
    socket: PathBuf,
}

impl Tpm {
    fn start(folder: &Path) -> Self {
        let socket = folder.join("tpm.sock");
        let _none = std::fs::remove_file(&socket);
        let process = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
            .arg("--tpmstate")
            .arg(format!("dir={}", folder.display()))
            .arg("--server")
            .arg(format!("type=unixio,path={}", socket.display()))
            .arg("--ctrl")
            .arg(format!(
                "type=unixio,path={}",
                folder.join("ctrl.sock").display()
            ))
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("swtpm (Debian: swtpm): {error}"));
        let tpm = Self { process, socket };
        let started = Instant::now();
        while !tpm.socket.exists() {
            assert!(
                started.elapsed() < Duration::from_secs(20),
                "swtpm does not listen"
            );
            std::thread::yield_now();
        }
        tpm
    }

    fn open(&self) -> Result<TpmKey, IdentityError> {
        TpmKey::open(&self.socket)
    }
}

impl Drop for Tpm {
    fn drop(&mut self) {
        let _killed = self.process.kill();
        let _waited = self.process.wait();
    }
}

#[test]
fn a_tpm_derives_the_same_key_each_time_and_signs_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let tpm = Tpm::start(folder.path());
    let first = tpm.open().unwrap();
    assert_eq!(first.algorithm(), KeyAlgorithm::Es256);
    let public = *first.public_key();
    for message in [&b""[..], b"hello", &[7; 10_000]] {
        let signature = first.sign(message).unwrap();
        public.verify(message, &signature).unwrap();
        assert!(public.verify(b"another", &signature).is_err());
    }
    drop(first);
    // More often than a TPM has room for keys.
    for _ in 0..8 {
        assert_eq!(*tpm.open().unwrap().public_key(), public);
    }
    // Its power is cut: it keeps its seed, and nothing else is needed.
    drop(tpm);
    let tpm = Tpm::start(folder.path());
    assert_eq!(*tpm.open().unwrap().public_key(), public);
}

#[test]
fn a_key_that_the_tpm_has_forgotten_is_loaded_again_and_another_tpm_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let tpm = Tpm::start(folder.path());
    let key = tpm.open().unwrap();
    drop(tpm);
    let error = key.sign(b"hello").unwrap_err();
    assert!(matches!(error, IdentityError::Tpm { .. }), "{error}");
    let tpm = Tpm::start(folder.path());
    let signature = key.sign(b"hello").unwrap();
    key.public_key().verify(b"hello", &signature).unwrap();
    drop(tpm);
    for memory in std::fs::read_dir(folder.path()).unwrap() {
        let memory = memory.unwrap().path();
        if memory.extension().is_some_and(|kind| kind == "permall") {
            std::fs::remove_file(memory).unwrap();
        }
    }
    let _cleared = Tpm::start(folder.path());
    let error = key.sign(b"hello").unwrap_err();
    assert!(matches!(error, IdentityError::OtherTpm { .. }), "{error}");
}

#[test]
fn what_is_no_tpm_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "no TPM").unwrap();
    // Something that takes the connection and goes.
    let socket = folder.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let other_end = std::thread::spawn(move || drop(listener.accept()));
    for path in [file, folder.path().join("nothing"), socket] {
        let error = TpmKey::open(&path).unwrap_err();
        assert!(matches!(error, IdentityError::Tpm { .. }), "{error}");
    }
    other_end.join().unwrap();
}

#[test]
fn a_box_with_a_tpm_has_its_key_there_for_good() {
    let folder = tempfile::tempdir().unwrap();
    let data = tempfile::tempdir().unwrap();
    let tpm = Tpm::start(folder.path());
    let place = KeyPlace {
        folder: data.path().to_owned(),
        tpm: tpm.socket.clone(),
    };
    let key = place.open_or_create().unwrap();
    assert_eq!(key.algorithm(), KeyAlgorithm::Es256);
    let kept = std::fs::read_to_string(place.file()).unwrap();
    let fingerprint = key.fingerprint().to_hex();
    assert_eq!(kept.trim(), fingerprint, "nothing secret is on the disk");
    assert_eq!(std::fs::read_dir(data.path()).unwrap().count(), 1);
    // swtpm speaks with one at a time.
    drop(key);
    // The power was cut before the choice was on the disk: the next start makes the same one.
    std::fs::remove_file(data.path().join("identity.tpm")).unwrap();
    for open in [KeyPlace::open_or_create, KeyPlace::open] {
        assert_eq!(open(&place).unwrap().fingerprint().to_hex(), fingerprint);
    }
    // The disk in another box, with another TPM: it is not this box there.
    let elsewhere = tempfile::tempdir().unwrap();
    let other = Tpm::start(elsewhere.path());
    let moved = KeyPlace {
        tpm: other.socket.clone(),
        ..place
    };
    let error = moved.open_or_create().err().unwrap();
    assert!(matches!(error, IdentityError::OtherTpm { .. }), "{error}");
}
