//! What the rest of the system reads of a provisioning: files below `/run`, as values. Nothing is written here.

use std::path::{Path, PathBuf};

use edge_protocol::provisioning::{Network, Provisioning};

use super::decide::Accepted;

/// The agent's settings; the agent's unit does not start without them.
pub(super) const SETTINGS: &str = "agent.toml";
/// The enrolment token, for the agent alone.
const TOKEN: &str = "enrolment-token";
/// Who may log in.
const KEYS: &str = "authorized_keys";
/// The trusted root of updates.
const UPDATE_ROOT: &str = "update-root.json";
/// The time zone, to which the image's `/etc/localtime` points.
const TIME_ZONE: &str = "localtime";

/// A file below `/run`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RunFile {
    /// Where, from the root folder.
    pub(super) path: PathBuf,
    pub(super) content: Content,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    /// For everybody to read.
    Public(Vec<u8>),
    /// For the agent's user alone.
    Agent(Vec<u8>),
    /// A symbolic link.
    Link(PathBuf),
    /// There must be none.
    Absent,
}

/// Where things lie, from the root folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    /// Our folder, such as `/run/edge`.
    pub(super) run: PathBuf,
    /// Folder of the time zone database.
    pub(super) zones: PathBuf,
    /// Folder of networkd's run-time configuration.
    pub(super) networkd: PathBuf,
}

/// All files of a box that is called `box_id` and goes by `accepted`. A box without provisioning gets its address by
/// DHCP, and no agent.
pub(super) fn files(
    accepted: Option<&Accepted>,
    box_id: Option<&str>,
    layout: &Layout,
) -> Vec<RunFile> {
    let provisioning = accepted.map(|accepted| &accepted.provisioning);
    let in_run = |name: &str, content: Option<Content>| RunFile {
        path: layout.run.join(name),
        content: content.unwrap_or(Content::Absent),
    };
    let public = |text: String| Content::Public(text.into_bytes());
    let token = provisioning.and_then(|it| it.enrolment_token.as_ref());
    let settings = provisioning
        .zip(box_id)
        .map(|(provisioning, box_id)| settings(provisioning, box_id, &layout.run));
    let keys = provisioning.filter(|it| !it.ssh_keys.is_empty());
    let update_root = accepted.and_then(|accepted| accepted.update_root.clone());
    let zone = provisioning.and_then(|it| it.time_zone.as_deref());
    vec![
        in_run(
            TOKEN,
            token.map(|token| Content::Agent(token.reveal().as_bytes().to_vec())),
        ),
        in_run(KEYS, keys.map(|it| public(it.ssh_keys.join("\n") + "\n"))),
        in_run(UPDATE_ROOT, update_root.map(Content::Public)),
        in_run(
            TIME_ZONE,
            Some(Content::Link(layout.zones.join(zone.unwrap_or("UTC")))),
        ),
        RunFile {
            path: layout.networkd.join("10-edge.network"),
            content: public(network(
                provisioning.map_or(&Network::Dhcp, |it| &it.network),
            )),
        },
        // Last: what the agent waits for.
        in_run(SETTINGS, settings.map(public)),
    ]
}

/// The agent's settings file. The values were checked and hold no quotes or backslashes, but are escaped all the same.
pub(super) fn settings(provisioning: &Provisioning, box_id: &str, run: &Path) -> String {
    let mut text =
        String::from("# Made at each start out of provisioning.toml; changes here are lost.\n");
    let mut line = |key: &str, value: &str| {
        let value = toml::Value::String(value.to_owned());
        text.push_str(&format!("{key} = {value}\n"));
    };
    line("region", provisioning.region.as_str());
    line("box_id", box_id);
    line("broker", &provisioning.broker);
    for (key, value) in [
        ("indexer", &provisioning.indexer),
        ("update_server", &provisioning.update_server),
    ] {
        if let Some(value) = value {
            line(key, value);
        }
    }
    if let Some(sha256) = &provisioning.region_ca_sha256 {
        line("region_ca_sha256", sha256);
    }
    if provisioning.enrolment_token.is_some() {
        line(
            "enrolment_token_file",
            &run.join(TOKEN).display().to_string(),
        );
    }
    text
}

/// A file of systemd.network(5) for every Ethernet link.
fn network(network: &Network) -> String {
    let mut text = String::from(
        "# Made at each start out of provisioning.toml; changes here are lost.\n[Match]\nType=ether\n\n[Network]\n",
    );
    match network {
        // The name is the box's id, whatever the network calls it.
        Network::Dhcp => {
            text.push_str("DHCP=yes\n\n[DHCPv4]\nUseHostname=no\n\n[DHCPv6]\nUseHostname=no\n");
        }
        Network::Static {
            address,
            prefix,
            gateway,
            dns,
        } => {
            text.push_str(&format!("Address={address}/{prefix}\n"));
            if let Some(gateway) = gateway {
                text.push_str(&format!("Gateway={gateway}\n"));
            }
            for server in dns {
                text.push_str(&format!("DNS={server}\n"));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use edge_protocol::provisioning;

    use super::*;

    #[test]
    fn the_token_is_for_the_agent_alone() {
        let token = "one-time-token-1";
        let text = format!(
            "version = 1\nregion = \"home\"\nbroker = \"mqtt://a\"\nindexer = \"http://a\"\n\
             region_ca_sha256 = \"{}\"\nenrolment_token = \"{token}\"\n",
            "ab".repeat(32)
        );
        let accepted = Accepted {
            provisioning: provisioning::parse(text.as_bytes(), &|_| false).unwrap(),
            update_root: None,
        };
        let layout = Layout {
            run: PathBuf::from("/run/edge"),
            zones: PathBuf::from("/zones"),
            networkd: PathBuf::from("/networkd"),
        };
        let files = files(Some(&accepted), Some("box-1"), &layout);
        let with_token = |content: &Content| match content {
            Content::Public(bytes) => String::from_utf8_lossy(bytes).contains(token),
            _ => false,
        };
        assert!(!files.iter().any(|file| with_token(&file.content)));
        assert_eq!(files[0].content, Content::Agent(token.into()));
        let settings = settings(&accepted.provisioning, "box-1", &layout.run);
        assert!(settings.contains("enrolment_token_file = \"/run/edge/enrolment-token\"\n"));
    }
}
