//! `edge-indexer`: the command line of a region.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{ArgGroup, Args, CommandFactory, Parser, Subcommand, ValueEnum};
use edge_indexer::broker::Listeners;
use edge_indexer::identity::IdentitySettings;
use edge_indexer::run::Indexer;
use edge_indexer::settings::{BrokerChoice, Settings};
use edge_indexer::store::{LIMIT_MIN_MB, StoreSettings};
use edge_protocol::BrokerUrl;
use edge_protocol::Id;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Longest time that stopping may take before the process ends anyway.
const STOP: Duration = Duration::from_secs(20);

/// How the process ends. A wrong command line ends with 2, by clap.
#[derive(Debug, Clone, Copy)]
enum Exit {
    /// Stopped as asked.
    Stopped = 0,
    /// Could not start, or a part failed; the message says which.
    Failed = 1,
}

/// The indexer of an Aethir Edge region: sees its boxes, keeps their telemetry, shows them to people and programs.
#[derive(Debug, Parser)]
#[command(
    version,
    propagate_version = true,
    after_help = "\
Examples:
  A region on one machine, with its broker inside; boxes and sensors show certificates:
    edgectl ca init --region home --out ca
    edge-indexer run --region home --ca ca/online --embedded-broker --mqtt 0.0.0.0:8883 \\
      --https 0.0.0.0:8443 --http 127.0.0.1:8080 --data region
  Beside a broker that runs already:
    edge-indexer run --region home --ca ca/online --broker mqtts://broker.lan:8883 --http 127.0.0.1:8080 --data region
  To try something on a network that you trust, without any protection:
    edge-indexer run --region home --embedded-broker --insecure-mqtt 127.0.0.1:1883 --http 127.0.0.1:8080 --data region
Then open http://127.0.0.1:8080/ or read http://127.0.0.1:8080/api/v1/boxes."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a region until SIGTERM or Ctrl-C.
    Run(Box<RunArgs>),
    /// Print the completions of a shell, to be put where it looks for them.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("carrier").required(true).args(["embedded_broker", "broker"]))]
struct RunArgs {
    /// Name of the region: a-z, 0-9 and '-', at most 63 characters.
    #[arg(long, env = "EDGE_INDEXER_REGION")]
    region: Id,

    /// Name of this indexer, as boxes see it in spBv1.0/STATE/NAME.
    #[arg(long, env = "EDGE_INDEXER_ID", default_value = "indexer")]
    indexer_id: Id,

    /// Run the MQTT broker inside this process; --mqtt or --insecure-mqtt says where it listens.
    #[arg(long, env = "EDGE_INDEXER_EMBEDDED_BROKER", requires = "listeners")]
    embedded_broker: bool,

    /// Where the embedded broker listens for clients with certificates of the region. Needs --ca.
    #[arg(long, env = "EDGE_INDEXER_MQTT", value_name = "HOST:PORT", value_parser = socket, requires = "ca",
          group = "listeners")]
    mqtt: Option<SocketAddr>,

    /// Where the embedded broker listens without TLS and lets everybody do everything.
    #[arg(long, env = "EDGE_INDEXER_INSECURE_MQTT", value_name = "HOST:PORT", value_parser = socket,
          group = "listeners")]
    insecure_mqtt: Option<SocketAddr>,

    /// A broker outside this process. It is retried for ever when it is away. mqtts:// needs --ca.
    #[arg(long, env = "EDGE_INDEXER_BROKER", value_name = "mqtts://HOST:PORT")]
    broker: Option<BrokerUrl>,

    /// Folder of the region's certificate authority, as `edgectl ca init` makes it: the part named `online`.
    #[arg(long, env = "EDGE_INDEXER_CA", value_name = "DIR")]
    ca: Option<PathBuf>,

    /// Where boxes and sensors enrol, and where the API is served to those with certificates. Needs --ca.
    #[arg(long, env = "EDGE_INDEXER_HTTPS", value_name = "HOST:PORT", value_parser = socket, requires = "ca")]
    https: Option<SocketAddr>,

    /// A name or address of this machine: for browsers, and for clients that compare it with the certificate. Boxes do
    /// not.
    #[arg(long, env = "EDGE_INDEXER_HOSTS", value_name = "HOST", value_delimiter = ',',
          default_values = ["localhost", "127.0.0.1", "::1"])]
    host: Vec<String>,

    /// Days that a granted certificate holds. Boxes renew theirs when two thirds are over.
    #[arg(long, env = "EDGE_INDEXER_CERTIFICATE_DAYS", value_name = "N", default_value_t = 7,
          value_parser = clap::value_parser!(u64).range(1..=3_650))]
    certificate_days: u64,

    /// Where the page, the API, /metrics and /healthz are served without TLS, to whoever reaches it.
    #[arg(long, env = "EDGE_INDEXER_HTTP", value_name = "HOST:PORT", value_parser = socket)]
    http: SocketAddr,

    /// Folder of the region's memory; made when absent.
    #[arg(long, env = "EDGE_INDEXER_DATA", value_name = "DIR")]
    data: PathBuf,

    /// Size that the store may have, in MiB. The oldest history is deleted before it is reached.
    #[arg(long, env = "EDGE_INDEXER_STORE_LIMIT_MB", value_name = "N", default_value_t = 1_024,
          value_parser = clap::value_parser!(u64).range(LIMIT_MIN_MB..=1 << 20))]
    store_limit_mb: u64,

    /// Age at which history is deleted, in hours.
    #[arg(long, env = "EDGE_INDEXER_HISTORY_HOURS", value_name = "N", default_value_t = 168,
          value_parser = clap::value_parser!(u64).range(1..=87_600))]
    history_hours: u64,

    /// Boxes that the region may have; telemetry of further ones is refused.
    #[arg(long, env = "EDGE_INDEXER_BOXES_LIMIT", value_name = "N", default_value_t = 200_000,
          value_parser = boxes_limit)]
    boxes_limit: usize,

    /// Form of the log on standard error. RUST_LOG chooses what is logged, such as `edge_indexer=debug`.
    #[arg(
        long,
        env = "EDGE_INDEXER_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text"
    )]
    log_format: LogFormat,
}

fn socket(text: &str) -> Result<SocketAddr, String> {
    let mut found = text.to_socket_addrs().map_err(|error| {
        format!("not HOST:PORT of this machine, such as 127.0.0.1:1883: {error}")
    })?;
    found
        .next()
        .ok_or_else(|| "the host has no address".to_owned())
}

fn boxes_limit(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(limit @ 1..=10_000_000) => Ok(limit),
        _ => Err("a number from 1 to 10000000".to_owned()),
    }
}

impl RunArgs {
    fn settings(self) -> Settings {
        let broker = match self.broker {
            Some(broker) => BrokerChoice::Outside(broker),
            None => BrokerChoice::Embedded(Listeners {
                tls: self.mqtt,
                insecure: self.insecure_mqtt,
            }),
        };
        let identity = self.ca.map(|folder| IdentitySettings {
            folder,
            hosts: self.host.clone(),
            life_s: self.certificate_days * 24 * 3_600,
        });
        Settings {
            region: self.region,
            indexer: self.indexer_id,
            broker,
            identity,
            http: self.http,
            hosts: self.host,
            https: self.https,
            store: StoreSettings {
                folder: self.data,
                limit_mb: self.store_limit_mb,
                history_hours: self.history_hours,
            },
            boxes_limit: self.boxes_limit,
        }
    }
}

fn main() -> ExitCode {
    let exit = match Cli::parse().command {
        Command::Completions { shell } => {
            let mut command = Cli::command();
            clap_complete::generate(shell, &mut command, "edge-indexer", &mut io::stdout());
            Exit::Stopped
        }
        Command::Run(args) => {
            start_log(args.log_format);
            match run(*args) {
                Ok(()) => Exit::Stopped,
                Err(error) => {
                    eprintln!("edge-indexer: {error:#}");
                    Exit::Failed
                }
            }
        }
    };
    // Returning ends the process whatever the broker's tasks still do: RMQTT has no call to stop.
    ExitCode::from(exit as u8)
}

fn start_log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| {
        EnvFilter::new(
            "info,rmqtt=warn,rmqtt_net=warn,rmqtt_retainer=warn,rmqtt_shared_subscription=warn",
        )
    });
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}

fn run(args: RunArgs) -> anyhow::Result<()> {
    let settings = args.settings();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    let result = runtime.block_on(async {
        // Listen for signals before anything starts, so that none is missed.
        let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for Ctrl-C")?;
        let indexer = Indexer::start(settings).await?;
        let asked = tokio::select! {
            _ = terminate.recv() => true,
            _ = interrupt.recv() => true,
            () = indexer.ended() => false,
        };
        tracing::info!("stopping");
        let stopped = tokio::time::timeout(STOP, indexer.stop()).await;
        anyhow::ensure!(
            stopped.is_ok(),
            "stopping took longer than {} s",
            STOP.as_secs()
        );
        anyhow::ensure!(asked, "a part of the indexer failed; the log says which");
        Ok(())
    });
    runtime.shutdown_background();
    result
}
