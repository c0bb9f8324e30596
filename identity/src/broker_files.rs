//! The access list as Mosquitto reads it: a section for each name, because Mosquitto knows a client by its common name
//! and nothing else of its certificate.
//!
//! What Mosquitto's file cannot say: that requests to any box are read only as a member of the shared subscription
//! (a box may read all of them), and that a client id begins with the certificate's name (a client can push another
//! one out by taking its client id). The embedded broker enforces both.

use std::fmt::Write as _;

use crate::{
    access::{Action, Rule, rules},
    limits::Limits,
    subject::Subject,
};

/// Mosquitto's settings, with which it knows clients by their certificates. Paths are relative to where it is started.
pub const MOSQUITTO_CONF: &str = "\
# Mosquitto 2.0 as the broker of a region. See docs/security.md for what it does not enforce.
#
#   edgectl ca issue --ca ca/online --role broker --name broker --host HOST --out broker
#   edgectl ca acl --ca ca/online > mosquitto.acl
#   edgectl ca crl --ca ca/online > revoked.crl
#   cat broker/region-ca.pem ca/online/intermediate.crt > clients-ca.pem
#
# After an enrolment or a revocation write mosquitto.acl and revoked.crl again, and send SIGHUP.
listener 8883
tls_version tlsv1.3
certfile broker/certificate.pem
keyfile broker/key.pem
cafile clients-ca.pem
crlfile revoked.crl
require_certificate true
use_identity_as_username true
allow_anonymous false
acl_file mosquitto.acl
# Nagle's algorithm would hold each QoS 1 exchange for 40 ms.
set_tcp_nodelay true
message_size_limit 16777216
max_inflight_messages 1000
max_queued_messages 10000
persistence false
";

/// Mosquitto's access list for these names. Whoever is not in it may do nothing.
#[must_use]
pub fn mosquitto_acl<'a>(holders: impl IntoIterator<Item = (&'a Subject, &'a Limits)>) -> String {
    let mut text = String::from("# Written by `edgectl ca acl`. Who is not here may do nothing.\n");
    for (subject, limits) in holders {
        let Subject { role, name, .. } = subject;
        if rules(*role).is_empty() {
            continue;
        }
        // Writing to a string cannot fail.
        let _written = writeln!(text, "\n# {role}\nuser {name}");
        for rule in rules(*role) {
            let access = match rule.action {
                Action::Publish => "write",
                Action::Subscribe => "read",
            };
            for topics in topics(rule, subject, limits) {
                let _written = writeln!(text, "topic {access} {topics}");
            }
        }
    }
    text
}

/// The rule's filters for one holder: one for each model to which it is bound.
fn topics(rule: &Rule, subject: &Subject, limits: &Limits) -> Vec<String> {
    let own = rule
        .topics
        .replace("{region}", subject.region.as_str())
        .replace("{self}", subject.name.as_str());
    if !own.contains("{model}") || limits.models.is_empty() {
        return vec![own.replace("{model}", "+")];
    }
    let models = limits.models.iter();
    models
        .map(|model| own.replace("{model}", model.as_str()))
        .collect()
}

/// RMQTT's settings for its plug-in `rmqtt-acl` (`rmqtt-acl.toml`), with the same rules: RMQTT knows a client by its
/// common name too, as its user name. Its own default lets everybody do everything.
///
/// What it does not enforce: as Mosquitto, and it does not look at wills.
#[must_use]
pub fn rmqtt_acl<'a>(holders: impl IntoIterator<Item = (&'a Subject, &'a Limits)>) -> String {
    let mut text = String::from(
        "# Written by `edgectl ca acl --for rmqtt`. Who is not here may do nothing.\n\
         disconnect_if_pub_rejected = false\npriority = 10\nrules = [\n",
    );
    for (subject, limits) in holders {
        let Subject { role, name, .. } = subject;
        if rules(*role).is_empty() {
            continue;
        }
        let user = format!("{{ user = \"{name}\" }}");
        let _written = writeln!(text, "  # {role}\n  [\"allow\", {user}, \"connect\"],");
        for (action, control) in [
            (Action::Publish, "publish"),
            (Action::Subscribe, "subscribe"),
        ] {
            let allowed = rules(*role).iter().filter(|rule| rule.action == action);
            let filters: Vec<String> = allowed
                .flat_map(|rule| topics(rule, subject, limits))
                .map(|filter| format!("\"{filter}\""))
                .collect();
            if !filters.is_empty() {
                let filters = filters.join(", ");
                let _written = writeln!(text, "  [\"allow\", {user}, \"{control}\", [{filters}]],");
            }
        }
    }
    text + "  [\"deny\", \"all\"]\n]\n"
}
