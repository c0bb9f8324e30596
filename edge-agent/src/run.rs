//! The wiring: from settings to a box that serves, and from SIGTERM to its drained end.

use std::{path::Path, sync::Arc, time::Duration};

use edge_hal::{Board, Sensors};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    inference::Models,
    requests::{
        intake::{Intake, Share},
        service::Service,
    },
    settings::Settings,
    telemetry,
};

/// How long the telemetry may take to end.
const GOODBYE: Duration = Duration::from_secs(3);

/// Why the agent does not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The board is not known or its file is wrong.
    #[error("cannot use board {name:?}")]
    Board {
        /// Name or path.
        name: String,
        /// The cause.
        source: edge_hal::BoardError,
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

/// Serves until SIGTERM or SIGINT, then lets requests in progress end.
///
/// # Errors
/// [`RunError`] when the box cannot start. What fails later is reported and tried again.
pub async fn run(settings: Settings) -> Result<(), RunError> {
    let board = Board::resolve(&settings.board).map_err(|source| RunError::Board {
        name: settings.board.clone(),
        source,
    })?;
    let system = |what| move |source| RunError::System { what, source };
    let mut terminate = signal(SignalKind::terminate()).map_err(system("wait for SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system("wait for SIGINT"))?;

    info!(
        version = env!("CARGO_PKG_VERSION"),
        box_id = %settings.box_id,
        region = %settings.region,
        broker = %settings.broker,
        board = board.name,
        "edge-agent starts"
    );
    let models = Arc::new(Models::new());
    models
        .load(settings.models.clone(), settings.onnxruntime.clone())
        .map_err(system("start the thread that loads models"))?;
    let service = Arc::new(Service::new(
        settings.region.clone(),
        settings.box_id.clone(),
        models.clone(),
        settings.answer_cache_bytes,
    ));
    let own = Intake::start(&settings, &service, Share::Own);
    let shared = Intake::start(&settings, &service, Share::Shared(models.watch_ready()));
    let stop = CancellationToken::new();
    let sensors = Sensors::new(&board, Path::new("/"), &settings.data);
    let source = telemetry::Source::new(&board, sensors, models, service.clone());
    let telemetry = tokio::spawn(telemetry::report(settings.clone(), source, stop.clone()));

    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    let deadline = Duration::from_secs(settings.drain_timeout_s.into());
    info!(running = service.running(), "draining");
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
    own.end().await;
    shared.end().await;
    // A sensor that hangs must not keep the process.
    if !matches!(tokio::time::timeout(GOODBYE, telemetry).await, Ok(Ok(()))) {
        warn!("telemetry did not end by itself");
    }
    info!("edge-agent ends");
    Ok(())
}
