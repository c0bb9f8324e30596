//! `edgectl ca` as an admin uses it, and what OpenSSL says of what it made.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
};

use tempfile::TempDir;

fn ca(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_edgectl"))
        .arg("ca")
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap()
}

fn said(folder: &Path, arguments: &[&str]) -> String {
    let output = ca(folder, arguments);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn refused(folder: &Path, arguments: &[&str]) -> String {
    let output = ca(folder, arguments);
    assert!(!output.status.success(), "{arguments:?} should fail");
    String::from_utf8(output.stderr).unwrap()
}

fn openssl(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("openssl")
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "openssl {arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

fn region() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("passphrase"), "correct horse battery\n").unwrap();
    let made = said(
        folder.path(),
        &[
            "init",
            "--region",
            "home",
            "--out",
            "ca",
            "--passphrase-file",
            "passphrase",
        ],
    );
    assert!(made.contains("Region home has its authority"), "{made}");
    folder
}

#[test]
fn openssl_takes_the_authority_and_what_it_issues() {
    let folder = region();
    let at = folder.path();
    let issue = [
        "issue",
        "--ca",
        "ca/online",
        "--role",
        "sensor",
        "--name",
        "cam-1",
        "--out",
        "cam-1",
    ];
    said(at, &issue);
    let verified = openssl(
        at,
        &[
            "verify",
            "-purpose",
            "sslclient",
            "-CAfile",
            "cam-1/region-ca.pem",
            "-untrusted",
            "cam-1/certificate.pem",
            "cam-1/certificate.pem",
        ],
    );
    assert!(verified.contains("OK"), "{verified}");
    let subject = openssl(
        at,
        &["x509", "-in", "cam-1/certificate.pem", "-noout", "-subject"],
    );
    assert!(
        subject.contains("O = home, OU = sensor, CN = cam-1"),
        "{subject}"
    );

    // The root's key opens with its passphrase, and is the root's.
    let key = openssl(
        at,
        &[
            "pkey",
            "-in",
            "ca/offline/root.key",
            "-passin",
            "file:passphrase",
            "-pubout",
        ],
    );
    let root = openssl(
        at,
        &["x509", "-in", "ca/offline/root.crt", "-noout", "-pubkey"],
    );
    assert_eq!(key, root);
    let fingerprint = said(at, &["fingerprint", "--ca", "ca/online"]);
    let by_openssl = openssl(
        at,
        &[
            "x509",
            "-in",
            "ca/online/root.crt",
            "-noout",
            "-fingerprint",
            "-sha256",
        ],
    );
    let by_openssl = by_openssl.trim().replace(':', "").to_lowercase();
    assert!(
        by_openssl.ends_with(&fingerprint),
        "{by_openssl} {fingerprint}"
    );

    for (file, mode) in [
        ("ca/offline/root.key", 0o600),
        ("ca/online/intermediate.key", 0o600),
        ("cam-1/key.pem", 0o600),
        ("ca/online", 0o700),
    ] {
        let found = fs::metadata(at.join(file)).unwrap().permissions().mode();
        assert_eq!(found & 0o777, mode, "{file}");
    }

    // Revoked: OpenSSL reads the list.
    said(at, &["revoke", "--ca", "ca/online", "cam-1"]);
    fs::write(
        at.join("crl.pem"),
        said(at, &["crl", "--ca", "ca/online"]) + "\n",
    )
    .unwrap();
    let list = openssl(at, &["crl", "-in", "crl.pem", "-noout", "-text"]);
    assert!(list.contains("Serial Number"), "{list}");
    assert!(said(at, &["list", "--ca", "ca/online"]).contains("revoked"));
    // The name is free again.
    said(
        at,
        &[
            "issue",
            "--ca",
            "ca/online",
            "--role",
            "sensor",
            "--name",
            "cam-1",
            "--out",
            "cam-1-new",
        ],
    );
}

#[test]
fn a_new_intermediate_is_of_the_same_root() {
    let folder = region();
    let at = folder.path();
    let intermediate = [
        "intermediate",
        "--offline",
        "ca/offline",
        "--out",
        "new",
        "--passphrase-file",
    ];
    said(at, &[&intermediate[..], &["passphrase"]].concat());
    let verified = openssl(
        at,
        &[
            "verify",
            "-CAfile",
            "ca/online/root.crt",
            "new/intermediate.crt",
        ],
    );
    assert!(verified.contains("OK"), "{verified}");
    fs::write(at.join("wrong"), "not this one, surely\n").unwrap();
    let error = refused(
        at,
        &[
            "intermediate",
            "--offline",
            "ca/offline",
            "--out",
            "newer",
            "--passphrase-file",
            "wrong",
        ],
    );
    assert!(error.contains("passphrase is wrong"), "{error}");
}

#[test]
fn what_cannot_be_is_explained() {
    let folder = region();
    let at = folder.path();
    fs::write(at.join("short"), "short\n").unwrap();
    for (arguments, part) in [
        (
            vec![
                "init",
                "--region",
                "home",
                "--out",
                "ca",
                "--passphrase-file",
                "passphrase",
            ],
            "cannot create",
        ),
        (
            vec![
                "init",
                "--region",
                "home",
                "--out",
                "b",
                "--passphrase-file",
                "short",
            ],
            "at least 12",
        ),
        (
            vec!["init", "--region", "home", "--out", "b"],
            "--passphrase-file",
        ),
        (
            vec!["token", "--ca", "ca/online", "--role", "admin"],
            "does not enrol",
        ),
        (
            vec!["token", "--ca", "nowhere"],
            "cannot read nowhere/root.crt",
        ),
        (
            vec!["revoke", "--ca", "ca/online", "box-1"],
            "no key is known as box-1",
        ),
        (
            vec!["approve", "--ca", "ca/online", "box-1", &"a1".repeat(32)],
            "no key with this fingerprint",
        ),
        (
            vec!["approve", "--ca", "ca/online", "box-1", "a1"],
            "64 digits",
        ),
        (
            vec![
                "issue",
                "--ca",
                "ca/online",
                "--role",
                "sensor",
                "--name",
                "x",
                "--out",
                "x",
                "--host",
                "y",
            ],
            "only servers",
        ),
    ] {
        let error = refused(at, &arguments);
        assert!(error.contains(part), "{arguments:?}: {error}");
    }
    // A name is one key's: the second one gets nothing, and leaves nothing.
    let issue = |out| {
        [
            "issue",
            "--ca",
            "ca/online",
            "--role",
            "app",
            "--name",
            "app-1",
            "--out",
            out,
        ]
    };
    said(at, &issue("first"));
    let error = refused(at, &issue("second"));
    assert!(error.contains("another key is known as app-1"), "{error}");
    assert_eq!(fs::read_dir(at.join("second")).unwrap().count(), 0);
    fs::set_permissions(
        at.join("ca/online/intermediate.key"),
        fs::Permissions::from_mode(0o644),
    )
    .unwrap();
    let error = refused(at, &issue("third"));
    assert!(error.contains("others may have the key"), "{error}");
}

#[test]
fn tokens_are_shown_once_and_the_access_list_has_everybody() {
    let folder = region();
    let at = folder.path();
    let token = said(at, &["token", "--ca", "ca/online", "--name", "box-1"]);
    assert!(
        token.starts_with("edge-enrol-") && token.len() == 43,
        "{token}"
    );
    let database = fs::read(at.join("ca/online/registry.sqlite3")).unwrap();
    let secret = token.as_bytes();
    assert!(!database.windows(secret.len()).any(|bytes| bytes == secret));
    said(
        at,
        &[
            "issue",
            "--ca",
            "ca/online",
            "--role",
            "app",
            "--name",
            "app-1",
            "--out",
            "app-1",
        ],
    );
    let list = said(at, &["acl", "--ca", "ca/online"]);
    assert!(
        list.contains("user app-1\ntopic write edge/v1/home/any/infer/+/app-1"),
        "{list}"
    );
    assert_eq!(
        said(at, &["pending", "--ca", "ca/online"]),
        "No key waits for approval."
    );
}

#[test]
fn an_authority_that_is_there_already_stands_above_the_region() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let root = [
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-384",
        "-nodes",
        "-days",
        "30",
        "-subj",
        "/O=Example/CN=Example root",
        "-keyout",
        "root.key",
        "-out",
        "root.crt",
    ];
    openssl(at, &root);
    said(at, &["request", "--region", "home", "--out", "online"]);
    let extensions = "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\n\
                      subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n";
    fs::write(at.join("extensions"), extensions).unwrap();
    let sign = |request: &str, out: &str| {
        let sign = [
            "x509",
            "-req",
            "-days",
            "30",
            "-in",
            request,
            "-CA",
            "root.crt",
            "-CAkey",
            "root.key",
            "-CAcreateserial",
            "-extfile",
            "extensions",
            "-out",
            out,
        ];
        openssl(at, &sign);
    };
    sign("online/intermediate.csr", "signed.crt");
    let adopt = |certificate: &'static str, root: &'static str| {
        [
            "adopt",
            "--ca",
            "online",
            "--certificate",
            certificate,
            "--root",
            root,
        ]
    };
    // Another key's certificate, and another root than the one that signed, are told before anything is written.
    said(at, &["request", "--region", "home", "--out", "other"]);
    sign("other/intermediate.csr", "other.crt");
    let error = refused(at, &adopt("other.crt", "root.crt"));
    assert!(error.contains("do not belong together"), "{error}");
    let error = refused(at, &adopt("signed.crt", "signed.crt"));
    assert!(error.contains("did not sign"), "{error}");
    let adopted = said(at, &adopt("signed.crt", "root.crt"));
    let fingerprint = openssl(
        at,
        &[
            "x509",
            "-in",
            "root.crt",
            "-noout",
            "-fingerprint",
            "-sha256",
        ],
    );
    let fingerprint = fingerprint
        .trim()
        .rsplit('=')
        .next()
        .unwrap()
        .replace(':', "")
        .to_lowercase();
    assert!(
        adopted.contains(&fingerprint),
        "{adopted} is not of {fingerprint}"
    );
    said(
        at,
        &[
            "issue", "--ca", "online", "--role", "app", "--name", "shop", "--out", "shop",
        ],
    );
    let verify = [
        "verify",
        "-purpose",
        "sslclient",
        "-CAfile",
        "root.crt",
        "-untrusted",
        "shop/certificate.pem",
        "shop/certificate.pem",
    ];
    let verified = openssl(at, &verify);
    assert!(verified.contains("OK"), "{verified}");
}

#[test]
fn limits_are_for_those_who_ask_models() {
    let folder = region();
    let at = folder.path();
    let token = ["token", "--ca", "ca/online", "--role"];
    let bounds = ["--model", "digits", "--per-minute", "60"];
    let error = refused(at, &[&token[..], &["box"], &bounds].concat());
    assert!(error.contains("bind sensors and apps"), "{error}");
    said(at, &[&token[..], &["sensor"], &bounds].concat());
    let issue = [
        "issue",
        "--ca",
        "ca/online",
        "--role",
        "sensor",
        "--name",
        "cam-1",
        "--out",
        "cam-1",
    ];
    said(at, &[&issue[..], &bounds].concat());
    let known = said(at, &["list", "--ca", "ca/online"]);
    assert!(known.contains("digits, 60 a minute"), "{known}");
    let list = said(at, &["acl", "--ca", "ca/online"]);
    assert!(
        list.contains("topic write edge/v1/home/any/infer/digits/cam-1"),
        "{list}"
    );
    let list = said(at, &["acl", "--ca", "ca/online", "--for", "rmqtt"]);
    assert!(
        list.contains("edge/v1/home/any/infer/digits/cam-1"),
        "{list}"
    );
    let freed = said(at, &["limit", "--ca", "ca/online", "cam-1"]);
    assert!(freed.contains("may do what its role may"), "{freed}");
    let known = said(at, &["list", "--ca", "ca/online"]);
    assert!(!known.contains("a minute"), "{known}");
}
