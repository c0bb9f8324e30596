//! The thermal model: every zone is a mass that load heats and that gives its heat to the case, and the case gives
//! all heat to the air, better with a fan. Pure: it knows neither clock nor sensors.
//!
//! For a zone with temperature `T`, heat capacity `C`, resistance `R` to the case and power `P`:
//! `C dT/dt = P - (T - T_case) / R`; the case in turn takes the sum of these flows and loses
//! `(T_case - T_air) / R_case`. The fan makes the conductance `1 / R_case` rise in proportion to its speed.
//!
//! Time moves by implicit (backward) Euler steps, which are stable for every step and every board, and lose no heat:
//! what the loads put in is in the masses or in the air, to rounding.

use std::time::Duration;

use crate::board::{Board, HeatedBy, SimulationConfig, ZoneSource};

/// Longest step of the integration. At the shortest time constant of our boards (20 s) its error is below 1 %.
const STEP_S: f64 = 0.25;
/// Most steps of one call: an hour costs no more than this, and is then as inexact as steps of 0.36 s.
const MAX_STEPS: f64 = 10_000.0;
/// The case of a board whose file describes none; the values of `host-sim`.
const DEFAULT_CASE: SimulationConfig = SimulationConfig {
    ambient_millicelsius: 25_000,
    millijoules_per_kelvin: 180_000,
    millikelvin_per_watt: 5_000,
    millikelvin_per_watt_with_fan: 2_000,
};

/// How busy the sources of heat are, 0 to 1; what is no number counts as 0.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Loads {
    /// The processor: inference.
    pub cpu_share: f64,
    /// The GPU: rendering.
    pub gpu_share: f64,
}

impl Loads {
    /// Everything at work.
    pub const FULL: Self = Self {
        cpu_share: 1.0,
        gpu_share: 1.0,
    };

    fn of(self, heated_by: HeatedBy) -> f64 {
        let (cpu, gpu) = (share(self.cpu_share), share(self.gpu_share));
        match heated_by {
            HeatedBy::Cpu => cpu,
            HeatedBy::Gpu => gpu,
            HeatedBy::Board => f64::midpoint(cpu, gpu),
        }
    }
}

/// A share between 0 and 1; `NaN` is 0.
fn share(value: f64) -> f64 {
    if value.is_nan() {
        0.0
    } else {
        value.clamp(0.0, 1.0)
    }
}

/// Temperatures of a board's simulated zones and case.
#[derive(Debug, Clone, PartialEq)]
pub struct ThermalModel {
    zones: Vec<Zone>,
    case: Case,
    air_celsius: f64,
    joules_in: f64,
    joules_out: f64,
}

#[derive(Debug, Clone, PartialEq)]
struct Zone {
    heated_by: HeatedBy,
    idle_watts: f64,
    full_load_watts: f64,
    joules_per_kelvin: f64,
    /// Conductance to the case.
    watts_per_kelvin: f64,
    celsius: f64,
}

#[derive(Debug, Clone, PartialEq)]
struct Case {
    joules_per_kelvin: f64,
    /// Conductance to the air without a fan.
    watts_per_kelvin: f64,
    /// The same with the fan at full speed.
    watts_per_kelvin_with_fan: f64,
    celsius: f64,
}

impl ThermalModel {
    /// The simulated zones of `board` in its order, all as warm as the air. A capacity or resistance of 0 counts as
    /// the smallest that a board file can state.
    #[must_use]
    pub fn new(board: &Board) -> Self {
        let case = board.simulation.as_ref().unwrap_or(&DEFAULT_CASE);
        let air_celsius = f64::from(case.ambient_millicelsius) / 1_000.0;
        let zones = board.thermal_zones.iter().filter_map(|zone| {
            let ZoneSource::Simulated {
                idle_milliwatts,
                full_load_milliwatts,
                millijoules_per_kelvin,
                millikelvin_per_watt,
            } = zone.source
            else {
                return None;
            };
            Some(Zone {
                heated_by: zone.heated_by,
                idle_watts: thousandths(idle_milliwatts),
                full_load_watts: thousandths(full_load_milliwatts),
                joules_per_kelvin: thousandths(millijoules_per_kelvin.max(1)),
                watts_per_kelvin: 1.0 / thousandths(millikelvin_per_watt.max(1)),
                celsius: air_celsius,
            })
        });
        Self {
            zones: zones.collect(),
            case: Case {
                joules_per_kelvin: thousandths(case.millijoules_per_kelvin.max(1)),
                watts_per_kelvin: 1.0 / thousandths(case.millikelvin_per_watt.max(1)),
                watts_per_kelvin_with_fan: 1.0
                    / thousandths(case.millikelvin_per_watt_with_fan.max(1)),
                celsius: air_celsius,
            },
            air_celsius,
            joules_in: 0.0,
            joules_out: 0.0,
        }
    }

    /// Lets `elapsed` pass under constant loads and a constant speed of the fan, 0 to 100.
    pub fn advance(&mut self, elapsed: Duration, loads: Loads, fan_percent: f64) {
        self.advance_heated(elapsed, Some(loads), fan_percent);
    }

    /// Lets `elapsed` pass with the board switched off: no heat at all, and no fan.
    pub fn cool(&mut self, elapsed: Duration) {
        self.advance_heated(elapsed, None, 0.0);
    }

    fn advance_heated(&mut self, elapsed: Duration, loads: Option<Loads>, fan_percent: f64) {
        let seconds = elapsed.as_secs_f64();
        if seconds <= 0.0 {
            return;
        }
        let steps = (seconds / STEP_S).ceil().clamp(1.0, MAX_STEPS);
        let step_s = seconds / steps;
        let mut left = steps;
        while left > 0.5 {
            self.step(step_s, loads, share(fan_percent / 100.0));
            left -= 1.0;
        }
    }

    /// One implicit step. Each zone's new temperature is a linear function of the case's new one, so the case's
    /// equation alone is solved, and then each zone's.
    fn step(&mut self, step_s: f64, loads: Option<Loads>, fan_share: f64) {
        let case = &mut self.case;
        let to_air = case.watts_per_kelvin
            + fan_share * (case.watts_per_kelvin_with_fan - case.watts_per_kelvin);
        let case_inertia = case.joules_per_kelvin / step_s;
        let mut weight = case_inertia + to_air;
        let mut heat = case_inertia * case.celsius + to_air * self.air_celsius;
        for zone in &self.zones {
            let inertia = zone.joules_per_kelvin / step_s;
            let coupling = zone.watts_per_kelvin / (inertia + zone.watts_per_kelvin);
            weight += coupling * inertia;
            heat += coupling * (inertia * zone.celsius + zone.watts(loads));
        }
        case.celsius = heat / weight;
        for zone in &mut self.zones {
            let watts = zone.watts(loads);
            let inertia = zone.joules_per_kelvin / step_s;
            zone.celsius = (inertia * zone.celsius + watts + zone.watts_per_kelvin * case.celsius)
                / (inertia + zone.watts_per_kelvin);
            self.joules_in += watts * step_s;
        }
        self.joules_out += to_air * (case.celsius - self.air_celsius) * step_s;
    }

    /// Temperatures of the zones, in degrees Celsius, in the board's order.
    pub fn zones_celsius(&self) -> impl Iterator<Item = f64> {
        self.zones.iter().map(|zone| zone.celsius)
    }

    /// Temperature of the case, in degrees Celsius.
    #[must_use]
    pub fn case_celsius(&self) -> f64 {
        self.case.celsius
    }

    /// Temperature of the air, in degrees Celsius.
    #[must_use]
    pub fn air_celsius(&self) -> f64 {
        self.air_celsius
    }

    /// Changes the air's temperature; what is no number changes nothing.
    pub fn set_air_celsius(&mut self, celsius: f64) {
        if celsius.is_finite() {
            self.air_celsius = celsius;
        }
    }

    /// What the zones turn into heat under these loads, in watts.
    #[must_use]
    pub fn watts(&self, loads: Loads) -> f64 {
        self.zones.iter().map(|zone| zone.watts(Some(loads))).sum()
    }

    /// Heat that the zones made since the model began, in joules.
    #[must_use]
    pub fn joules_in(&self) -> f64 {
        self.joules_in
    }

    /// Heat that the air took since the model began, in joules; negative where the air warmed the box.
    #[must_use]
    pub fn joules_out(&self) -> f64 {
        self.joules_out
    }

    /// Heat in zones and case, in joules above 0 °C.
    #[must_use]
    pub fn joules_stored(&self) -> f64 {
        let zones = self.zones.iter().map(|z| z.joules_per_kelvin * z.celsius);
        zones.sum::<f64>() + self.case.joules_per_kelvin * self.case.celsius
    }
}

impl Zone {
    /// Its heat under `loads`; none when the board is off.
    fn watts(&self, loads: Option<Loads>) -> f64 {
        loads.map_or(0.0, |loads| {
            self.idle_watts + self.full_load_watts * loads.of(self.heated_by)
        })
    }
}

fn thousandths(value: u32) -> f64 {
    f64::from(value) / 1_000.0
}
