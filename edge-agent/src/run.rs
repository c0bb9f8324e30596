//! The wiring: from settings to a box that serves, and from SIGTERM to its drained end.

use std::{net::SocketAddr, path::Path, pin::pin, sync::Arc, thread::JoinHandle, time::Duration};

use edge_hal::{Board, board::Choice};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    exit::Exit,
    hardware::{self, Hardware, HardwareError},
    health::{self, Feeder, Limits, Part, Vitals, feeder::Equipment, notify::Notify, store::Store},
    http::{self, Http},
    identity,
    inference::{self, Book, Cores, Library, Loader, Models, Quarantine},
    link,
    presence::{Presence, PresenceError},
    requests::{
        intake::{Intake, Share},
        operations::Operations,
        service::{Service, Terms},
    },
    settings::Settings,
    telemetry,
};

/// How long the telemetry may take to end.
const GOODBYE: Duration = Duration::from_secs(3);

/// How long a model that is being loaded may hold up the end.
const LOADER: Duration = Duration::from_secs(5);

/// Why the agent does not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The board is not known or its file is wrong.
    #[error("cannot tell what board this is")]
    Board(#[source] edge_hal::BoardError),
    /// The thread that owns the hardware.
    #[error(transparent)]
    Hardware(#[from] HardwareError),
    /// Another agent has the data folder.
    #[error(transparent)]
    Presence(#[from] PresenceError),
    /// The address for HTTP is in use, or not of this machine.
    #[error("cannot serve HTTP at {address}; choose another address with --http")]
    Http {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: std::io::Error,
    },
    /// The operating system refuses something that every run needs.
    #[error("cannot {what}")]
    System {
        /// What was attempted.
        what: &'static str,
        /// The cause.
        source: std::io::Error,
    },
}

/// Serves until SIGTERM or SIGINT, then lets requests in progress end. `end` ends the process at once, from another
/// thread: it is called when a part of the agent is stuck.
///
/// # Errors
/// [`RunError`] when the box cannot start. What fails later is reported and tried again.
pub async fn run(settings: Settings, end: impl Fn(Exit) + Send + 'static) -> Result<(), RunError> {
    let root = Path::new("/");
    let chosen = Choice::new(settings.board.as_deref(), root).map_err(RunError::Board)?;
    let board = chosen.board;
    let _presence = Presence::claim(&settings.data)?;
    edge_hal::heap::give_back_large_blocks();
    let system = |what| move |source| RunError::System { what, source };
    let mut terminate = signal(SignalKind::terminate()).map_err(system("wait for SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system("wait for SIGINT"))?;

    info!(
        version = env!("CARGO_PKG_VERSION"),
        box_id = %settings.box_id,
        region = %settings.region,
        broker = %settings.broker,
        board = board.name,
        chosen = chosen.how,
        "edge-agent starts"
    );
    identity::ensure(&settings.key_place);
    let vitals = Vitals::default();
    let models = Arc::new(Models::watched(
        vitals.clone(),
        Cores::new(board.inference_cores()),
    ));
    // Before anything that may hang.
    let beat = tokio::spawn(beat(vitals.clone()));
    let feeder = watch(&settings, &board, &vitals, models.clone(), end)
        .map_err(system("start the watchdog's thread"))?;
    // What may fail comes before models are loaded: ONNX Runtime does not survive the end of the process meanwhile.
    let hardware = Hardware::start(hardware::Wanted {
        board: &board,
        root,
        data: &settings.data,
        script: settings.simulate.as_deref(),
        models: models.clone(),
        vitals: vitals.clone(),
    })?;
    let bind = |address| Http::bind(address).map_err(|source| RunError::Http { address, source });
    let http = settings.http.map(bind).transpose()?;
    let library = Library {
        dir: settings.models.clone(),
        onnxruntime: settings.onnxruntime.clone(),
        memory_max_bytes: settings
            .model_memory_bytes
            .unwrap_or_else(inference::memory::usual_bytes),
    };
    let quarantine = Quarantine::open(&settings.data);
    let book = Book::open(board.accelerators.clone(), library.clone(), &settings.data);
    let loader = Loader::start(models.clone(), library, quarantine, book)
        .map_err(system("start the thread that loads models"))?;
    let loader = Arc::new(loader);
    let operations = Arc::new(Operations::new(models.clone(), loader.clone()));
    let service = Arc::new(Service::new(
        settings.region.clone(),
        settings.box_id.clone(),
        models.clone(),
        operations.clone(),
        Terms {
            admins: settings.admins.clone(),
            answer_cache_bytes: settings.answer_cache_bytes,
            slow: settings.slow_request,
        },
    ));
    let stop_http = CancellationToken::new();
    let api = http::Api::new(service.clone(), operations);
    let http = http
        .map(|http| http.serve(api, stop_http.clone()))
        .transpose()
        .map_err(system("start the thread for HTTP"))?;
    let stop = CancellationToken::new();
    let mut asked_to_end = pin!(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    });
    let connecting = connect(&settings, &vitals, &stop);
    let broker = tokio::select! {
        broker = connecting => broker,
        () = &mut asked_to_end => {
            info!("edge-agent ends before this box has a certificate");
            feeder.stopping();
            loader.stop();
            stop_http.cancel();
            hardware.end();
            wait_for(&loader, http.as_ref()).await;
            beat.abort();
            feeder.end();
            return Ok(());
        }
    };
    let own = Intake::start(&settings, &broker, &service, Share::Own, &vitals);
    let models_ready = Share::Shared(models.watch_ready());
    let shared = Intake::start(&settings, &broker, &service, models_ready, &vitals);
    let source = telemetry::Source::new(&board, &hardware, models, service.clone());
    let report = telemetry::report(settings.clone(), broker, source, vitals, stop.clone());
    let telemetry = tokio::spawn(report);

    asked_to_end.await;
    let deadline = Duration::from_secs(settings.drain_timeout_s.into());
    info!(running = service.running(), "draining");
    feeder.stopping();
    loader.stop();
    shared.leave().await;
    service.close();
    let drained = async {
        // Polled, since it happens once in the life of the process.
        while service.running() > 0 || !own.is_idle() || !shared.is_idle() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    if tokio::time::timeout(deadline, drained).await.is_err() {
        let running = service.running();
        warn!(
            running,
            "requests are left unanswered: the time to drain is over"
        );
    }
    stop.cancel();
    stop_http.cancel();
    own.end().await;
    shared.end().await;
    // A sensor that hangs must not keep the process.
    if !matches!(tokio::time::timeout(GOODBYE, telemetry).await, Ok(Ok(()))) {
        warn!("telemetry did not end by itself");
    }
    hardware.end();
    wait_for(&loader, http.as_ref()).await;
    beat.abort();
    feeder.end();
    info!("edge-agent ends");
    Ok(())
}

/// What the box's connections need; waits until the box has its certificate where one is needed.
async fn connect(settings: &Settings, vitals: &Vitals, stop: &CancellationToken) -> link::Broker {
    let tls = match settings.enrolment.clone() {
        None => {
            warn!(
                "the broker is reached without TLS: anybody on the way can read and change what is said"
            );
            None
        }
        Some(enrolment) => {
            let refresh = enrolment.obtain(vitals).await;
            let tls = link::Tls {
                client: refresh.client(),
                refused: refresh.refused(),
            };
            tokio::spawn(refresh.keep_fresh(stop.clone()));
            Some(tls)
        }
    };
    link::Broker {
        url: settings.broker.clone(),
        box_id: settings.box_id.clone(),
        tls,
    }
}

/// Polled, since it happens once in the life of the process.
async fn wait_for(loader: &Loader, http: Option<&JoinHandle<()>>) {
    let loaded = async {
        while !loader.is_finished() || http.is_some_and(|http| !http.is_finished()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    if tokio::time::timeout(LOADER, loaded).await.is_err() {
        warn!("a model is still being loaded, or a request over HTTP has no end");
    }
}

/// Shows that the main loop runs.
async fn beat(vitals: Vitals) {
    let pulse = vitals.watch(Part::MainLoop);
    let mut ticks = tokio::time::interval(health::BEAT);
    loop {
        ticks.tick().await;
        pulse.beat();
    }
}

/// Starts to watch over all parts.
fn watch(
    settings: &Settings,
    board: &Board,
    vitals: &Vitals,
    workers: Arc<Models>,
    end: impl Fn(Exit) + Send + 'static,
) -> std::io::Result<Feeder> {
    let root = Path::new("/");
    let mut watchdog = health::arm(board, root, settings.watchdog);
    let past = health::past(&settings.data, root, watchdog.as_mut());
    Feeder::start(Equipment {
        watchdog,
        notify: Notify::from_environment(),
        vitals: vitals.clone(),
        limits: Limits::new(Duration::from_secs(settings.run_timeout_s.into())),
        past,
        store: Store::start(settings.data.clone(), vitals)?,
        workers,
        end: Box::new(end),
    })
}
