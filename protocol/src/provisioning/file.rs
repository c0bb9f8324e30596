//! The TOML file, read with the lines of its keys. All mistakes are found in one reading.

use std::{collections::BTreeSet, net::IpAddr};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    DNS_MAX, EnrolmentToken, FILE_MAX_BYTES, Network, Problem, Problems, Provisioning,
    SSH_KEYS_MAX, VERSION,
    value::{self, quoted},
};
use crate::Id;

/// Problems that are told at most.
const PROBLEMS_MAX: usize = 20;

const KEYS: &str = "version, region, broker, indexer, region_ca_sha256, enrolment_token, box_id, \
                    payout_address, update_server, time_zone, ssh_key and [network]";
const NETWORK_KEYS: &str = "address, gateway and dns";

/// Reads a provisioning file. `knows_time_zone` says whether a name is in the reader's time zone database.
///
/// # Errors
/// All that is wrong with it, in the order of the lines.
pub fn parse(
    bytes: &[u8],
    knows_time_zone: &dyn Fn(&str) -> bool,
) -> Result<Provisioning, Problems> {
    let whole = |what: &str| {
        Problems(vec![Problem {
            line: None,
            key: None,
            what: what.to_owned(),
        }])
    };
    if bytes.len() > FILE_MAX_BYTES {
        return Err(whole("the file is longer than 64 KiB; write it again"));
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|_| whole("the file is no text in UTF-8; save it as UTF-8, or write it again"))?;
    // Some editors put a byte order mark in front.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader {
        text,
        problems: Vec::new(),
        seen: BTreeSet::new(),
    };
    let table = DeTable::parse(text).map_err(|error| {
        let line = error.span().map(|span| reader.line(span.start));
        // Not the error's own text: it quotes the line, and with it a token.
        let what = format!(
            "the file is no TOML here: {}",
            error.message().replace('\n', ", ")
        );
        Problems(vec![Problem {
            line,
            key: None,
            what,
        }])
    })?;
    let draft = reader.file(table.get_ref(), knows_time_zone);
    reader.finish(draft)
}

/// What was read so far; what is missing or wrong is none.
#[derive(Default)]
struct Draft {
    region: Option<Id>,
    broker: Option<String>,
    indexer: Option<String>,
    region_ca_sha256: Option<String>,
    enrolment_token: Option<EnrolmentToken>,
    box_id: Option<Id>,
    payout_address: Option<String>,
    update_server: Option<String>,
    network: Network,
    time_zone: Option<String>,
    ssh_keys: Vec<String>,
}

struct Reader<'a> {
    text: &'a str,
    problems: Vec<Problem>,
    /// Keys of the file, right or wrong.
    seen: BTreeSet<String>,
}

impl Reader<'_> {
    fn line(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().get(..offset).unwrap_or_default();
        before.iter().filter(|byte| **byte == b'\n').count() + 1
    }

    fn problem(&mut self, offset: Option<usize>, key: &str, what: String) {
        let line = offset.map(|offset| self.line(offset));
        self.problems.push(Problem {
            line,
            key: Some(key.to_owned()),
            what,
        });
    }

    /// A string that `check` takes.
    fn string<T>(
        &mut self,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        check: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let found = match value.get_ref() {
            DeValue::String(text) => check(text),
            other => Err(format!("is {}; write it in quotes", described(other))),
        };
        match found {
            Ok(found) => Some(found),
            Err(what) => {
                self.problem(Some(value.span().start), key, what);
                None
            }
        }
    }

    /// A string or an array of strings, `max` of them at most.
    fn strings<T>(
        &mut self,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        max: usize,
        check: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let DeValue::Array(array) = value.get_ref() else {
            return self.string(key, value, check).into_iter().collect();
        };
        if array.len() > max {
            let what = format!("has {} elements; {max} are taken at most", array.len());
            self.problem(Some(value.span().start), key, what);
        }
        array
            .iter()
            .take(max)
            .filter_map(|element| self.string(key, element, &check))
            .collect()
    }

    fn file(&mut self, table: &DeTable<'_>, knows_time_zone: &dyn Fn(&str) -> bool) -> Draft {
        let mut draft = Draft::default();
        for (key, value) in table {
            let name: &str = key.get_ref();
            self.seen.insert(name.to_owned());
            match name {
                "version" => self.version(value),
                "region" => draft.region = self.string(name, value, value::id),
                "broker" => draft.broker = self.string(name, value, value::broker),
                "indexer" => draft.indexer = self.string(name, value, value::service),
                "region_ca_sha256" => {
                    draft.region_ca_sha256 = self.string(name, value, value::sha256);
                }
                "enrolment_token" => {
                    draft.enrolment_token = self.string(name, value, value::token);
                }
                "box_id" => draft.box_id = self.string(name, value, value::id),
                "payout_address" => {
                    draft.payout_address = self.string(name, value, value::payout_address);
                }
                "update_server" => draft.update_server = self.string(name, value, value::service),
                "time_zone" => {
                    draft.time_zone = self.string(name, value, |text| {
                        if value::is_time_zone_name(text) && knows_time_zone(text) {
                            return Ok(text.to_owned());
                        }
                        Err(format!(
                            "is {}, which is no time zone known here; write one as \"Europe/Berlin\" or \"UTC\"",
                            quoted(text)
                        ))
                    });
                }
                "ssh_key" => {
                    draft.ssh_keys = self.strings(name, value, SSH_KEYS_MAX, value::ssh_key);
                }
                "network" => match value.get_ref() {
                    DeValue::Table(table) => {
                        if let Some(network) = self.network(table, value.span().start) {
                            draft.network = network;
                        }
                    }
                    other => {
                        let what = format!(
                            "is {}; write [network] on a line of its own",
                            described(other)
                        );
                        self.problem(Some(value.span().start), name, what);
                    }
                },
                unknown => {
                    let what = format!("is no key of this file; there are {KEYS}");
                    self.problem(Some(key.span().start), &shown(unknown), what);
                }
            }
        }
        draft
    }

    fn version(&mut self, value: &Spanned<DeValue<'_>>) {
        let found = match value.get_ref() {
            DeValue::Integer(number) => number.to_string(),
            other => described(other),
        };
        if found != VERSION.to_string() {
            let what = format!(
                "is {found}; this program reads version {VERSION}: update it, or write version = {VERSION}"
            );
            self.problem(Some(value.span().start), "version", what);
        }
    }

    fn network(&mut self, table: &DeTable<'_>, start: usize) -> Option<Network> {
        let problems = self.problems.len();
        let mut address: Option<(IpAddr, u8)> = None;
        let mut gateway: Option<(IpAddr, usize)> = None;
        let mut dns = Vec::new();
        for (key, value) in table {
            let name: &str = key.get_ref();
            let full = format!("network.{}", shown(name));
            match name {
                "address" => address = self.string(&full, value, value::host_address),
                "gateway" => {
                    let found = self.string(&full, value, value::ip_address);
                    gateway = found.map(|found| (found, value.span().start));
                }
                "dns" => dns = self.strings(&full, value, DNS_MAX, value::ip_address),
                _ => {
                    let what = format!("is no key of [network]; there are {NETWORK_KEYS}");
                    self.problem(Some(key.span().start), &full, what);
                }
            }
        }
        if self.problems.len() > problems {
            return None;
        }
        let Some((address, prefix)) = address else {
            if gateway.is_some() || !dns.is_empty() {
                let what = "has no address; add one as address = \"192.168.1.20/24\", or leave [network] out for DHCP";
                self.problem(Some(start), "network", what.to_owned());
            }
            return None;
        };
        if let Some((router, start)) = gateway
            && !value::is_neighbour(address, prefix, router)
        {
            let what = format!(
                "is {router}, which a box at {address}/{prefix} does not reach; give the router's address in that network"
            );
            self.problem(Some(start), "network.gateway", what);
            return None;
        }
        Some(Network::Static {
            address,
            prefix,
            gateway: gateway.map(|(router, _)| router),
            dns,
        })
    }

    /// What must be there, and what needs something else.
    fn finish(mut self, draft: Draft) -> Result<Provisioning, Problems> {
        self.problems.sort_by_key(|problem| problem.line);
        let has = |reader: &Self, key: &str| reader.seen.contains(key);
        for (key, example) in [
            ("version", "version = 1"),
            ("region", "region = \"home\""),
            ("broker", "broker = \"mqtts://broker.example\""),
        ] {
            if !has(&self, key) {
                self.problem(None, key, format!("is missing; write {example}"));
            }
        }
        let is_tls = draft
            .broker
            .as_ref()
            .is_some_and(|url| url.starts_with("mqtts://"));
        let has_token = has(&self, "enrolment_token");
        if is_tls || has_token {
            let who = if is_tls {
                "a broker with mqtts://"
            } else {
                "enrolment_token"
            };
            for key in ["indexer", "region_ca_sha256"] {
                if !has(&self, key) {
                    let what = format!(
                        "is missing, and {who} needs it, since the box enrols there and must know whom to believe; ask the \
                         region's operator"
                    );
                    self.problem(None, key, what);
                }
            }
        }
        if is_tls
            && draft
                .indexer
                .as_ref()
                .is_some_and(|url| url.starts_with("http://"))
        {
            let what = "is one without TLS, and a broker with mqtts:// needs https:// there: the box enrols with it";
            self.problem(None, "indexer", what.to_owned());
        }
        self.problems.truncate(PROBLEMS_MAX);
        match (draft.region, draft.broker) {
            (Some(region), Some(broker)) if self.problems.is_empty() => Ok(Provisioning {
                region,
                broker,
                indexer: draft.indexer,
                region_ca_sha256: draft.region_ca_sha256,
                enrolment_token: draft.enrolment_token,
                box_id: draft.box_id,
                payout_address: draft.payout_address,
                update_server: draft.update_server,
                network: draft.network,
                time_zone: draft.time_zone,
                ssh_keys: draft.ssh_keys,
            }),
            _ => Err(Problems(self.problems)),
        }
    }
}

/// A key as it can stand in a line.
fn shown(key: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if !key.is_empty() && key.len() <= 40 && key.chars().all(is_plain) {
        key.to_owned()
    } else {
        quoted(key)
    }
}

/// What a value is. Not what it says: it may be a token without quotes.
fn described(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
    .to_owned()
}
