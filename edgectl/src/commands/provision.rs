//! `edgectl provision`: what a box is told before its first start.

use std::{
    io::{self, Write as _},
    path::PathBuf,
};

use anyhow::Context as _;
use clap::{ArgGroup, Args};
use edge_protocol::provisioning::{area, text::Fields};

use crate::{
    exit::Exit,
    provisioning::{
        disk::{Access, Area},
        files::{Checked, FilesError, ssh_keys},
        report::Report,
    },
};

/// Arguments of `edgectl provision`.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("what").required(true).args(["file", "region", "show"]),
    after_help = "\
Examples:
  Into an image, before it is flashed:
    edgectl provision --image edge.img --region home --broker mqtt://192.168.1.2:1883

  Onto a card that was flashed, with TLS, an enrolment token and an SSH key:
    EDGE_ENROLMENT_TOKEN=... edgectl provision --image /dev/sdX --region home \\
      --broker mqtts://broker.example --indexer https://indexer.example \\
      --region-ca-sha256 AB:CD:.. --ssh-key ~/.ssh/id_ed25519.pub

  Out of a file that you keep, and a look at what is there:
    edgectl provision --image edge.img --file provisioning.toml
    edgectl provision --image edge.img --show

The partition \"provisioning\" is a FAT file system: any computer also edits provisioning.toml in it with a text
editor. The box reads it at each start, and keeps the last good one. A power cut while it is written leaves the old
file, the new one, or none."
)]
pub struct ProvisionArgs {
    /// The box's disk or its image: a file, or a device such as /dev/sdX.
    #[arg(long, value_name = "FILE|DISK")]
    image: PathBuf,

    /// Take all values from this file; it goes to the box as it is.
    #[arg(long, value_name = "FILE.toml")]
    file: Option<PathBuf>,

    /// Show what is there; the enrolment token is not shown.
    #[arg(long, conflicts_with = "update_root")]
    show: bool,

    /// Print one JSON object.
    #[arg(long)]
    json: bool,

    /// Trusted root of the update repository: its root.json.
    #[arg(long, value_name = "FILE.json")]
    update_root: Option<PathBuf>,

    #[command(flatten)]
    values: Values,
}

/// The keys of the file, as flags.
#[derive(Debug, Args)]
#[group(skip)]
struct Values {
    /// The region that the box belongs to.
    #[arg(long, requires = "broker")]
    region: Option<String>,

    /// The region's broker, as mqtt://HOST:PORT, or mqtts:// for TLS.
    #[arg(long, value_name = "URL", requires = "region")]
    broker: Option<String>,

    /// The region's indexer.
    #[arg(long, value_name = "URL", requires = "region")]
    indexer: Option<String>,

    /// SHA-256 of the certificate of the region's CA.
    #[arg(long, value_name = "HEX", requires = "region")]
    region_ca_sha256: Option<String>,

    /// What the box shows once to be enrolled. Other users see command lines: better give it in the environment.
    #[arg(
        long,
        value_name = "TOKEN",
        env = "EDGE_ENROLMENT_TOKEN",
        hide_env_values = true
    )]
    enrolment_token: Option<String>,

    /// Name of the box [default: made of its key].
    #[arg(long, value_name = "ID", requires = "region")]
    box_id: Option<String>,

    /// Where your rewards go, with the checksum that your wallet shows.
    #[arg(long, value_name = "0x...", requires = "region")]
    payout_address: Option<String>,

    /// The update repository.
    #[arg(long, value_name = "URL", requires = "region")]
    update_server: Option<String>,

    /// The box's clock for people, such as Europe/Berlin [default: UTC].
    #[arg(long, value_name = "ZONE", requires = "region")]
    time_zone: Option<String>,

    /// A public key that may log in, or a file with some; may be repeated.
    #[arg(long, value_name = "KEY|FILE.pub", requires = "region")]
    ssh_key: Vec<String>,

    /// A static address, as ADDRESS/PREFIX [default: DHCP].
    #[arg(long, value_name = "ADDRESS", requires = "region")]
    address: Option<String>,

    /// The router beside it.
    #[arg(long, value_name = "ADDRESS", requires = "address")]
    gateway: Option<String>,

    /// A name server beside it; may be repeated.
    #[arg(long, value_name = "ADDRESS", requires = "address")]
    dns: Vec<String>,
}

impl Values {
    fn fields(self) -> anyhow::Result<Fields> {
        let top = [
            ("region", self.region),
            ("broker", self.broker),
            ("indexer", self.indexer),
            ("region_ca_sha256", self.region_ca_sha256),
            ("enrolment_token", self.enrolment_token),
            ("box_id", self.box_id),
            ("payout_address", self.payout_address),
            ("update_server", self.update_server),
            ("time_zone", self.time_zone),
        ];
        Ok(Fields {
            top: top
                .into_iter()
                .filter_map(|(key, value)| Some((key, value?)))
                .collect(),
            ssh_keys: ssh_keys(&self.ssh_key)?,
            address: self.address,
            gateway: self.gateway,
            dns: self.dns,
        })
    }
}

/// Writes the provisioning, or shows it.
///
/// # Errors
/// Wrong values, before anything is written; a disk that cannot be read or written.
pub fn run(args: ProvisionArgs) -> anyhow::Result<Exit> {
    let image = args.image.display().to_string();
    let done = if args.show {
        None
    } else {
        let root = args.update_root.as_deref();
        let checked = match &args.file {
            Some(file) => {
                if args.values.enrolment_token.is_some() {
                    return Err(FilesError::TokenBesideFile.into());
                }
                Checked::from_file(file, root)?
            }
            None => Checked::from_fields(&args.values.fields()?, root)?,
        };
        let mut disk = Area::open(&args.image, Access::Write)?;
        let sector_bytes = disk.sector_bytes;
        let is_new = area::write(&mut disk, sector_bytes, &checked.files)
            .with_context(|| format!("cannot provision {image}"))?;
        Some(if is_new {
            "made a file system and wrote it"
        } else {
            "wrote it"
        })
    };
    // Also after writing: what is shown is what is there.
    let mut disk = Area::open(&args.image, Access::Read)?;
    let sector_bytes = disk.sector_bytes;
    let content =
        area::read(&mut disk, sector_bytes).with_context(|| format!("cannot read {image}"))?;
    let report = Report::new(&image, &content);
    let mut output = io::stdout();
    let mut print = |text: &str| output.write_all(text.as_bytes());
    if args.json {
        let json = serde_json::to_string(&report).context("cannot write the report")?;
        print(&(json + "\n"))
    } else {
        let closing = done.map(|done| format!("{done}; the box reads it at its next start\n"));
        print(&(report.text() + &closing.unwrap_or_default()))
    }
    .context("cannot write to standard output")?;
    Ok(if report.problems.is_empty() {
        Exit::Done
    } else {
        Exit::Failed
    })
}
