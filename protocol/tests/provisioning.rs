//! The provisioning file: what is taken, and that each mistake is named with its line, its key and what to do.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use edge_protocol::provisioning::{
    Network, Problems, Provisioning, check_update_root, parse, text::Fields,
};
use proptest::prelude::*;

const TOKEN: &str = "tok-5f3e9a7c1b";
const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGP+PQDqmSvcrrgMOsPgZSr4FVDtp7/k/uj+f2YEjhoq owner@home";
const RSA: &str = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQCs7OZ4dudZ9y88hPnHVeQyTRlpx68e4ac11K16dikQCjCHxImtAkr0YAvJXsPvDJ+Yo/qXcLY6lrFOyvvLc0bm9hMYmIN31a4uHvWtOn8TBqLLvt/Qr0LfMGTIrDmalnrSv2cDNO5SFEhYo11FkhtJzMxxkrTohAa0af5G9lowfo6Tgy6PNR6w9WPIM8o7l5wiRA02ubf1PJT7OnCWGW88fQ15gMIVaATBRYZHPqX8cte42K6yIJR2HTMUDMCdMpkdyDvgKnnMi4xMCFVvOamhfsZ68ezt87W9OzHS143eq1lVVweFJ5seSkYUa6e03Y5iiNPRtbFoRh/oIvKYkpj3";
const CA: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
/// Of EIP-55 itself.
const WALLET: &str = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";

fn knows(zone: &str) -> bool {
    matches!(zone, "Europe/Berlin" | "UTC" | "Etc/GMT+1")
}

fn read(text: &str) -> Result<Provisioning, Problems> {
    parse(text.as_bytes(), &knows)
}

fn whole() -> String {
    format!(
        "# home\nversion = 1\nregion = \"home\"\nbroker = \"mqtts://broker.example:8883\"\n\
         indexer = \"https://indexer.example/\"\nregion_ca_sha256 = \"{CA}\"\nenrolment_token = \"{TOKEN}\"\n\
         box_id = \"kitchen\"\npayout_address = \"{WALLET}\"\nupdate_server = \"http://10.0.0.7:8080/tuf\"\n\
         time_zone = \"Europe/Berlin\"\nssh_key = [\"{KEY}\", \"{RSA}\"]\n\n[network]\naddress = \"192.168.1.20/24\"\n\
         gateway = \"192.168.1.1\"\ndns = [\"192.168.1.1\", \"2001:db8::53\"]\n"
    )
}

#[test]
fn a_whole_file_is_read_from_any_editor() {
    let unix = read(&whole()).unwrap();
    assert_eq!(unix.region.as_str(), "home");
    assert_eq!(unix.enrolment_token.as_ref().unwrap().reveal(), TOKEN);
    assert_eq!(unix.ssh_keys, [KEY, RSA]);
    assert_eq!(
        unix.network,
        Network::Static {
            address: "192.168.1.20".parse().unwrap(),
            prefix: 24,
            gateway: Some("192.168.1.1".parse().unwrap()),
            dns: vec![
                "192.168.1.1".parse().unwrap(),
                "2001:db8::53".parse().unwrap()
            ],
        }
    );
    let windows = format!("\u{feff}{}", whole().replace('\n', "\r\n"));
    assert_eq!(read(&windows), Ok(unix));
}

#[test]
fn little_is_enough() {
    let small = read("version = 1\nregion = \"home\"\nbroker = \"mqtt://10.0.0.7\"\n").unwrap();
    assert_eq!(small.network, Network::Dhcp);
    assert_eq!((small.box_id, small.ssh_keys.len()), (None, 0));
}

#[test]
fn the_token_is_never_printed() {
    let provisioning = read(&whole()).unwrap();
    let printed = format!(
        "{provisioning:?} {}",
        serde_json::to_string(&provisioning).unwrap()
    );
    assert!(!printed.contains(TOKEN), "{printed}");
    assert!(printed.matches("[redacted]").count() == 2, "{printed}");
    // Nor by a mistake in its line, nor by one that takes it for something else.
    let line = format!("enrolment_token = \"{TOKEN}\"");
    for wrong in [
        format!("enrolment_token = \"{TOKEN}"),
        format!("enrolment_token = {TOKEN}"),
        format!("enrolment_token = \"{TOKEN} \""),
        format!("enrolment_token = [\"{TOKEN}\"]"),
        format!("enrolment_token \"{TOKEN}\""),
        format!("enrolment_token = \"\\q{TOKEN}\""),
    ] {
        let problems = read(&whole().replace(&line, &wrong)).unwrap_err();
        assert!(!problems.to_string().contains(TOKEN), "{wrong}: {problems}");
        assert_eq!(problems.0[0].line, Some(7), "{wrong}: {problems}");
    }
}

#[test]
fn each_mistake_is_named_with_line_key_and_what_to_do() {
    for (right, wrong, expected) in [
        (
            "version = 1",
            "version = 2",
            "line 2: version is 2; this program reads version 1",
        ),
        ("version = 1", "version = \"1\"", "line 2: version is text"),
        (
            "region = \"home\"",
            "region = \"Home\"",
            "line 3: region is \"Home\": a name has only a-z",
        ),
        (
            "region = \"home\"",
            "region = 7",
            "line 3: region is a number; write it in quotes",
        ),
        (
            "mqtts://broker.example:8883",
            "broker.example",
            "line 4: broker is \"broker.example\", which is no broker's address; write mqtt://HOST:PORT",
        ),
        (
            "mqtts://broker.example:8883",
            "mqtts://me@broker",
            "which is no broker's address",
        ),
        (
            "https://indexer.example/",
            "ftp://indexer.example/",
            "line 5: indexer is \"ftp://indexer.example/\", which is no service's address",
        ),
        (
            "https://indexer.example/",
            "http://a/?x=1",
            "without user name or parameters",
        ),
        (
            "https://indexer.example/",
            "http://indexer.example/",
            "indexer is one without TLS",
        ),
        (
            CA,
            "beef",
            "line 6: region_ca_sha256 is \"beef\", which is no SHA-256",
        ),
        (TOKEN, "short", "line 7: enrolment_token is no token"),
        ("\"kitchen\"", "\"-k\"", "line 8: box_id is \"-k\""),
        (
            WALLET,
            "0x5aaeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
            "line 9: payout_address is \"0x5aaeb6053F3E94C9b9A09f33669435E7Ef1BeAed\", whose checksum (EIP-55) is wrong",
        ),
        (
            WALLET,
            "0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed",
            "if it is right, write \"0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed\"",
        ),
        (
            WALLET,
            "0x0000000000000000000000000000000000000000",
            "zero address",
        ),
        (
            WALLET,
            "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAe",
            "which is no address",
        ),
        (
            "Europe/Berlin",
            "Europe/Atlantis",
            "line 11: time_zone is \"Europe/Atlantis\"",
        ),
        (
            "Europe/Berlin",
            "../../etc/shadow",
            "no time zone known here",
        ),
        (
            "owner@home",
            "owner\\nssh-rsa",
            "line 12: ssh_key is no SSH public key: it has control characters",
        ),
        (
            "\"ssh-ed25519",
            "\"command=\\\"sh\\\" ssh-ed25519",
            "has options in front",
        ),
        (
            "AAAAC3NzaC1lZDI1NTE5AAAAIGP+",
            "AAAAC3NzaC1lZDI1NTE5AAAAIGP",
            "damaged",
        ),
        (
            "192.168.1.20/24",
            "192.168.1.20",
            "line 15: network.address is \"192.168.1.20\", which is no address; write ADDRESS/PREFIX",
        ),
        (
            "192.168.1.20/24",
            "192.168.1.255/24",
            "names the network itself",
        ),
        ("192.168.1.20/24", "127.0.0.1/8", "which is no address"),
        (
            "gateway = \"192.168.1.1\"",
            "gateway = \"192.168.2.1\"",
            "line 16: network.gateway is 192.168.2.1, which a box at 192.168.1.20/24 does not reach",
        ),
        (
            "gateway = \"192.168.1.1\"",
            "router = \"192.168.1.1\"",
            "line 16: network.router is no key of [network]",
        ),
        (
            "address = \"192.168.1.20/24\"\n",
            "",
            "line 14: network has no address",
        ),
        (
            "[\"192.168.1.1\",",
            "[\"1.1.1.1\",\"1.1.1.1\",\"192.168.1.1\",",
            "has 4 elements; 3 are taken at most",
        ),
        (
            "# home",
            "wifi = 1",
            "line 1: wifi is no key of this file; there are version, region",
        ),
        (
            "# home",
            "\"a\\u0007\" = 1",
            "line 1: \"a\\u{7}\" is no key",
        ),
        (
            "region = \"home\"",
            "region == \"home\"",
            "line 3: the file is no TOML here",
        ),
        (
            "region = \"home\"\n",
            "",
            "region is missing; write region = \"home\"",
        ),
        ("version = 1\n", "", "version is missing; write version = 1"),
    ] {
        let text = whole();
        assert!(text.contains(right), "{right}");
        let problems = read(&text.replacen(right, wrong, 1)).unwrap_err();
        assert!(
            problems.to_string().contains(expected),
            "{wrong}: {problems}"
        );
        assert_eq!(problems.0.len(), 1, "{wrong}: {problems}");
    }
    let problems = read("enrolment_token = \"12345678\"\nbroker = \"mqtts://a\"").unwrap_err();
    let missing: Vec<&str> = problems
        .0
        .iter()
        .filter_map(|it| it.key.as_deref())
        .collect();
    assert_eq!(
        missing,
        ["version", "region", "indexer", "region_ca_sha256"]
    );
    for (bytes, expected) in [
        (&b"\xff\xfev\0e\0"[..], "no text in UTF-8"),
        (&[b'#'; 65_537], "longer than 64 KiB"),
    ] {
        let problems = parse(bytes, &knows).unwrap_err();
        assert!(problems.to_string().contains(expected), "{problems}");
    }
}

#[test]
fn many_mistakes_are_all_named_and_hostile_ones_bounded() {
    let problems = read("version = 1\nregion = \"?\"\nbroker = 1\nbox_id = \"\"\n").unwrap_err();
    assert_eq!(problems.0.len(), 3, "{problems}");
    let many: String = (0..5_000).map(|n| format!("k{n} = 1\n")).collect();
    let problems = read(&many).unwrap_err();
    assert!(problems.0.len() <= 20 && problems.to_string().len() < 10_000);
    let deep = format!("a = {}1{}", "[".repeat(20_000), "]".repeat(20_000));
    assert!(read(&deep).is_err());
}

#[test]
fn checksums_of_others_are_taken() {
    for wallet in [
        "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
        "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
        "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
    ] {
        read(&whole().replace(WALLET, wallet)).unwrap();
    }
    let colons: Vec<&str> = (0..32).map(|at| &CA[2 * at..2 * at + 2]).collect();
    let openssl = colons.join(":").to_uppercase();
    let read = read(&whole().replace(CA, &openssl)).unwrap();
    assert_eq!(read.region_ca_sha256.as_deref(), Some(CA));
}

#[test]
fn what_the_tool_writes_is_read() {
    let fields = Fields {
        top: vec![
            ("region", "home".to_owned()),
            ("broker", "mqtt://a".to_owned()),
            ("time_zone", "UTC".to_owned()),
        ],
        ssh_keys: vec![KEY.to_owned()],
        address: Some("fd00::2/64".to_owned()),
        gateway: Some("fe80::1".to_owned()),
        dns: vec!["fd00::1".to_owned()],
    };
    let provisioning = read(&fields.to_text()).unwrap();
    assert_eq!(provisioning.ssh_keys, [KEY]);
    assert!(matches!(
        provisioning.network,
        Network::Static { prefix: 64, .. }
    ));
    let hostile = Fields {
        top: vec![("region", "a\"\nbroker = \"mqtt://evil".to_owned())],
        ..Fields::default()
    };
    let problems = read(&hostile.to_text()).unwrap_err();
    assert!(
        problems.to_string().contains("broker is missing"),
        "{problems}"
    );
}

#[test]
fn a_root_of_updates_is_known_by_its_form() {
    let root = br#"{"signatures":[{"keyid":"a","sig":"b"}],"signed":{"_type":"root","version":1,"keys":{}}}"#;
    check_update_root(root).unwrap();
    for wrong in [
        &b""[..],
        b"{}",
        br#"{"signatures":[],"signed":{"_type":"root","version":1}}"#,
        br#"{"signatures":[{}],"signed":{"_type":"targets","version":1}}"#,
        &[b' '; 65_537],
    ] {
        let problem = check_update_root(wrong).unwrap_err();
        assert!(problem.starts_with("update-root.json is"), "{problem}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _any = parse(&bytes, &knows);
        let _any = check_update_root(&bytes);
    }

    #[test]
    fn a_damaged_file_is_read_or_refused(at in 0_usize..1500, byte: u8, cut in 0_usize..1500) {
        let mut bytes = whole().into_bytes();
        if let Some(place) = bytes.get_mut(at) {
            *place = byte;
        }
        bytes.truncate(cut.max(at));
        if let Err(problems) = parse(&bytes, &knows) {
            prop_assert!(!problems.0.is_empty());
            prop_assert!(problems.0.iter().all(|it| !it.to_string().contains('\n')), "{}", problems);
        }
    }

    #[test]
    fn any_values_are_read_or_refused(
        value in "\\PC{0,80}",
        key in prop::sample::select(vec!["region", "broker", "indexer", "payout_address", "time_zone", "ssh_key", "box_id"]),
        address in "[0-9a-f:./]{0,30}",
    ) {
        let fields = Fields {
            top: vec![("region", "home".to_owned()), ("broker", "mqtt://a".to_owned())],
            address: Some(address),
            ..Fields::default()
        };
        let _any = read(&fields.to_text());
        let fields = Fields { top: vec![(key, value)], ..Fields::default() };
        let _any = read(&fields.to_text());
    }
}
