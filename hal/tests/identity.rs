//! The identity key: its file, its signatures, and what others check them by.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
    thread,
};

use edge_hal::identity::{
    FileKey, IdentityError, IdentityKey, KeyAlgorithm, PublicKey, PublicKeyError, Signature, SimKey,
};
use tempfile::TempDir;

/// RFC 8410, section 10.3, with its public half.
const WITH_PUBLIC: &str = "-----BEGIN PRIVATE KEY-----\n\
    MHICAQEwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
    oB8wHQYKKoZIhvcNAQkJFDEPDA1DdXJkbGUgQ2hhaXJzgSEAGb9ECWmEzf6FQbrB\n\
    Z9w7lshQhqowtrbLDFw4rXAxZuE=\n\
    -----END PRIVATE KEY-----\n";
const WITHOUT_PUBLIC: &str = "-----BEGIN PRIVATE KEY-----\n\
    MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
    -----END PRIVATE KEY-----\n";

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("identity.pem");
    (folder, path)
}

fn write_private(path: &Path, text: impl AsRef<[u8]>) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}

fn bytes_of(hex: &str) -> Vec<u8> {
    hex.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

#[test]
fn a_key_is_made_once_and_kept() {
    let (_folder, path) = folder();
    let error = FileKey::open(&path).unwrap_err();
    assert!(matches!(error, IdentityError::Missing { .. }), "{error}");
    let made = FileKey::open_or_create(&path).unwrap();
    assert_eq!(made.algorithm(), KeyAlgorithm::Ed25519);
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    for key in [
        FileKey::open(&path).unwrap(),
        FileKey::open_or_create(&path).unwrap(),
    ] {
        assert_eq!(key.public_key(), made.public_key());
    }
    let signature = made.sign(b"hello").unwrap();
    made.public_key().verify(b"hello", &signature).unwrap();
    let other = FileKey::open_or_create(&path.with_file_name("other.pem")).unwrap();
    assert_ne!(other.public_key(), made.public_key());
}

#[test]
fn programs_that_start_at_once_get_one_key() {
    let (_folder, path) = folder();
    let fingerprints: Vec<_> = thread::scope(|scope| {
        let open = || FileKey::open_or_create(&path).unwrap().fingerprint();
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert!(fingerprints.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn keys_of_other_programs_are_read() {
    let (_folder, path) = folder();
    write_private(&path, WITHOUT_PUBLIC);
    let key = FileKey::open(&path).unwrap();
    write_private(&path, WITH_PUBLIC);
    assert_eq!(FileKey::open(&path).unwrap().public_key(), key.public_key());
}

#[test]
fn a_damaged_key_is_refused_and_never_overwritten() {
    let (_folder, path) = folder();
    let other_public = WITH_PUBLIC.replace("Z9w7lshQ", "Z9w7lshR");
    let not_ed25519 = WITHOUT_PUBLIC.replace("MC4CAQAwBQYDK2Vw", "MC4CAQAwBQYDK2Vu");
    let mut damaged: Vec<Vec<u8>> = vec![
        b"-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n".to_vec(),
        WITHOUT_PUBLIC.replace("PRIVATE", "PUBLIC").into(),
        WITHOUT_PUBLIC
            .replace("PRIVATE", "ENCRYPTED PRIVATE")
            .into(),
        other_public.into(),
        not_ed25519.into(),
        vec![0; 119],
        vec![0xff; 119],
        vec![b'A'; 5_000],
    ];
    // A torn write, at each byte that is not the last line's end.
    let whole = WITHOUT_PUBLIC.trim_end().as_bytes();
    damaged.extend((0..whole.len()).map(|end| whole[..end].to_vec()));
    for text in damaged {
        write_private(&path, &text);
        for key in [FileKey::open(&path), FileKey::open_or_create(&path)] {
            let error = key.unwrap_err();
            assert!(matches!(error, IdentityError::Damaged { .. }), "{error}");
            assert!(error.to_string().contains("enrolled anew"), "{error}");
        }
        assert_eq!(fs::read(&path).unwrap(), text);
    }
}

#[test]
fn a_file_that_others_can_use_is_refused() {
    let (_folder, path) = folder();
    for mode in [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o777] {
        write_private(&path, WITHOUT_PUBLIC);
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let error = FileKey::open_or_create(&path).unwrap_err();
        assert!(matches!(error, IdentityError::Unsafe { .. }), "{mode:o}");
        assert!(error.to_string().contains(&format!("{mode:o}")), "{error}");
    }
}

#[test]
fn what_is_no_regular_file_is_refused() {
    let (folder, path) = folder();
    let target = folder.path().join("target.pem");
    write_private(&target, WITHOUT_PUBLIC);
    let refused = |what: &str| {
        let error = FileKey::open_or_create(&path).unwrap_err();
        assert!(
            matches!(error, IdentityError::Unsafe { .. }),
            "{what}: {error}"
        );
    };
    symlink(&target, &path).unwrap();
    refused("a link");
    fs::remove_file(&target).unwrap();
    refused("a link to nowhere");
    fs::remove_file(&path).unwrap();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    refused("a pipe");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    refused("a folder");
}

/// Only root can give a file away; anybody else sees that the kernel refuses.
#[test]
fn a_file_of_another_user_is_refused() {
    let (_folder, path) = folder();
    write_private(&path, WITHOUT_PUBLIC);
    let given_away = chown(&path, Some(12_345), None);
    if nix::unistd::geteuid().is_root() {
        given_away.unwrap();
        let error = FileKey::open_or_create(&path).unwrap_err();
        assert!(error.to_string().contains("user 12345"), "{error}");
    } else {
        assert!(given_away.is_err());
    }
}

#[test]
fn nothing_secret_is_shown() {
    let (_folder, path) = folder();
    write_private(&path, WITHOUT_PUBLIC);
    let key = FileKey::open(&path).unwrap();
    let shown = format!("{key:?}");
    assert!(shown.contains(&key.fingerprint().to_string()), "{shown}");
    assert!(!shown.to_lowercase().contains("d4ee72db"), "{shown}");
    assert!(!shown.contains("212, 238"), "{shown}");
}

#[test]
fn the_fingerprint_is_that_of_the_certificate_key() {
    let public = bytes_of("19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1");
    let key = PublicKey::new(KeyAlgorithm::Ed25519, &public).unwrap();
    // RFC 8410, section 10.1.
    let spki =
        "302a300506032b657003210019bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1";
    assert_eq!(key.to_spki_der(), bytes_of(spki));
    let hex = key.fingerprint().to_hex();
    // `openssl pkey -in FILE -pubout -outform DER | sha256sum` of the key in section 10.3.
    assert_eq!(
        hex,
        "a1e9156054e04fac899ae9f275132cdc07a5dbc4ea2c2ad3a1ffc6e0d253681f"
    );
    let grouped = key.fingerprint().to_string();
    assert_eq!(grouped.replace(' ', ""), hex);
    assert_eq!(grouped.split(' ').count(), 16);
}

/// RFC 8032, section 7.1, test 3.
#[test]
fn verifies_the_ed25519_of_the_specification() {
    let public = bytes_of("fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025");
    let signature = bytes_of(
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac\
         18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    );
    let key = PublicKey::new(KeyAlgorithm::Ed25519, &public).unwrap();
    let signature = Signature(signature.try_into().unwrap());
    key.verify(&[0xaf, 0x82], &signature).unwrap();
    assert!(key.verify(&[0xaf, 0x83], &signature).is_err());
}

/// RFC 6979, section A.2.5: P-256 with SHA-256, message "sample".
#[test]
fn verifies_the_es256_of_the_specification() {
    let public = bytes_of(
        "0460fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6\
         7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299",
    );
    let signature = bytes_of(
        "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716\
         f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8",
    );
    let key = PublicKey::new(KeyAlgorithm::Es256, &public).unwrap();
    assert_eq!(key.to_bytes(), public);
    assert_eq!(key.to_spki_der().len(), 91);
    key.verify(b"sample", &Signature(signature.try_into().unwrap()))
        .unwrap();
}

#[test]
fn each_key_signs_for_itself_alone() {
    for algorithm in [KeyAlgorithm::Ed25519, KeyAlgorithm::Es256] {
        let key = SimKey::new(algorithm, "box-1");
        let other = SimKey::new(algorithm, "box-2");
        assert_eq!(key.algorithm(), algorithm);
        let same = SimKey::new(algorithm, "box-1");
        assert_eq!(key.public_key(), same.public_key());
        let signature = key.sign(b"hello").unwrap();
        key.public_key().verify(b"hello", &signature).unwrap();
        let forged = Err(PublicKeyError::Forged { algorithm });
        assert_eq!(other.public_key().verify(b"hello", &signature), forged);
        assert_eq!(key.public_key().verify(b"hullo", &signature), forged);
        for bit in 0..512 {
            let mut torn = signature;
            torn.0[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(key.public_key().verify(b"hello", &torn), forged);
        }
        for constant in [0, 0xff] {
            let constant = Signature([constant; 64]);
            assert_eq!(key.public_key().verify(b"hello", &constant), forged);
        }
        let bytes = key.public_key().to_bytes();
        let again = PublicKey::new(algorithm, &bytes).unwrap();
        assert_eq!(&again, key.public_key());
        assert!(PublicKey::new(algorithm, &bytes[1..]).is_err());
    }
}

#[test]
fn bytes_that_are_no_key_are_refused() {
    for algorithm in [KeyAlgorithm::Ed25519, KeyAlgorithm::Es256] {
        for bytes in [
            vec![],
            vec![0; 32],
            vec![0; 65],
            vec![4; 65],
            vec![0; 1_000],
        ] {
            assert!(
                PublicKey::new(algorithm, &bytes).is_err(),
                "{algorithm} {bytes:?}"
            );
        }
    }
    // The neutral element: every message has a signature of it.
    let mut neutral = [0; 32];
    neutral[0] = 1;
    assert!(PublicKey::new(KeyAlgorithm::Ed25519, &neutral).is_err());
}

#[test]
fn a_simulated_store_can_fail() {
    let key = SimKey::new(KeyAlgorithm::Es256, "box-1");
    key.store.fail("chip does not answer");
    let error = key.sign(b"hello").unwrap_err();
    assert!(matches!(error, IdentityError::Simulated(_)), "{error}");
    key.store.recover();
    key.sign(b"hello").unwrap();
}
