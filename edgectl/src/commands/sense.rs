//! `edgectl sense`: a sensor on the command line.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use edge_protocol::{BrokerUrl, Id, limit::EXPIRY_MAX_S, oip::Encoding, sensor::Patience};
use indicatif::{ProgressBar, ProgressStyle};
use rumqttc::v5::mqttbytes::QoS;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    exit::Exit,
    own_identity::OwnIdentity,
    sensor::{
        dataset::Dataset,
        ledger::Tally,
        link::{Link, LinkSettings},
        pace::{End, Pace},
        report::Report,
        run::{self, RunSettings},
        wire::{Address, Wire},
    },
};

/// Arguments of `edgectl sense`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  Send each row once to any box of the region, and compare with the labels:
    edgectl sense --broker mqtts://region.lan:8883 --identity cam-1/ --region lab --model digits --data digits.csv

  Ask one box ten times a second for a minute, with binary tensors:
    edgectl sense --broker mqtt://127.0.0.1:1883 --region lab --model digits --data digits.csv \\
      --box box-1 --rate 10 --seconds 60 --encoding binary

  Measure the latency of single requests, for a program to read:
    edgectl sense --broker mqtt://127.0.0.1:1883 --region lab --model digits --data digits.csv \\
      --in-flight 1 --count 1000 --json

The data file is CSV: a header, then one reading a row. The column `label` (it may be missing) is
the expected class, every other column one value of the model's input, which is sent as FP32 with
shape [1, columns]:
    label,p0,p1,p2
    7,0,12.5,16

A request that nobody answers is sent again after 2, 4, 8.. seconds until it expires, and one that
a busy box refuses (429, 503) when the box says so. Each counts once. Exit code 0 means that every
request was answered, right or wrong; 1 that some were not.")]
pub struct SenseArgs {
    /// The broker, as mqtts://HOST:PORT with --identity, or as mqtt://HOST:PORT without TLS.
    #[arg(long, value_name = "URL", env = "EDGE_BROKER")]
    broker: BrokerUrl,

    /// Folder of this sensor's certificate, as `edgectl ca issue` makes it; its name is then the sensor's.
    #[arg(long, value_name = "DIR", env = "EDGE_IDENTITY")]
    identity: Option<PathBuf>,

    /// The region of the boxes.
    #[arg(long, env = "EDGE_REGION")]
    region: Id,

    /// The model to ask.
    #[arg(long)]
    model: Id,

    /// The readings to send, a CSV file.
    #[arg(long, value_name = "FILE.csv")]
    data: PathBuf,

    /// Ask this box, not any that serves the model.
    #[arg(long = "box", value_name = "BOX")]
    box_id: Option<Id>,

    /// This sensor's name, which is also its MQTT client id [default: its certificate's, or sensor-RANDOM].
    #[arg(long, value_name = "ID")]
    client: Option<Id>,

    /// Begin this many requests a second at most [default: as fast as they are answered].
    #[arg(long, value_name = "N", value_parser = parse_rate)]
    rate: Option<f64>,

    /// Send this many requests, going through the rows again and again [default: each row once].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// Begin requests for this many seconds.
    #[arg(long, value_name = "N", conflicts_with = "count", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,

    /// Requests that may wait for their answers at the same time.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    in_flight: u16,

    /// How requests are written.
    #[arg(long, value_enum, default_value_t = EncodingArg::Json)]
    encoding: EncodingArg,

    /// MQTT's quality of service; with 0 a lost message costs a repeat after 2 seconds.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=1))]
    qos: u8,

    /// Give a request up after this many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=i64::from(EXPIRY_MAX_S)))]
    expiry: u32,

    /// Name of the model's input.
    #[arg(long, value_name = "NAME", default_value = "pixels")]
    input: String,

    /// Name of the model's output that is compared with the label.
    #[arg(long, value_name = "NAME", default_value = "label")]
    label_output: String,

    /// Print one JSON object to standard output; the table goes to standard error.
    #[arg(long)]
    json: bool,
}

/// Encodings by their names on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum EncodingArg {
    /// Open Inference Protocol as JSON.
    Json,
    /// The same with binary tensors, for large inputs.
    Binary,
    /// The compact form that microcontrollers write.
    Cbor,
}

impl From<EncodingArg> for Encoding {
    fn from(name: EncodingArg) -> Self {
        match name {
            EncodingArg::Json => Self::Json,
            EncodingArg::Binary => Self::Binary { header_length: 0 },
            EncodingArg::Cbor => Self::Cbor,
        }
    }
}

fn parse_rate(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|rate: &f64| (0.001..=1_000_000.0).contains(rate))
        .ok_or_else(|| "requests a second are a number from 0.001 to 1000000".to_owned())
}

/// Runs the sensor and prints its report.
///
/// # Errors
/// An unusable file, and a broker that cannot be used from the start.
pub fn run(args: SenseArgs) -> anyhow::Result<Exit> {
    let data = Dataset::read(&args.data)?;
    let identity = args
        .identity
        .as_deref()
        .map(OwnIdentity::read)
        .transpose()?;
    anyhow::ensure!(
        identity.is_some() == args.broker.tls,
        "--identity is for a broker over TLS, as mqtts://HOST:PORT, and such a broker wants it"
    );
    let certified = identity.as_ref().map(|identity| identity.name.clone());
    let client = match args.client.or(certified) {
        Some(client) => client,
        None => Id::new(&format!("sensor-{:08x}", rand::random::<u32>()))
            .context("cannot make a client id")?,
    };
    let address = Address {
        region: args.region,
        box_id: args.box_id,
        model: args.model,
        client: client.clone(),
        input: args.input,
        label_output: args.label_output,
        encoding: args.encoding.into(),
    };
    let wire = Arc::new(Wire::new(&address, &data, rand::random())?);
    let end = match (args.seconds, args.count) {
        (Some(seconds), _) => End::After(Duration::from_secs(seconds)),
        (None, count) => End::Count(count.unwrap_or(data.rows.len() as u64)),
    };
    drop(data);
    let settings = RunSettings {
        broker: args.broker.clone(),
        patience: Patience::until(Duration::from_secs(args.expiry.into())),
        pace: Pace::new(args.rate, end),
        in_flight: args.in_flight.into(),
    };
    let link = LinkSettings {
        broker: args.broker,
        client: client.to_string(),
        reply_filter: wire.reply_filter().to_owned(),
        qos: if args.qos == 0 {
            QoS::AtMostOnce
        } else {
            QoS::AtLeastOnce
        },
        in_flight: args.in_flight,
        tls: identity.map(|identity| identity.tls),
    };
    let bar = progress_bar(end);
    let show = |tally: &Tally, now: Duration| {
        bar.set_position(match end {
            End::Count(_) => tally.answered + tally.failed(),
            End::After(_) => now.as_secs(),
        });
        bar.set_message(format!(
            "{} answered, {} failed",
            tally.answered,
            tally.failed()
        ));
    };
    // One thread: a request's way through the program is then free of wake-ups between threads.
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")?
        .block_on(async {
            let stop = stop_signal()?;
            let reader = Arc::clone(&wire);
            let link = Link::open(link, move |answer| reader.read(answer));
            let outcome = run::run(link, &wire, settings, show, stop).await;
            bar.finish_and_clear();
            anyhow::Ok(outcome?)
        })?;
    let report = Report::new(&outcome);
    if args.json {
        eprint!("{}", report.table());
        let json = serde_json::to_string(&report).context("cannot write the report")?;
        writeln!(io::stdout(), "{json}").context("cannot write to standard output")?;
    } else {
        write!(io::stdout(), "{}", report.table()).context("cannot write to standard output")?;
    }
    match outcome.lost {
        Some(lost) => Err(lost.into()),
        None if report.is_clean() => Ok(Exit::Done),
        None => Ok(Exit::Failed),
    }
}

/// Ready on Ctrl-C or SIGTERM, which end a run early with a report.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// A bar on standard error; nothing where that is no terminal.
fn progress_bar(end: End) -> ProgressBar {
    let (length, unit) = match end {
        End::Count(count) => (count, "requests"),
        End::After(time) => (time.as_secs(), "s"),
    };
    let template = format!("{{bar:32}} {{pos}}/{{len}} {unit}  {{msg}}");
    let style =
        ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style)
}
