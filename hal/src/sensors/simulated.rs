//! How a simulated board comes into the sensors: its parts in place of the constants, and its time with each look.

use std::time::{Duration, Instant};

use super::parts::Parts;
use crate::{
    Board,
    board::{GpuSource, PowerSource, StorageSource, ZoneSource},
    sim::{Loads, SimBoard},
};

impl Parts {
    /// Puts the parts of `sim` where `board` has simulated ones, and where nothing real is known: clock and wear.
    pub fn simulate(&mut self, board: &Board, sim: &SimBoard) {
        let parts = sim.parts();
        for (config, (_, zone)) in board.thermal_zones.iter().zip(&mut self.zones) {
            if let ZoneSource::Simulated { .. } = config.source
                && let Some((_, simulated)) =
                    parts.zones.iter().find(|(name, _)| *name == config.name)
            {
                *zone = Box::new(simulated.clone());
            }
        }
        for (config, (_, sensor)) in board.power.iter().zip(&mut self.power) {
            if config.source == PowerSource::Simulated {
                *sensor = Box::new(parts.power.clone());
            }
        }
        if let Some(config) = &board.gpu
            && config.source == GpuSource::Simulated
            && let Some(gpu) = &parts.gpu
        {
            self.gpu = Some(Box::new(gpu.clone()));
        }
        let is_storage_simulated = matches!(board.storage.source, StorageSource::Simulated { .. });
        if self.storage_health.is_none() || is_storage_simulated {
            self.storage_health = Some(Box::new(parts.storage_health.clone()));
        }
        if self.clock.is_none() {
            self.clock = Some(Box::new(parts.clock.clone()));
        }
    }
}

/// A simulated board that lives as long as the machine that plays it: the processor's real load heats it.
#[derive(Debug)]
pub struct SimFollower {
    board: SimBoard,
    looked: Instant,
    cpu_share: f64,
}

impl SimFollower {
    /// Lets `board` live from now on.
    #[must_use]
    pub fn new(board: SimBoard) -> Self {
        Self {
            board,
            looked: Instant::now(),
            cpu_share: 0.0,
        }
    }

    /// The board.
    #[must_use]
    pub fn board(&self) -> &SimBoard {
        &self.board
    }

    /// Lets the time since the previous look pass under this load.
    pub(super) fn look(&mut self, cpu_load_percent: Option<f32>) {
        let now = Instant::now();
        let elapsed = now.saturating_duration_since(self.looked);
        self.looked = now;
        self.advance(elapsed, cpu_load_percent);
    }

    /// Lets `elapsed` pass under this load; without one, under the last.
    pub fn advance(&mut self, elapsed: Duration, cpu_load_percent: Option<f32>) {
        if let Some(percent) = cpu_load_percent {
            self.cpu_share = f64::from(percent) / 100.0;
        }
        let loads = Loads {
            cpu_share: self.cpu_share,
            gpu_share: self.board.rendering(),
        };
        self.board.advance(elapsed, loads);
    }
}
