//! `cargo xtask qemu`: an image on the emulated board, in a region on this machine.
//!
//! The same story for people and for the tests: provision a copy of the image, switch the board on, wait until the
//! region sees the box, let a sensor ask it.

use std::cell::{Cell, RefCell};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::demo::{self, DemoError};
use crate::emulated_board::{self, EmulatedBoard, EmulatedBoardError, HOST};
use crate::region::{self, Plan, Region, RegionError};
use crate::sensor::{Sensor, SensorError, SensorResult, Until};
use crate::shell::{self, CommandError};

/// The box's name in its region.
pub const BOX: &str = "emulated-1";

/// From switching on to a box that serves: under a minute on an idle machine.
const BIRTH_LIMIT: Duration = Duration::from_secs(400);

/// Requests a second that the emulated box is shown with: it computes at a tenth of a real one's speed.
const RATE: u32 = 5;

/// An emulated box that does not work.
#[derive(Debug, thiserror::Error)]
pub enum EmulatedError {
    /// The region on this machine.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// The board.
    #[error(transparent)]
    Board(#[from] EmulatedBoardError),
    /// The sensor.
    #[error(transparent)]
    Sensor(#[from] SensorError),
    /// What it was shown with.
    #[error(transparent)]
    Demo(#[from] DemoError),
    /// It is there and does not answer.
    #[error("the emulated box serves its model, but the sensor's first request was not answered")]
    Silent,
    /// Provisioning.
    #[error("could not provision the image")]
    Provision(#[source] CommandError),
    /// The token that it enrols with.
    #[error("could not read {}", path.display())]
    Token {
        /// Its file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The copy of the image.
    #[error("could not copy {} to {}; it needs 1 GB there", from.display(), to.display())]
    Copy {
        /// The image.
        from: PathBuf,
        /// Its copy.
        to: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// What was seen, as `--report` writes it.
#[derive(Debug, Serialize)]
pub struct Report {
    /// From switching the board on to the first answer.
    pub first_answer_s: f64,
    /// Region, box and sensor.
    #[serde(flatten)]
    pub region: demo::Report,
}

/// Starts a box from `image` in a region, and lets a sensor ask it for `seconds`, or until `stop` speaks.
///
/// # Errors
/// When a part does not start, or the sensor has no result.
pub fn show(
    plan: Plan,
    image: &Path,
    u_boot: &Path,
    seconds: Option<u64>,
    stop: &Receiver<()>,
) -> Result<Report, EmulatedError> {
    let mut emulated = shell::step("start an indexer, provision a copy of the image", || {
        Emulated::start(plan, image, u_boot)
    })?;
    eprintln!("  page     {}", emulated.region.page());
    eprintln!("  broker   {}", emulated.region.broker_url());
    eprintln!("  console  {}", emulated.board.console_file().display());
    eprintln!("  inside   {}", emulated.board.ssh_command());
    let first_answer = shell::step("from switching on to the first answer", || {
        emulated.wait_for_first_answer(Some(stop))
    })?;
    let region = demo::show(
        &emulated.region,
        &crate::heldout_images(),
        RATE,
        seconds,
        stop,
    )?;
    emulated.stop()?;
    Ok(Report {
        first_answer_s: first_answer.as_secs_f64(),
        region,
    })
}

/// An emulated box in a region.
#[derive(Debug)]
pub struct Emulated {
    /// The board that it runs on.
    pub board: EmulatedBoard,
    /// The region on this machine.
    pub region: Region,
    /// The board's disk, a copy of the image.
    pub disk: PathBuf,
    ssh_key: String,
    u_boot: PathBuf,
    started: Instant,
}

impl Emulated {
    /// Starts a region without boxes, and the board with a copy of `image` that is provisioned for it.
    ///
    /// # Errors
    /// When a part does not start.
    pub fn start(plan: Plan, image: &Path, u_boot: &Path) -> Result<Self, EmulatedError> {
        let region = Region::start(Plan { boxes: 0, ..plan })?;
        let disk = region.folder().join("disk.img");
        copy_sparse(image, &disk)?;
        let ssh_key = emulated_board::make_ssh_key(region.folder())?;
        provision(&region, &disk, &ssh_key)?;
        let board = EmulatedBoard::start(u_boot, &disk, region.folder())?;
        Ok(Self {
            board,
            region,
            disk,
            ssh_key,
            u_boot: u_boot.to_path_buf(),
            started: Instant::now(),
        })
    }

    /// Waits until the region sees the box serve, and a sensor has one answer; returns the time since the board was
    /// switched on.
    ///
    /// # Errors
    /// When the board or the region ends, `stop` speaks, or minutes pass.
    pub fn wait_for_first_answer(
        &mut self,
        stop: Option<&Receiver<()>>,
    ) -> Result<Duration, EmulatedError> {
        let interrupted = Cell::new(false);
        let board = RefCell::new(&mut self.board);
        let waited = self.region.wait_until(
            "the emulated box is online and serves its model",
            BIRTH_LIMIT,
            |region| {
                interrupted.set(stop.is_some_and(|stop| stop.try_recv().is_ok()));
                let ended = board.borrow_mut().must_run().is_err();
                let boxes = region.boxes().unwrap_or_default();
                let mut serving = boxes.iter().filter(|state| region::is_serving(state));
                ended || interrupted.get() || serving.any(|state| state.id == BOX)
            },
        );
        self.board.must_run()?;
        waited?;
        if interrupted.get() {
            return Err(DemoError::Interrupted.into());
        }
        let answers = self.ask(1)?;
        if answers.answered == 0 {
            return Err(EmulatedError::Silent);
        }
        Ok(self.started.elapsed())
    }

    /// Lets a sensor send so many images of digits.
    ///
    /// # Errors
    /// When it has no result.
    pub fn ask(&mut self, count: u64) -> Result<SensorResult, EmulatedError> {
        let images = crate::heldout_images();
        let until = Until::Count(count);
        let sensor = Sensor::start(&self.region, "sensor-1", &images, until, 5)?;
        Ok(sensor.result(Duration::from_secs(count.saturating_mul(2)))?)
    }

    /// Makes it a box of the region again after it forgot its key: cuts the power, provisions it with a new token,
    /// switches it on.
    ///
    /// # Errors
    /// When QEMU does not end or start, or the disk cannot be provisioned.
    pub fn provision_again(self) -> Result<Self, EmulatedError> {
        self.board.cut_power()?;
        self.region.revoke(BOX)?;
        provision(&self.region, &self.disk, &self.ssh_key)?;
        let board = EmulatedBoard::start(&self.u_boot, &self.disk, self.region.folder())?;
        Ok(Self {
            board,
            started: Instant::now(),
            ..self
        })
    }

    /// Switches the board off and ends the region.
    ///
    /// # Errors
    /// When a part of it does not end in order.
    pub fn stop(self) -> Result<(), EmulatedError> {
        self.board.cut_power()?;
        Ok(self.region.stop()?)
    }
}

/// Writes into the disk's provisioning partition what the owner of a box in `region` would.
fn provision(region: &Region, disk: &Path, ssh_key: &str) -> Result<(), EmulatedError> {
    let here = |url: &str| url.trim_end_matches('/').replace("127.0.0.1", HOST);
    let mut edgectl = Command::new(region.program("edgectl")?);
    edgectl
        .args(["provision", "--image"])
        .arg(disk)
        .args(["--region", region::NAME, "--box-id", BOX])
        .args(["--broker", &here(&region.broker_url())])
        .args(["--ssh-key", ssh_key]);
    match region.enrolment(BOX)? {
        None => edgectl.args(["--indexer", &here(&region.page())]),
        Some(enrolment) => {
            let token = fs::read_to_string(&enrolment.token_file);
            let token = token.map_err(|source| EmulatedError::Token {
                path: enrolment.token_file.clone(),
                source,
            })?;
            edgectl
                .args(["--indexer", &here(&enrolment.indexer)])
                .args(["--region-ca-sha256", &enrolment.region_ca_sha256])
                .env("EDGE_ENROLMENT_TOKEN", token.trim())
        }
    };
    shell::output(&mut edgectl).map_err(EmulatedError::Provision)?;
    Ok(())
}

/// Copies a file that is mostly holes.
fn copy_sparse(from: &Path, to: &Path) -> Result<(), EmulatedError> {
    let failed = |source| EmulatedError::Copy {
        from: from.to_path_buf(),
        to: to.to_path_buf(),
        source,
    };
    fs::metadata(from).map_err(failed)?;
    let mut copy = Command::new("cp");
    copy.args(["--sparse=always", "--reflink=auto"])
        .arg(from)
        .arg(to);
    shell::output(&mut copy).map_err(|error| failed(io::Error::other(error)))?;
    Ok(())
}
