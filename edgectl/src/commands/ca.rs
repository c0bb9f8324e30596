//! `edgectl ca`: the region's certificate authority, on the machine that holds its folder.

use std::{
    fs,
    io::{self, IsTerminal as _, Write as _},
    num::NonZeroU32,
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use edge_identity::{
    authority::{Lifetime, NewAuthority, new_key},
    broker_files::{mosquitto_acl, rmqtt_acl},
    folder,
    key::{CertificateFingerprint, KeyFingerprint},
    limits::{Limits, MODELS_MAX},
    registry::{ApiToken, KnownHolder, RegistryError, WaitingKey},
    scope::Scope,
    subject::{Role, Subject},
};
use edge_protocol::Id;

use crate::{
    exit::Exit,
    own_identity::{CERTIFICATE, KEY, REGION_CA},
};

const DAY_S: u64 = 24 * 3_600;
/// The root's key, encrypted.
const ROOT_KEY: &str = "root.key";
/// Shortest passphrase that is taken for a new root.
const PASSPHRASE_MIN: usize = 12;

/// Arguments of `edgectl ca`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  A region's authority: ca/offline goes onto a stick and into a drawer, ca/online to the indexer:
    edgectl ca init --region home --out ca
    edge-indexer run --region home --ca ca/online ...

  An intermediate of an authority that you have already:
    edgectl ca request --region home --out online
    edgectl ca adopt --ca online --certificate signed.crt --root root.crt

  A box that comes with a token:
    edgectl ca token --ca ca/online --name box-1 > token
    edgectl ca fingerprint --ca ca/online

  A box that comes without one, and shows its fingerprint:
    edgectl ca pending --ca ca/online
    edgectl ca approve --ca ca/online box-1 \"a1e9 1560 ...\"

  A certificate for a camera, by hand:
    edgectl ca issue --ca ca/online --role sensor --name cam-1 --out cam-1

  A token for a camera that makes its own key, and asks one model, 60 times a minute at most:
    edgectl ca token --ca ca/online --role sensor --name cam-2 --model digits --per-minute 60

  A box that was stolen:
    edgectl ca revoke --ca ca/online box-1")]
pub struct CaArgs {
    #[command(subcommand)]
    command: CaCommand,
}

#[derive(Debug, Subcommand)]
enum CaCommand {
    /// Make a region's authority: an offline root, and the intermediate that issues in its name.
    Init {
        /// The region.
        #[arg(long, env = "EDGE_REGION")]
        region: Id,
        /// Folder to make; gets the parts `offline` and `online`.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        #[command(flatten)]
        passphrase: Passphrase,
        /// Years that the root holds.
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=50))]
        years: u64,
        /// Years that the intermediate holds.
        #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=50))]
        intermediate_years: u64,
    },
    /// Make another intermediate of the same root, when the old one ends or has leaked.
    Intermediate {
        /// The root's folder: the part named `offline`.
        #[arg(long, value_name = "DIR")]
        offline: PathBuf,
        /// Folder to make; gets intermediate.crt, intermediate.key and root.crt.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        #[command(flatten)]
        passphrase: Passphrase,
        /// Years that it holds.
        #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=50))]
        years: u64,
    },
    /// Make the key of an intermediate, and a request for an authority that you have already to sign.
    Request {
        /// The region.
        #[arg(long, env = "EDGE_REGION")]
        region: Id,
        /// Folder to make; gets intermediate.key and intermediate.csr, and is the authority's folder later.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Take the certificate that your authority made of the request, and its root.
    Adopt {
        #[command(flatten)]
        ca: Folder,
        /// The intermediate's certificate, as PEM.
        #[arg(long, value_name = "FILE")]
        certificate: PathBuf,
        /// The root that signed it, as PEM.
        #[arg(long, value_name = "FILE")]
        root: PathBuf,
    },
    /// Print the fingerprint of the root: what boxes know their region by.
    Fingerprint(Folder),
    /// Make a key and its certificate, for who does not enrol by itself.
    Issue {
        #[command(flatten)]
        ca: Folder,
        /// What it is: sensor, app, checker, admin; broker for a broker beside the indexer.
        #[arg(long)]
        role: Role,
        /// Its name, which is also the beginning of its MQTT client ids and the end of its request topics.
        #[arg(long)]
        name: Id,
        /// Folder to make; gets certificate.pem, key.pem and region-ca.pem.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Days that it holds.
        #[arg(long, value_name = "N", default_value_t = 365, value_parser = clap::value_parser!(u64).range(1..=3_650))]
        days: u64,
        /// A name or address by which others reach it, for servers; may be given several times.
        #[arg(long, value_name = "HOST")]
        host: Vec<String>,
        #[command(flatten)]
        bounds: Bounds,
    },
    /// Make a token with which one key enrols, and print it.
    Token {
        #[command(flatten)]
        ca: Folder,
        /// The name that it is for [default: any that is free].
        #[arg(long)]
        name: Option<Id>,
        /// What it enrols: box, sensor, app, checker.
        #[arg(long, default_value = "box")]
        role: Role,
        /// Hours that it can be used.
        #[arg(long, value_name = "N", default_value_t = 72, value_parser = clap::value_parser!(u64).range(1..=8_760))]
        hours: u64,
        #[command(flatten)]
        bounds: Bounds,
    },
    /// Make a token with which a program reads the indexer's HTTPS API, and print it. One of the same name ends.
    ApiToken {
        #[command(flatten)]
        ca: Folder,
        /// Whose it is, such as grafana.
        #[arg(long)]
        name: Id,
        /// What it lets read: region, boxes, metrics; may be given several times.
        #[arg(long, value_name = "SCOPE", required = true)]
        scope: Vec<Scope>,
        /// Days that it holds.
        #[arg(long, value_name = "N", default_value_t = 90, value_parser = clap::value_parser!(u64).range(1..=3_650))]
        days: u64,
    },
    /// Show the keys that wait for approval.
    Pending(Folder),
    /// Let a key that waits have its certificate.
    Approve {
        #[command(flatten)]
        ca: Folder,
        /// Its name.
        name: Id,
        /// Its fingerprint, as the box shows it, with or without spaces.
        fingerprint: KeyFingerprint,
        #[command(flatten)]
        bounds: Bounds,
    },
    /// Show whom the region knows.
    List(Folder),
    /// Bind who has this name to models and to a number of requests, at once; without either, free it of both.
    Limit {
        #[command(flatten)]
        ca: Folder,
        /// Its name.
        name: Id,
        #[command(flatten)]
        bounds: Bounds,
    },
    /// Take all rights from who has this name, at once and for ever; end a token for the API.
    Revoke {
        #[command(flatten)]
        ca: Folder,
        /// Its name.
        name: Id,
    },
    /// Print the access list of everybody that the region knows, for a broker beside the indexer.
    Acl {
        #[command(flatten)]
        ca: Folder,
        /// The broker that reads it.
        #[arg(long = "for", value_enum, default_value_t = Reader::Mosquitto)]
        reader: Reader,
    },
    /// Print the list of revoked certificates, for brokers that read one.
    Crl {
        #[command(flatten)]
        ca: Folder,
        /// Days until a newer list is due.
        #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3_650))]
        days: u64,
    },
}

#[derive(Debug, Args)]
struct Folder {
    /// The authority's folder: the part named `online`.
    #[arg(long, env = "EDGE_CA", value_name = "DIR")]
    ca: PathBuf,
}

/// Who reads an access list.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Reader {
    /// Mosquitto's acl_file.
    Mosquitto,
    /// RMQTT's rmqtt-acl.toml.
    Rmqtt,
}

/// Limits of a sensor or an application, as flags.
#[derive(Debug, Args)]
struct Bounds {
    /// A model that it may ask; may be given several times [default: any].
    #[arg(long, value_name = "MODEL")]
    model: Vec<Id>,
    /// How often it may publish in a minute [default: as often as boxes answer].
    #[arg(long, value_name = "N")]
    per_minute: Option<NonZeroU32>,
}

impl Bounds {
    /// For who has `role`; only those who ask models are bound.
    fn limits(self, role: Role) -> anyhow::Result<Limits> {
        let limits = Limits {
            models: self.model,
            per_minute: self.per_minute,
        };
        anyhow::ensure!(
            limits.are_none() || matches!(role, Role::Sensor | Role::App),
            "--model and --per-minute bind sensors and apps, and this is a {role}"
        );
        anyhow::ensure!(
            limits.models.len() <= MODELS_MAX,
            "a holder is bound to at most {MODELS_MAX} models"
        );
        Ok(limits)
    }
}

#[derive(Debug, Args)]
struct Passphrase {
    /// File whose first line is the passphrase of the root's key [default: asks].
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl Passphrase {
    fn read(&self, is_new: bool) -> anyhow::Result<zeroize::Zeroizing<String>> {
        let passphrase = match &self.passphrase_file {
            Some(path) => {
                let text = folder::read(path)?;
                zeroize::Zeroizing::new(text.lines().next().unwrap_or_default().to_owned())
            }
            None => {
                anyhow::ensure!(
                    io::stdin().is_terminal(),
                    "there is no terminal to ask for the passphrase; give --passphrase-file"
                );
                let ask = |prompt| {
                    rpassword::prompt_password(prompt)
                        .map(zeroize::Zeroizing::new)
                        .context("cannot read the passphrase")
                };
                let first = ask("Passphrase of the root's key: ")?;
                if is_new {
                    anyhow::ensure!(
                        *first == *ask("Again: ")?,
                        "the two passphrases differ; nothing was made"
                    );
                }
                first
            }
        };
        anyhow::ensure!(
            !is_new || passphrase.chars().count() >= PASSPHRASE_MIN,
            "the passphrase needs at least {PASSPHRASE_MIN} characters: who finds the stick can try as often as he likes"
        );
        Ok(passphrase)
    }
}

/// Runs the command.
///
/// # Errors
/// An unusable folder, and whatever the authority refuses.
pub fn run(args: CaArgs) -> anyhow::Result<Exit> {
    let now_s = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("the clock of this machine stands before 1970")?
        .as_secs();
    let lasting = |days: u64| Lifetime {
        now_s,
        for_s: days * DAY_S,
    };
    match args.command {
        CaCommand::Init {
            region,
            out,
            passphrase,
            years,
            intermediate_years,
        } => {
            let passphrase = passphrase.read(true)?;
            let root = NewAuthority::root(&region, lasting(years * 365))?;
            let (offline, online) = (out.join("offline"), out.join("online"));
            folder::make(&offline)?;
            let key = root.encrypted_key_pem(&passphrase)?;
            folder::write_new(&offline.join(ROOT_KEY), &key, 0o600)?;
            folder::write_new(&offline.join(folder::ROOT), &root.certificate_pem, 0o644)?;
            folder::write_intermediate(&root, &region, lasting(intermediate_years * 365), &online)?;
            folder::open(&online)?;
            say(&format!(
                "Region {region} has its authority.\n\
                 fingerprint  {}\n\
                 offline      {}: take it away; it is needed only for another intermediate\n\
                 online       {}: for edge-indexer run --ca",
                CertificateFingerprint::of(&root.certificate),
                offline.display(),
                online.display()
            ))
        }
        CaCommand::Intermediate {
            offline,
            out,
            passphrase,
            years,
        } => {
            let path = offline.join(folder::ROOT);
            let certificate = folder::certificate(&path)?;
            let pem = folder::read(&path)?.to_string();
            let key = folder::read_private(&offline.join(ROOT_KEY))?;
            let root = NewAuthority::open(certificate, pem, &key, &passphrase.read(false)?)?;
            let region = root.region()?;
            folder::write_intermediate(&root, &region, lasting(years * 365), &out)?;
            say(&format!(
                "Put {0}/{1} and {0}/{2} in the place of the old ones, and start the indexer again.",
                out.display(),
                folder::INTERMEDIATE,
                folder::INTERMEDIATE_KEY
            ))
        }
        CaCommand::Request { region, out } => {
            folder::request_intermediate(&region, &out)?;
            say(&format!(
                "Have {} signed as an authority (basicConstraints CA:TRUE with pathlen:0, keyUsage keyCertSign and \
                 cRLSign) that keeps its subject, then: edgectl ca adopt --ca {} --certificate FILE --root FILE",
                out.join(folder::INTERMEDIATE_REQUEST).display(),
                out.display()
            ))
        }
        CaCommand::Adopt {
            ca: Folder { ca },
            certificate,
            root,
        } => {
            let authority = folder::adopt(&ca, &certificate, &root)?;
            say(&format!(
                "Region {} has its authority.\nfingerprint  {}",
                authority.region(),
                CertificateFingerprint::of(authority.root())
            ))
        }
        CaCommand::Fingerprint(Folder { ca }) => {
            let root = folder::certificate(&ca.join(folder::ROOT))?;
            say(&CertificateFingerprint::of(&root).to_string())
        }
        CaCommand::Issue {
            ca: Folder { ca },
            role,
            name,
            out,
            days,
            host,
            bounds,
        } => {
            let limits = bounds.limits(role)?;
            anyhow::ensure!(
                role.is_server() || host.is_empty(),
                "only servers are reached by a --host, and a {role} is none"
            );
            let (authority, mut registry) = folder::open(&ca)?;
            let subject = Subject {
                region: authority.region().clone(),
                role,
                name,
            };
            folder::make(&out)?;
            let (key, public) = new_key()?;
            let key_file = out.join(KEY);
            folder::write_new(&key_file, &key, 0o600)?;
            let issued = registry
                .issue(&authority, &subject, &public, lasting(days), &host)
                .inspect_err(|_| {
                    // Nobody knows that key.
                    let _removed = fs::remove_file(&key_file);
                })?;
            // Before anybody has the certificate.
            registry.limit(&subject.name, &limits)?;
            let root = authority.root_pem()?;
            let mut chain = issued.pem + &authority.intermediate_pem()?;
            if role.is_server() {
                // Boxes that know only the fingerprint need to see the root itself.
                chain += &root;
            }
            folder::write_new(&out.join(CERTIFICATE), &chain, 0o644)?;
            folder::write_new(&out.join(REGION_CA), &root, 0o644)?;
            say(&format!("{subject}: {}, for {days} days", out.display()))
        }
        CaCommand::Token {
            ca: Folder { ca },
            name,
            role,
            hours,
            bounds,
        } => {
            anyhow::ensure!(
                role.enrols(),
                "a {role} does not enrol; use `edgectl ca issue`"
            );
            let (_, mut registry) = folder::open(&ca)?;
            let expires_s = now_s + hours * 3_600;
            let limits = bounds.limits(role)?;
            let token = registry.new_token(name.as_ref(), role, &limits, expires_s, now_s)?;
            say(token.reveal())
        }
        CaCommand::ApiToken {
            ca: Folder { ca },
            name,
            scope,
            days,
        } => {
            let (_, mut registry) = folder::open(&ca)?;
            let token = registry.new_api_token(&ApiToken {
                name,
                scopes: scope,
                expires_s: now_s + days * DAY_S,
            })?;
            say(token.reveal())
        }
        CaCommand::Pending(Folder { ca }) => {
            let (_, registry) = folder::open(&ca)?;
            say(&waiting_table(&registry.waiting(now_s)?, now_s))
        }
        CaCommand::Approve {
            ca: Folder { ca },
            name,
            fingerprint,
            bounds,
        } => {
            let (_, mut registry) = folder::open(&ca)?;
            let waiting = registry.waiting(now_s)?;
            let asked = waiting.iter().find(|key| key.key == fingerprint);
            // Who does not wait is told so below.
            let limits = bounds.limits(asked.map_or(Role::Sensor, |key| key.role))?;
            registry.approve(&name, fingerprint, &limits)?;
            say(&format!(
                "{name} is approved: it gets its certificate when it asks next, within a minute"
            ))
        }
        CaCommand::List(Folder { ca }) => {
            let (_, registry) = folder::open(&ca)?;
            let mut tokens: Vec<ApiToken> = registry.rights()?.api.into_values().collect();
            tokens.sort_by(|one, other| one.name.cmp(&other.name));
            let table = holders_table(&registry.holders()?, now_s);
            say(&(table + &tokens_table(&tokens, now_s)))
        }
        CaCommand::Limit {
            ca: Folder { ca },
            name,
            bounds,
        } => {
            let (_, mut registry) = folder::open(&ca)?;
            let holders = registry.holders()?;
            let holder = holders
                .iter()
                .find(|holder| holder.name == name && holder.revoked_s.is_none());
            let limits = bounds.limits(holder.map_or(Role::Sensor, |holder| holder.role))?;
            registry.limit(&name, &limits)?;
            if limits.are_none() {
                say(&format!("{name} may do what its role may"))
            } else {
                say(&format!("{name} is bound to {limits}"))
            }
        }
        CaCommand::Revoke {
            ca: Folder { ca },
            name,
        } => {
            let (_, mut registry) = folder::open(&ca)?;
            let had_token = registry.end_api_token(&name)?;
            match registry.revoke(&name, now_s) {
                Err(RegistryError::NobodyKnown(_)) if had_token => say(&format!(
                    "the token for the API of {name} has ended: a running indexer refuses it within a second"
                )),
                Err(error) => Err(error.into()),
                Ok(key) => say(&format!(
                    "{name} is revoked, with its key {key}: a running indexer ends its connections within a second"
                )),
            }
        }
        CaCommand::Acl {
            ca: Folder { ca },
            reader,
        } => {
            let (authority, registry) = folder::open(&ca)?;
            let known: Vec<(Subject, Limits)> = registry
                .holders()?
                .into_iter()
                .filter(|holder| holder.revoked_s.is_none())
                .map(|holder| {
                    let subject = Subject {
                        region: authority.region().clone(),
                        role: holder.role,
                        name: holder.name,
                    };
                    (subject, holder.limits)
                })
                .collect();
            let known = known.iter().map(|(subject, limits)| (subject, limits));
            let list = match reader {
                Reader::Mosquitto => mosquitto_acl(known),
                Reader::Rmqtt => rmqtt_acl(known),
            };
            say(list.trim_end())
        }
        CaCommand::Crl {
            ca: Folder { ca },
            days,
        } => {
            let (authority, registry) = folder::open(&ca)?;
            let serials = registry.revoked_serials(now_s)?;
            say(authority
                .revocation_list(&serials, lasting(days))?
                .trim_end())
        }
    }
}

fn say(text: &str) -> anyhow::Result<Exit> {
    writeln!(io::stdout(), "{text}").context("cannot write to standard output")?;
    Ok(Exit::Done)
}

fn waiting_table(waiting: &[WaitingKey], now_s: u64) -> String {
    if waiting.is_empty() {
        return "No key waits for approval.".to_owned();
    }
    let mut lines =
        vec!["Compare the fingerprint with what the box shows, then approve it:".to_owned()];
    for key in waiting {
        let minutes = now_s.saturating_sub(key.seen_s) / 60;
        let state = if key.is_approved { ", approved" } else { "" };
        lines.push(format!(
            "{} {} (asked {minutes} min ago{state})\n  {}",
            key.role, key.name, key.key
        ));
    }
    lines.join("\n")
}

fn holders_table(holders: &[KnownHolder], now_s: u64) -> String {
    if holders.is_empty() {
        return "The region knows nobody yet.".to_owned();
    }
    let mut lines = Vec::new();
    for holder in holders {
        let state = match (holder.revoked_s, holder.ends_s) {
            (Some(_), _) => "revoked".to_owned(),
            (None, Some(ends_s)) if ends_s > now_s => {
                format!("{} days left", (ends_s - now_s) / DAY_S)
            }
            (None, _) => "no certificate that holds".to_owned(),
        };
        let hex = holder.key.to_hex();
        let short = hex.get(..16).unwrap_or_default();
        let line = format!(
            "{:24} {:8} {state:26} {short} {}",
            holder.name.as_str(),
            holder.role.name(),
            holder.limits
        );
        lines.push(line.trim_end().to_owned());
    }
    lines.join("\n")
}

/// Tokens for the API, below those who hold keys.
fn tokens_table(tokens: &[ApiToken], now_s: u64) -> String {
    let lines = tokens.iter().map(|token| {
        let scopes: Vec<&str> = token.scopes.iter().map(|scope| scope.name()).collect();
        let state = match token.expires_s.checked_sub(now_s) {
            None | Some(0) => "ended".to_owned(),
            Some(left_s) => format!("{} days left", left_s / DAY_S),
        };
        format!(
            "\n{:24} API      {state:26} {}",
            token.name.as_str(),
            scopes.join(",")
        )
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> Id {
        Id::new(name).unwrap()
    }

    #[test]
    fn tables_for_people() {
        let waiting = WaitingKey {
            key: KeyFingerprint([0xa1; 32]),
            name: id("box-1"),
            role: Role::Box,
            since_s: 0,
            seen_s: 60,
            is_approved: false,
        };
        let approved = WaitingKey {
            name: id("box-2"),
            is_approved: true,
            ..waiting.clone()
        };
        insta::assert_snapshot!(waiting_table(&[waiting, approved], 200));
        let holder = KnownHolder {
            key: KeyFingerprint([0xa1; 32]),
            name: id("box-1"),
            role: Role::Box,
            since_s: 0,
            revoked_s: None,
            ends_s: Some(8 * DAY_S),
            limits: Limits::default(),
        };
        let bound = KnownHolder {
            name: id("cam-2"),
            role: Role::Sensor,
            limits: Limits {
                models: vec![id("digits")],
                per_minute: NonZeroU32::new(60),
            },
            ..holder.clone()
        };
        let revoked = KnownHolder {
            name: id("cam-1"),
            role: Role::Sensor,
            revoked_s: Some(1),
            ..holder.clone()
        };
        let token = ApiToken {
            name: id("grafana"),
            scopes: vec![Scope::Region, Scope::Metrics],
            expires_s: 9 * DAY_S,
        };
        let holders = holders_table(&[holder, revoked, bound], DAY_S);
        insta::assert_snapshot!(holders + &tokens_table(&[token], DAY_S));
    }
}
