//! What a value must be. Each function takes what is written and returns what it means, or words that follow the key's
//! name: what is wrong and what to do.

use std::net::IpAddr;

use serde::Deserialize;
use sha3::{Digest as _, Keccak256};
use ssh_key::{Algorithm, PublicKey};

use super::{EnrolmentToken, FILE_MAX_BYTES, UPDATE_ROOT_FILE};
use crate::{BrokerUrl, Id};

/// Longest value that is quoted whole in a problem.
const QUOTED_MAX_CHARS: usize = 60;
/// Longest address of a service, SSH key and token.
const ADDRESS_MAX_BYTES: usize = 512;
const SSH_KEY_MAX_BYTES: usize = 8 * 1024;
const TOKEN_BYTES: std::ops::RangeInclusive<usize> = 8..=512;

/// A foreigner's text as it can stand in a line.
pub(super) fn quoted(text: &str) -> String {
    if text.chars().count() <= QUOTED_MAX_CHARS {
        return format!("{text:?}");
    }
    let start: String = text.chars().take(QUOTED_MAX_CHARS).collect();
    format!("{start:?}...")
}

pub(super) fn id(text: &str) -> Result<Id, String> {
    Id::new(text).map_err(|error| format!("is {}: {error}", quoted(text)))
}

pub(super) fn broker(text: &str) -> Result<String, String> {
    let form = "write mqtt://HOST:PORT, or mqtts://HOST:PORT for TLS";
    let rest = text
        .strip_prefix("mqtt://")
        .or_else(|| text.strip_prefix("mqtts://"))
        .filter(|rest| is_authority(rest.strip_suffix('/').unwrap_or(rest)));
    match rest {
        Some(_) => Ok(text.to_owned()),
        None => Err(format!(
            "is {}, which is no broker's address; {form}",
            quoted(text)
        )),
    }
}

pub(super) fn service(text: &str) -> Result<String, String> {
    let form =
        "write http://HOST:PORT/PATH or https://HOST:PORT/PATH, without user name or parameters";
    let rest = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"));
    let is_address = rest.is_some_and(|rest| {
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let is_plain =
            |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '~' | '-');
        is_authority(authority) && path.chars().all(is_plain)
    });
    if is_address && text.len() <= ADDRESS_MAX_BYTES {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "is {}, which is no service's address; {form}",
            quoted(text)
        ))
    }
}

/// `HOST` or `HOST:PORT`, as the broker's address has it.
fn is_authority(text: &str) -> bool {
    text.len() <= ADDRESS_MAX_BYTES
        && !text.contains('/')
        && format!("mqtt://{text}").parse::<BrokerUrl>().is_ok()
}

/// 32 bytes in hexadecimal, as `sha256sum` (plain) and `openssl x509 -fingerprint` (with colons) print them.
pub(super) fn sha256(text: &str) -> Result<String, String> {
    let digits: String = text.chars().filter(|c| *c != ':').collect();
    if digits.len() == 64 && digits.chars().all(|c| c.is_ascii_hexdigit()) {
        Ok(digits.to_ascii_lowercase())
    } else {
        Err(format!(
            "is {}, which is no SHA-256; write the 64 digits that \
             `openssl x509 -in ca.pem -noout -fingerprint -sha256` prints",
            quoted(text)
        ))
    }
}

/// The value is not quoted, nor its length told.
pub(super) fn token(text: &str) -> Result<EnrolmentToken, String> {
    let is_visible = text.chars().all(|c| c.is_ascii_graphic());
    if is_visible && TOKEN_BYTES.contains(&text.len()) {
        Ok(EnrolmentToken(text.to_owned()))
    } else {
        Err(format!(
            "is no token: one has {} to {} visible characters without spaces; copy it whole",
            TOKEN_BYTES.start(),
            TOKEN_BYTES.end()
        ))
    }
}

/// An address with the checksum of EIP-55: letters are upper case where the Keccak-256 of the lower-case digits says so.
pub(super) fn payout_address(text: &str) -> Result<String, String> {
    let form = "write 0x and 40 digits, with upper and lower case as your wallet shows them";
    let digits = text
        .strip_prefix("0x")
        .filter(|digits| digits.len() == 40 && digits.chars().all(|c| c.is_ascii_hexdigit()))
        .ok_or_else(|| format!("is {}, which is no address; {form}", quoted(text)))?;
    let lower = digits.to_ascii_lowercase();
    if lower.chars().all(|c| c == '0') {
        return Err("is the zero address: what is paid there is lost; give your own".to_owned());
    }
    let hash = Keccak256::digest(lower.as_bytes());
    let nibbles = hash.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    let checked: String = lower
        .chars()
        .zip(nibbles)
        .map(|(digit, nibble)| {
            if nibble >= 8 {
                digit.to_ascii_uppercase()
            } else {
                digit
            }
        })
        .collect();
    if digits == checked {
        return Ok(text.to_owned());
    }
    let has_no_checksum = digits == lower || digits == digits.to_ascii_uppercase();
    Err(if has_no_checksum {
        format!(
            "has no checksum, so a wrong digit would go unseen; if it is right, write \"0x{checked}\""
        )
    } else {
        format!(
            "is {}, whose checksum (EIP-55) is wrong: a digit is mistyped; copy it from your wallet",
            quoted(text)
        )
    })
}

/// The form of a time zone's name; whether it exists is for the caller's table.
pub(super) fn is_time_zone_name(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '+');
    text.len() <= 64
        && text
            .split('/')
            .all(|part| !part.is_empty() && part.chars().all(is_plain))
}

/// One line of an `authorized_keys` file without options.
pub(super) fn ssh_key(text: &str) -> Result<String, String> {
    let text = text.trim();
    let form = "write the one line of a .pub file, such as \"ssh-ed25519 AAAA... me@home\"";
    let wrong = |why: &str| Err(format!("is no SSH public key: {why}; {form}"));
    if text.len() > SSH_KEY_MAX_BYTES {
        return wrong("it is too long");
    }
    if text.contains("PRIVATE KEY") {
        return wrong("it is a private key, which must not leave your computer");
    }
    if text.chars().any(char::is_control) {
        return wrong("it has control characters or more than one line");
    }
    let Ok(key) = PublicKey::from_openssh(text) else {
        return wrong("it is damaged, of an unknown kind, or has options in front");
    };
    match key.algorithm() {
        Algorithm::Ed25519
        | Algorithm::Ecdsa { .. }
        | Algorithm::Rsa { .. }
        | Algorithm::SkEd25519
        | Algorithm::SkEcdsaSha2NistP256 => Ok(text.to_owned()),
        _ => wrong("keys of this kind are not taken; use ssh-ed25519"),
    }
}

/// `ADDRESS/PREFIX`, of one host.
pub(super) fn host_address(text: &str) -> Result<(IpAddr, u8), String> {
    let wrong = || {
        format!(
            "is {}, which is no address; write ADDRESS/PREFIX, such as \"192.168.1.20/24\"",
            quoted(text)
        )
    };
    let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
    let bits = if address.is_ipv4() { 32 } else { 128 };
    if prefix == 0 || prefix > bits || !is_host(address) {
        return Err(wrong());
    }
    let ends = |all_ones| is_all(host_bits(address, prefix), bits - prefix, all_ones);
    if address.is_ipv4() && prefix < 31 && (ends(true) || ends(false)) {
        return Err(format!(
            "is {}, which names the network itself, not a box in it; choose another last number",
            quoted(text)
        ));
    }
    Ok((address, prefix))
}

pub(super) fn ip_address(text: &str) -> Result<IpAddr, String> {
    text.parse()
        .ok()
        .filter(|address| is_host(*address))
        .ok_or_else(|| {
            format!(
                "is {}, which is no address of a machine; write it as \"192.168.1.1\"",
                quoted(text)
            )
        })
}

/// Whether a box at `address` reaches `gateway` without a router.
pub(super) fn is_neighbour(address: IpAddr, prefix: u8, gateway: IpAddr) -> bool {
    match (address, gateway) {
        (IpAddr::V4(_), IpAddr::V4(_)) => {
            address != gateway && network_bits(address, prefix) == network_bits(gateway, prefix)
        }
        (IpAddr::V6(_), IpAddr::V6(router)) => {
            let is_link_local = router
                .segments()
                .first()
                .is_some_and(|first| first & 0xffc0 == 0xfe80);
            address != gateway
                && (is_link_local || network_bits(address, prefix) == network_bits(gateway, prefix))
        }
        _ => false,
    }
}

fn is_host(address: IpAddr) -> bool {
    let is_broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    !address.is_unspecified() && !address.is_loopback() && !address.is_multicast() && !is_broadcast
}

fn number(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    }
}

fn network_bits(address: IpAddr, prefix: u8) -> u128 {
    let (number, bits) = number(address);
    number
        .checked_shr(u32::from(bits.saturating_sub(prefix)))
        .unwrap_or(0)
}

fn host_bits(address: IpAddr, prefix: u8) -> u128 {
    let (number, bits) = number(address);
    let width = u32::from(bits.saturating_sub(prefix));
    let mask = 1_u128.checked_shl(width).map_or(u128::MAX, |bit| bit - 1);
    number & mask
}

fn is_all(number: u128, width: u8, ones: bool) -> bool {
    let full = 1_u128
        .checked_shl(u32::from(width))
        .map_or(u128::MAX, |bit| bit - 1);
    number == if ones { full } else { 0 }
}

/// Checks that `bytes` can be the trusted root of a TUF repository: JSON whose `signed` part has the type `root`, with
/// signatures. Whether they are right is for the updater to say.
///
/// # Errors
/// What is wrong and what to do, in one line.
pub fn check_update_root(bytes: &[u8]) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Root {
        signed: Signed,
        signatures: Vec<serde::de::IgnoredAny>,
    }
    #[derive(Deserialize)]
    struct Signed {
        #[serde(rename = "_type")]
        kind: String,
        version: u64,
    }
    let what_to_do = "copy root.json of your update repository";
    if bytes.len() > FILE_MAX_BYTES {
        return Err(format!(
            "{UPDATE_ROOT_FILE} is longer than 64 KiB; {what_to_do}"
        ));
    }
    let root: Root = serde_json::from_slice(bytes).map_err(|error| {
        format!("{UPDATE_ROOT_FILE} is no root of a TUF repository ({error}); {what_to_do}")
    })?;
    if root.signed.kind != "root" || root.signed.version == 0 || root.signatures.is_empty() {
        return Err(format!(
            "{UPDATE_ROOT_FILE} is no signed root of a TUF repository; {what_to_do}"
        ));
    }
    Ok(())
}
