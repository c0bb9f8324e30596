//! The thread that owns the board's hardware: looks at it each second, lets the governor decide, and does as it says.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use edge_hal::{
    Board, Readings, Sensors,
    board::LedMeaning,
    controls::Controls,
    fan::Fan,
    governor::{Decision, Duty, Governor, Observation, Reason},
    led::{LedState, Lights},
    reset::last_reset,
    sim::{Script, ScriptError, SimBoardError},
};
use parking_lot::{Condvar, Mutex};
use tracing::{info, warn};

use crate::{
    health::Vitals,
    inference::{Models, Permits},
};

/// Time between two looks: what the governor is made for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Three ticks of the kernel's counters.
const FIRST_TICKS: Duration = Duration::from_millis(30);
/// How long telemetry waits for the first look; a sensor that hangs must not keep the box from being born.
const FIRST_LOOK: Duration = Duration::from_secs(2);

/// What the board said last, and what the governor made of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Look {
    pub(crate) readings: Readings,
    pub(crate) decision: Option<Decision>,
    /// Whether the board has a fan whose speed is set.
    pub(crate) has_fan: bool,
}

/// The latest look, shared by the thread and those who want to know.
#[derive(Debug, Default)]
pub(crate) struct Looks {
    latest: Mutex<Option<Look>>,
    first: Condvar,
}

impl Looks {
    /// The latest look; empty where the first one does not come in time.
    pub(crate) fn latest(&self) -> Look {
        let mut latest = self.latest.lock();
        if latest.is_none() {
            self.first.wait_for(&mut latest, FIRST_LOOK);
        }
        latest.clone().unwrap_or_default()
    }

    fn set(&self, readings: &Readings, decision: Decision, has_fan: bool) {
        let mut latest = self.latest.lock();
        let look = latest.get_or_insert_default();
        look.readings.clone_from(readings);
        look.decision = Some(decision);
        look.has_fan = has_fan;
        self.first.notify_all();
    }
}

/// What [`Hardware::start`] needs.
pub(crate) struct Wanted<'a> {
    pub(crate) board: &'a Board,
    /// Folder below which the kernel's files lie: `/` on a machine.
    pub(crate) root: &'a Path,
    pub(crate) data: &'a Path,
    /// What happens to a simulated board.
    pub(crate) script: Option<&'a Path>,
    pub(crate) models: Arc<Models>,
    pub(crate) vitals: Vitals,
}

/// Why the hardware is not looked at.
#[derive(Debug, thiserror::Error)]
pub enum HardwareError {
    /// A script for a real board.
    #[error(
        "board {board:?} has nothing simulated, so no script can be played on it; leave --simulate out"
    )]
    NotSimulated {
        /// The board.
        board: String,
    },
    /// The script.
    #[error("cannot use the script of --simulate")]
    Script(#[from] ScriptError),
    /// The script and the board do not fit.
    #[error("cannot play the script of --simulate")]
    Play(#[from] SimBoardError),
    /// The system refuses a thread.
    #[error("cannot start the thread that reads hardware")]
    Thread(#[from] io::Error),
}

/// The running thread.
pub(crate) struct Hardware {
    looks: Arc<Looks>,
    reset_reason: &'static str,
    stop: mpsc::Sender<()>,
    thread: thread::JoinHandle<()>,
}

impl Hardware {
    /// Opens the board's hardware and begins to look. What is missing is reported and costs itself.
    ///
    /// # Errors
    /// [`HardwareError`] for a script that cannot be played, and when the thread cannot be started.
    pub(crate) fn start(wanted: Wanted<'_>) -> Result<Self, HardwareError> {
        let Wanted {
            board,
            root,
            data,
            script,
            models,
            vitals,
        } = wanted;
        let sensors = Sensors::new(board, root, data);
        if let Some(path) = script {
            let script = Script::from_file(path)?;
            let simulated = sensors
                .simulated()
                .ok_or_else(|| HardwareError::NotSimulated {
                    board: board.name.clone(),
                })?;
            simulated.play(&script)?;
        }
        let controls = Controls::open(board, root);
        for fault in &controls.faults {
            warn!(fault, "a part of the board cannot be set");
        }
        // A simulated board has its own fan, which cools it.
        let simulated = sensors
            .simulated()
            .and_then(|board| board.parts().fan.clone());
        let fan = match simulated {
            Some(fan) => Some(Box::new(fan) as Box<dyn Fan>),
            None => controls.fan,
        };
        let governor = Governor::new(board);
        let zones: Vec<String> = governor.zones().map(str::to_owned).collect();
        let (stop, stopped) = mpsc::channel();
        let looks = Arc::new(Looks::default());
        let driver = Driver {
            temperatures: vec![None; zones.len()],
            zones,
            governor,
            fan,
            lights: controls.lights,
            sensors,
            readings: Readings::default(),
            worked: models.permits().worked(),
            permits: models.permits(),
            models,
            vitals,
            looks: looks.clone(),
            said: Reason::Unlimited,
            is_fan_stuck: false,
            is_fan_lost: false,
        };
        let thread = thread::Builder::new()
            .name("hardware".into())
            .spawn(move || driver.drive(&stopped))?;
        Ok(Self {
            looks,
            reset_reason: last_reset(root).name(),
            stop,
            thread,
        })
    }

    /// Where the latest look is found.
    pub(crate) fn looks(&self) -> Arc<Looks> {
        self.looks.clone()
    }

    /// Why the box last started.
    pub(crate) const fn reset_reason(&self) -> &'static str {
        self.reset_reason
    }

    /// Lets the hardware go: the fan is the kernel's again. A sensor that hangs is left behind.
    pub(crate) fn end(self) {
        let Self { stop, thread, .. } = self;
        drop(stop);
        let deadline = Instant::now() + Duration::from_millis(500);
        while !thread.is_finished() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

struct Driver {
    sensors: Sensors,
    readings: Readings,
    governor: Governor,
    /// The governed zones, and their temperatures in the same order.
    zones: Vec<String>,
    temperatures: Vec<Option<i32>>,
    fan: Option<Box<dyn Fan>>,
    lights: Lights,
    models: Arc<Models>,
    vitals: Vitals,
    permits: Arc<Permits>,
    /// What the models had computed at the previous look.
    worked: Duration,
    looks: Arc<Looks>,
    /// What was last said of the governor's reason, the fan, and its obedience, so that a log line comes once.
    said: Reason,
    is_fan_stuck: bool,
    is_fan_lost: bool,
}

impl Driver {
    fn drive(mut self, stopped: &mpsc::Receiver<()>) {
        let mut looked = Instant::now();
        // The load is that of the time since the sensors were opened: some ticks of the kernel must have passed.
        thread::sleep(FIRST_TICKS);
        loop {
            let now = Instant::now();
            self.look(now - looked);
            looked = now;
            match stopped.recv_timeout(LOOK_EVERY) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.permits.limit(Duty::UNLIMITED);
        for meaning in [LedMeaning::Serving, LedMeaning::Network, LedMeaning::Fault] {
            // A light that fails was reported when it was opened.
            let _dark = self.lights.show(meaning, LedState::Off);
        }
    }

    fn look(&mut self, elapsed: Duration) {
        self.readings.fan_rpm = self
            .fan
            .as_mut()
            .and_then(|fan| fan.read_rpm().ok().flatten());
        self.sensors.sample(&mut self.readings);
        for (zone, temperature) in self.zones.iter().zip(&mut self.temperatures) {
            let read = self.readings.temperatures.iter();
            *temperature = read
                .clone()
                .find_map(|(name, value)| (**name == **zone).then_some(*value));
        }
        let worked = self.permits.worked();
        let computed = worked.saturating_sub(std::mem::replace(&mut self.worked, worked));
        let gpu_percent = self.readings.gpu.and_then(|gpu| gpu.load_percent);
        let decision = self.governor.decide(
            elapsed,
            &Observation {
                millicelsius: &self.temperatures,
                fan_rpm: self.readings.fan_rpm,
                inference_max_concurrency: self.permits.most(),
                inference_busy: computed.as_secs_f64() / elapsed.as_secs_f64().max(1e-3),
                gpu_wanted: false,
                gpu_busy: gpu_percent.map_or(0.0, |percent| f64::from(percent) / 100.0),
            },
        );
        self.permits.limit(if decision.reason == Reason::Unlimited {
            Duty::UNLIMITED
        } else {
            decision.inference_concurrency_milli
        });
        if let Some(fan) = &mut self.fan {
            let obeyed = fan.set_percent(decision.fan_percent);
            if obeyed.is_err() != self.is_fan_lost {
                self.is_fan_lost = obeyed.is_err();
                match obeyed {
                    Ok(()) => info!("the fan obeys again"),
                    Err(error) => {
                        warn!(%error, "the fan cannot be set; load alone keeps the board cool");
                    }
                }
            }
        }
        self.say(&decision);
        let is_serving = !self.models.watch_ready().borrow().is_empty();
        let has_fault = !self.readings.faults.is_empty() || decision.is_fan_stuck;
        for (meaning, is_on) in [
            (LedMeaning::Serving, is_serving),
            (LedMeaning::Network, self.vitals.connected() > 0),
            (LedMeaning::Fault, has_fault),
        ] {
            let state = if is_on { LedState::On } else { LedState::Off };
            // As above.
            let _shown = self.lights.show(meaning, state);
        }
        self.looks.set(&self.readings, decision, self.fan.is_some());
    }

    /// Logs what changed.
    fn say(&mut self, decision: &Decision) {
        if decision.is_fan_stuck != self.is_fan_stuck {
            self.is_fan_stuck = decision.is_fan_stuck;
            if self.is_fan_stuck {
                warn!("the fan is told to turn and does not; clean or replace it");
            } else {
                info!("the fan turns again");
            }
        }
        if decision.reason == self.said {
            return;
        }
        self.said = decision.reason;
        let zone = |zone: usize| self.zones.get(zone).map_or("?", String::as_str);
        let inference_concurrency = f64::from(decision.inference_concurrency_milli) / 1_000.0;
        match decision.reason {
            Reason::Unlimited => info!("the temperature limits nothing"),
            Reason::HoldsTarget { zone: at } => {
                info!(
                    zone = zone(at),
                    inference_concurrency, "a zone is held at its target"
                );
            }
            Reason::Blind { zone: at } => warn!(
                zone = zone(at),
                inference_concurrency,
                "a governed zone cannot be read; work is cut to what every board stands"
            ),
            Reason::NearCritical { zone: at } => warn!(
                zone = zone(at),
                "a zone is near its critical trip point; all work is paused"
            ),
        }
    }
}
