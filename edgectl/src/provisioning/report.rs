//! What lies on a provisioning partition: lines for people, one JSON object for programs. The token is in neither.

use std::fmt::Write as _;

use edge_protocol::provisioning::{
    FILE, Network, Problem, Provisioning, UPDATE_ROOT_FILE, area::Content, check_update_root,
};
use serde::Serialize;

use super::files;

/// What lies there. Its JSON is `edgectl provision --json`'s output, and keeps its keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The disk or image.
    pub image: String,
    /// `FAT12`, `FAT16` or `FAT32`.
    pub file_system: &'static str,
    /// What the file says; `null` where there is none or it has mistakes.
    pub provisioning: Option<Provisioning>,
    /// Bytes of the trusted root of updates; `null` where there is none.
    pub update_root_bytes: Option<usize>,
    /// All that is wrong.
    pub problems: Vec<Problem>,
}

impl Report {
    /// The report on `content` of `image`.
    #[must_use]
    pub fn new(image: &str, content: &Content) -> Self {
        let whole = |what: String| Problem {
            line: None,
            key: None,
            what,
        };
        let mut problems = Vec::new();
        let provisioning = match &content.provisioning {
            Some(bytes) => files::parse(bytes)
                .map_err(|all| problems.extend(all.0))
                .ok(),
            None => {
                problems.push(whole(format!(
                    "there is no {FILE}; write one with edgectl provision"
                )));
                None
            }
        };
        if content.unfinished {
            problems.push(whole(
                "writing was cut short; write it again with edgectl provision".to_owned(),
            ));
        }
        if let Some(root) = &content.update_root
            && let Err(problem) = check_update_root(root)
        {
            problems.push(whole(problem));
        }
        Self {
            image: image.to_owned(),
            file_system: content.file_system,
            provisioning,
            update_root_bytes: content.update_root.as_ref().map(Vec::len),
            problems,
        }
    }

    /// Lines for people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!(
            "{}: partition \"provisioning\", {}\n",
            self.image, self.file_system
        );
        let mut row = |key: &str, value: &str| {
            let _written = writeln!(text, "  {key:17} {value}");
        };
        if let Some(it) = &self.provisioning {
            row("region", it.region.as_str());
            row("broker", &it.broker);
            let optional = [
                ("indexer", it.indexer.as_deref()),
                ("region CA", it.region_ca_sha256.as_deref()),
                (
                    "enrolment token",
                    it.enrolment_token.as_ref().map(|_| "(set, not shown)"),
                ),
                (
                    "box id",
                    Some(
                        it.box_id
                            .as_ref()
                            .map_or("(made of the box's key)", |id| id.as_str()),
                    ),
                ),
                ("payout address", it.payout_address.as_deref()),
                ("update server", it.update_server.as_deref()),
            ];
            for (key, value) in optional {
                if let Some(value) = value {
                    row(key, value);
                }
            }
            match &it.network {
                Network::Dhcp => row("network", "DHCP"),
                Network::Static {
                    address,
                    prefix,
                    gateway,
                    dns,
                } => {
                    let mut value = format!("{address}/{prefix}");
                    if let Some(gateway) = gateway {
                        let _written = write!(value, ", gateway {gateway}");
                    }
                    if !dns.is_empty() {
                        let dns: Vec<String> = dns.iter().map(ToString::to_string).collect();
                        let _written = write!(value, ", DNS {}", dns.join(" "));
                    }
                    row("network", &value);
                }
            }
            row("time zone", it.time_zone.as_deref().unwrap_or("UTC"));
            for key in &it.ssh_keys {
                row("SSH key", &short(key));
            }
        }
        if let Some(bytes) = self.update_root_bytes {
            row(UPDATE_ROOT_FILE, &format!("{bytes} bytes"));
        }
        for problem in &self.problems {
            let _written = writeln!(text, "! {problem}");
        }
        text
    }
}

/// A key's kind, its last digits and whose it is.
fn short(key: &str) -> String {
    let mut words = key.splitn(3, ' ');
    let kind = words.next().unwrap_or_default();
    let digits: Vec<char> = words.next().unwrap_or_default().chars().collect();
    let end: String = digits
        .iter()
        .skip(digits.len().saturating_sub(12))
        .collect();
    format!("{kind} ..{end} {}", words.next().unwrap_or_default())
        .trim_end()
        .to_owned()
}
