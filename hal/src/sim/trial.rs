//! Trials of whatever governs a board: the loop closed over a simulated board, sensors with the flaws of real ones,
//! and the oracle that knows the board and so does the most work that the targets allow.

use std::time::Duration;

use super::{
    board::{PowerState, SimBoard},
    script::{Script, ScriptError},
    thermal_model::{Loads, ThermalModel},
};
use crate::{
    board::{Board, HeatedBy, ZoneSource},
    fan::Fan,
    governor::{Decision, Duty, Observation},
};

/// One step of a trial: the governor is asked, and the oracle decides.
const STEP: Duration = Duration::from_secs(1);
/// Requests begin and end at multiples of this.
const TICK: Duration = Duration::from_millis(250);
/// Ticks of a step.
const TICKS: u32 = 4;

/// The hot afternoon: eight hours, air from 22 to 41 and back to 27 °C, half an hour without the fan.
///
/// # Errors
/// None: the file is part of the program, and tests read it.
pub fn hot_afternoon() -> Result<Script, ScriptError> {
    Script::parse(
        include_str!("hot_afternoon.toml"),
        "hal/src/sim/hot_afternoon.toml",
    )
}

/// Work that is wanted, as shares of what the board could do in cool air.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Demand {
    /// Inference.
    pub cpu_share: f64,
    /// Rendering.
    pub gpu_share: f64,
}

impl Demand {
    /// Everything, all the time.
    pub const FULL: Self = Self {
        cpu_share: 1.0,
        gpu_share: 1.0,
    };

    /// Demand of the hot afternoon: inference in bursts of ten minutes between five at a third, rendering for twenty
    /// minutes of each forty at three quarters.
    #[must_use]
    pub fn in_bursts(second: u32) -> Self {
        Self {
            cpu_share: if second % 900 < 600 { 1.0 } else { 0.3 },
            gpu_share: if second % 2_400 < 1_200 { 0.75 } else { 0.0 },
        }
    }
}

/// Flaws of the temperature sensors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Flaws {
    /// Error of a reading, evenly spread to both sides, in kelvins.
    pub noise_kelvin: f64,
    /// Steps in which a sensor states temperature, in kelvins.
    pub step_kelvin: f64,
    /// Time constant with which it follows the zone, in seconds.
    pub lag_s: f64,
    /// Which noise.
    pub seed: u64,
}

impl Flaws {
    /// Noise of 1 K, steps of 1 K and 5 s of lag: worse than the sensors on the die, as bad as cheap ones beside it.
    #[must_use]
    pub fn usual(seed: u64) -> Self {
        Self {
            noise_kelvin: 1.0,
            step_kelvin: 1.0,
            lag_s: 5.0,
            seed,
        }
    }
}

/// A second of a trial, as it truly was.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// When.
    pub second: u32,
    /// The air, in degrees Celsius.
    pub air_celsius: f64,
    /// The governed zones, in degrees Celsius.
    pub celsius: Vec<f64>,
    /// What was wanted.
    pub demand: Demand,
    /// What was done.
    pub done: Loads,
    /// What was decided.
    pub decision: Decision,
}

/// A trial: board, events, demand, flaws.
#[derive(Debug, Clone)]
pub struct Trial<'a> {
    /// The board; its governed zones are simulated.
    pub board: &'a Board,
    /// What happens to it.
    pub script: &'a Script,
    /// What is wanted in each second.
    pub demand: fn(u32) -> Demand,
    /// Flaws of its sensors.
    pub flaws: Flaws,
    /// Most requests at a time.
    pub concurrency: u16,
    /// How long a request computes, which nothing interrupts; at least a tick of 250 ms.
    pub request: Duration,
    /// How long.
    pub seconds: u32,
}

impl Trial<'_> {
    /// Runs it under `decide`, and returns every second. A board that switched itself off does no more work.
    ///
    /// # Errors
    /// [`super::SimBoardError`] when the script speaks of parts that the board does not simulate.
    pub fn run(
        &self,
        mut decide: impl FnMut(Duration, &Observation<'_>) -> Decision,
    ) -> Result<Vec<Sample>, super::SimBoardError> {
        let sim = SimBoard::new(self.board);
        sim.play(self.script)?;
        let governed: Vec<_> = governed_zones(self.board)
            .filter_map(|name| sim.parts().zones.iter().find(|(known, _)| *known == name))
            .map(|(_, zone)| zone.0.clone())
            .collect();
        let mut fan = sim.parts().fan.clone();
        let mut sensors: Vec<FlawedSensor> = (0..)
            .take(governed.len())
            .map(|number| FlawedSensor::new(self.flaws, number))
            .collect();
        let mut celsius = vec![f64::NAN; governed.len()];
        let mut readings = vec![None; governed.len()];
        let mut samples = Vec::new();
        let mut inference = Inference::new(self);
        let mut done = Loads::default();
        for second in 0..self.seconds {
            let demand = (self.demand)(second);
            for (((zone, sensor), celsius), reading) in governed
                .iter()
                .zip(&mut sensors)
                .zip(&mut celsius)
                .zip(&mut readings)
            {
                *reading = zone.read().ok().map(|millicelsius| {
                    *celsius = f64::from(millicelsius) / 1_000.0;
                    sensor.read(*celsius)
                });
            }
            let observation = Observation {
                millicelsius: &readings,
                fan_rpm: fan.as_mut().and_then(|fan| fan.read_rpm().ok().flatten()),
                inference_max_concurrency: self.concurrency,
                inference_busy: done.cpu_share * f64::from(self.concurrency),
                gpu_wanted: demand.gpu_share > 0.0,
                gpu_busy: done.gpu_share,
            };
            let decision = decide(STEP, &observation);
            if let Some(fan) = &mut fan {
                // A fan that takes no order is part of the trial.
                let _refused = fan.set_percent(decision.fan_percent).is_err();
            }
            let gpu_share = demand
                .gpu_share
                .min(f64::from(decision.gpu_duty_percent) / 100.0);
            inference.set(decision.inference_concurrency_milli, demand.cpu_share);
            done = Loads::default();
            for _ in 0..TICKS {
                let loads = if sim.power_state() == PowerState::On {
                    Loads {
                        cpu_share: inference.tick(),
                        gpu_share,
                    }
                } else {
                    Loads::default()
                };
                sim.advance(TICK, loads);
                done.cpu_share += loads.cpu_share / f64::from(TICKS);
                done.gpu_share += loads.gpu_share / f64::from(TICKS);
            }
            samples.push(Sample {
                second,
                air_celsius: f64::from(sim.air_millicelsius()) / 1_000.0,
                celsius: celsius.clone(),
                demand,
                done,
                decision,
            });
        }
        Ok(samples)
    }

    /// What the oracle does in each second: it knows the model, has the fan at full speed while it turns, and does
    /// the largest share of the demand, in any fraction, after which no zone is above its target a second later.
    ///
    /// # Errors
    /// As [`Trial::run`].
    pub fn oracle(&self) -> Result<Vec<Loads>, super::SimBoardError> {
        // The board is only there to play the script: its air and its fan.
        let stage = SimBoard::new(self.board);
        stage.play(self.script)?;
        let mut model = ThermalModel::new(self.board);
        let mut fan = stage.parts().fan.clone();
        let max_rpm = self.board.fan.as_ref().map_or(1, |fan| match fan.source {
            crate::board::FanSource::Simulated { max_rpm } => max_rpm.max(1),
            crate::board::FanSource::Hwmon { .. } => 1,
        });
        let mut done = Vec::new();
        for second in 0..self.seconds {
            let mut fan_percent = 0.0;
            if let Some(fan) = &mut fan {
                let _refused = fan.set_percent(100).is_err();
                let rpm = fan.read_rpm().ok().flatten().unwrap_or(0);
                fan_percent = 100.0 * f64::from(rpm) / f64::from(max_rpm);
            }
            stage.advance(STEP, Loads::default());
            stage.power_on();
            model.set_air_celsius(f64::from(stage.air_millicelsius()) / 1_000.0);
            let demand = (self.demand)(second);
            let loads = self.most_allowed(&model, demand, fan_percent);
            model.advance(STEP, loads, fan_percent);
            done.push(loads);
        }
        Ok(done)
    }

    /// Temperatures are linear in the loads, so each zone's limit is found between nothing and everything.
    fn most_allowed(&self, model: &ThermalModel, demand: Demand, fan_percent: f64) -> Loads {
        let after = |loads: Loads| {
            let mut model = model.clone();
            model.advance(STEP, loads, fan_percent);
            model.zones_celsius().collect::<Vec<f64>>()
        };
        let nothing = after(Loads::default());
        let everything = after(Loads {
            cpu_share: demand.cpu_share,
            gpu_share: demand.gpu_share,
        });
        let (mut cpu, mut gpu) = (1.0_f64, 1.0_f64);
        let simulated = self
            .board
            .thermal_zones
            .iter()
            .filter(|zone| matches!(zone.source, ZoneSource::Simulated { .. }));
        for ((zone, cold), hot) in simulated.zip(nothing).zip(everything) {
            let Some(target) = zone.target_millicelsius else {
                continue;
            };
            let target = f64::from(target) / 1_000.0;
            if hot <= target {
                continue;
            }
            let part = ((target - cold) / (hot - cold)).clamp(0.0, 1.0);
            match zone.heated_by {
                HeatedBy::Cpu => cpu = cpu.min(part),
                HeatedBy::Gpu => gpu = gpu.min(part),
                HeatedBy::Board => {
                    cpu = cpu.min(part);
                    gpu = gpu.min(part);
                }
            }
        }
        Loads {
            cpu_share: demand.cpu_share * cpu,
            gpu_share: demand.gpu_share * gpu,
        }
    }
}

/// Requests that begin where both the limit and the demand let one more, and end by themselves.
#[derive(Debug)]
struct Inference {
    concurrency: u16,
    request: Duration,
    allowed: Duty,
    wanted: Duty,
    /// What is left of those that run.
    running: Vec<Duration>,
}

impl Inference {
    fn new(trial: &Trial<'_>) -> Self {
        Self {
            concurrency: trial.concurrency,
            request: trial.request.max(TICK),
            allowed: Duty::new(Duty::UNLIMITED),
            wanted: Duty::new(0),
            running: Vec::new(),
        }
    }

    fn set(&mut self, limit_milli: u32, demand: f64) {
        let wanted = demand.clamp(0.0, 1.0) * f64::from(self.concurrency) * 1_000.0;
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "at most 65,535,000, and not below 0"
        )]
        self.wanted.set(wanted.round() as u32);
        self.allowed.set(limit_milli);
    }

    /// Lets a tick pass: the share of all requests that ran in it.
    fn tick(&mut self) -> f64 {
        let running = |requests: &Vec<Duration>| u32::try_from(requests.len()).unwrap_or(u32::MAX);
        while running(&self.running) < u32::from(self.concurrency)
            && self.allowed.may_begin(running(&self.running))
            && self.wanted.may_begin(running(&self.running))
        {
            self.running.push(self.request);
        }
        let ran = running(&self.running);
        self.allowed.pass(TICK, ran);
        self.wanted.pass(TICK, ran);
        for left in &mut self.running {
            *left = left.saturating_sub(TICK);
        }
        self.running.retain(|left| !left.is_zero());
        f64::from(ran) / f64::from(self.concurrency.max(1))
    }
}

fn governed_zones(board: &Board) -> impl Iterator<Item = &str> {
    let governed = |zone: &&crate::board::ThermalZoneConfig| zone.target_millicelsius.is_some();
    board
        .thermal_zones
        .iter()
        .filter(governed)
        .map(|zone| zone.name.as_str())
}

/// A sensor that is late, coarse and noisy.
#[derive(Debug, Clone)]
struct FlawedSensor {
    flaws: Flaws,
    follows: Option<f64>,
    random: u64,
}

impl FlawedSensor {
    fn new(flaws: Flaws, number: u64) -> Self {
        Self {
            flaws,
            follows: None,
            random: flaws.seed.wrapping_add(number.wrapping_mul(0x9e37)),
        }
    }

    fn read(&mut self, celsius: f64) -> i32 {
        let before = self.follows.unwrap_or(celsius);
        let share = if self.flaws.lag_s > 0.0 {
            -f64::exp_m1(-STEP.as_secs_f64() / self.flaws.lag_s)
        } else {
            1.0
        };
        let follows = before + (celsius - before) * share;
        self.follows = Some(follows);
        let noisy = follows + self.flaws.noise_kelvin * self.noise();
        let step = self.flaws.step_kelvin.max(0.001);
        #[allow(
            clippy::cast_possible_truncation,
            reason = "clamped to the type's range before"
        )]
        let millicelsius = ((noisy / step).round() * step * 1_000.0)
            .clamp(f64::from(i32::MIN), f64::from(i32::MAX)) as i32;
        millicelsius
    }

    /// Evenly between -1 and 1 (splitmix64).
    fn noise(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let top = u32::try_from(mixed >> 32).unwrap_or(0);
        f64::from(top) / f64::from(u32::MAX) * 2.0 - 1.0
    }
}
