//! The file as a tool writes it, for an owner to edit later. What is put in is checked by reading the text.

use std::fmt::Write as _;

/// Values as somebody gave them, not checked yet.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Fields {
    /// Keys of the file's top with their values, in the order in which they are written.
    pub top: Vec<(&'static str, String)>,
    /// SSH keys.
    pub ssh_keys: Vec<String>,
    /// `ADDRESS/PREFIX` of a static address.
    pub address: Option<String>,
    /// Its router.
    pub gateway: Option<String>,
    /// Its name servers.
    pub dns: Vec<String>,
}

impl Fields {
    /// The file.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::from(
            "# What this box is told before its first start. Any text editor changes it; the box reads it at each start.\n\
             # docs/flashing.md, \"First start\", lists the keys.\n\nversion = 1\n",
        );
        let mut line = |key: &str, value: String| {
            let _written = writeln!(text, "{key} = {value}");
        };
        for (key, value) in &self.top {
            line(key, string(value));
        }
        if !self.ssh_keys.is_empty() {
            line("ssh_key", array(&self.ssh_keys));
        }
        if self.address.is_some() || self.gateway.is_some() || !self.dns.is_empty() {
            text.push_str("\n[network]\n");
            let mut line = |key: &str, value: String| {
                let _written = writeln!(text, "{key} = {value}");
            };
            if let Some(address) = &self.address {
                line("address", string(address));
            }
            if let Some(gateway) = &self.gateway {
                line("gateway", string(gateway));
            }
            if !self.dns.is_empty() {
                line("dns", array(&self.dns));
            }
        }
        text
    }
}

fn string(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn array(texts: &[String]) -> String {
    let texts: Vec<String> = texts.iter().map(|text| string(text)).collect();
    format!("[{}]", texts.join(", "))
}
