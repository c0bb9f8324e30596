//! What the governor is compared with: the kernel alone, and a switch.

use edge_hal::Board;
use edge_hal::board::{FanConfig, HeatedBy, ThermalZoneConfig, TripKind};
use edge_hal::governor::{Decision, Observation, Reason};

/// How far below the target the bang-bang peer lets go, in kelvins.
const BANG_BANG_KELVIN: f64 = 3.0;

/// Targets of the governed zones, in degrees Celsius.
pub(super) fn targets(board: &Board) -> Vec<f64> {
    let targets = board
        .thermal_zones
        .iter()
        .filter_map(|zone| zone.target_millicelsius);
    targets.map(degrees).collect()
}

/// No governor: Linux throttles by itself at the passive trip points, one cooling state up at each poll in which a
/// zone is above and not falling, one down at each in which it is below the hysteresis (drivers/thermal/
/// gov_step_wise.c; polled once a second). A cooling state is one request at a time, or an eighth of the GPU's duty.
#[derive(Debug)]
pub(super) struct StepWise {
    zones: Vec<ThrottledZone>,
    fan: Option<FanConfig>,
}

#[derive(Debug)]
struct ThrottledZone {
    heated_by: HeatedBy,
    trip: f64,
    hysteresis: f64,
    state: u16,
    previous: f64,
}

impl StepWise {
    pub(super) fn new(board: &Board) -> Self {
        let zones = governed(board).filter_map(|zone| {
            let passive = zone
                .trips
                .iter()
                .find(|trip| trip.kind == TripKind::Passive)?;
            Some(ThrottledZone {
                heated_by: zone.heated_by,
                trip: degrees(passive.millicelsius),
                hysteresis: f64::from(passive.hysteresis_millicelsius) / 1_000.0,
                state: 0,
                previous: 0.0,
            })
        });
        Self {
            zones: zones.collect(),
            fan: board.fan.clone(),
        }
    }

    pub(super) fn decide(&mut self, seen: &Observation<'_>) -> Decision {
        let (mut cpu, mut gpu) = (0, 0);
        let most = seen.inference_max_concurrency;
        for (zone, celsius) in self.zones.iter_mut().zip(readings(seen)) {
            if celsius >= zone.trip && celsius >= zone.previous {
                zone.state = (zone.state + 1).min(most);
            } else if celsius < zone.trip - zone.hysteresis {
                zone.state = zone.state.saturating_sub(1);
            }
            zone.previous = celsius;
            if zone.heated_by != HeatedBy::Gpu {
                cpu = cpu.max(zone.state);
            }
            if zone.heated_by != HeatedBy::Cpu {
                gpu = gpu.max(zone.state);
            }
        }
        let duty = 100 * u32::from(most - gpu) / u32::from(most.max(1));
        decision(most - cpu, duty, self.fan.as_ref(), seen)
    }
}

/// A switch: nothing above the target, everything 3 K below it.
#[derive(Debug)]
pub(super) struct BangBang {
    zones: Vec<(HeatedBy, f64, bool)>,
    fan: Option<FanConfig>,
}

impl BangBang {
    pub(super) fn new(board: &Board) -> Self {
        let zones = governed(board).zip(targets(board));
        Self {
            zones: zones
                .map(|(zone, target)| (zone.heated_by, target, false))
                .collect(),
            fan: board.fan.clone(),
        }
    }

    pub(super) fn decide(&mut self, seen: &Observation<'_>) -> Decision {
        let (mut cpu, mut gpu) = (seen.inference_max_concurrency, 100);
        for ((heated_by, target, is_cut), celsius) in self.zones.iter_mut().zip(readings(seen)) {
            if celsius >= *target {
                *is_cut = true;
            } else if celsius < *target - BANG_BANG_KELVIN {
                *is_cut = false;
            }
            if *is_cut && *heated_by != HeatedBy::Gpu {
                cpu = 0;
            }
            if *is_cut && *heated_by != HeatedBy::Cpu {
                gpu = 0;
            }
        }
        decision(cpu, gpu, self.fan.as_ref(), seen)
    }
}

fn governed(board: &Board) -> impl Iterator<Item = &ThermalZoneConfig> {
    board
        .thermal_zones
        .iter()
        .filter(|zone| zone.target_millicelsius.is_some())
}

/// The peers see the same sensors, and take a silent one for cold, as the kernel does.
fn readings<'a>(seen: &'a Observation<'_>) -> impl Iterator<Item = f64> + 'a {
    seen.millicelsius
        .iter()
        .map(|reading| reading.map_or(0.0, degrees))
}

fn decision(
    inference_concurrency: u16,
    duty: u32,
    fan: Option<&FanConfig>,
    seen: &Observation<'_>,
) -> Decision {
    let hottest = readings(seen).fold(f64::MIN, f64::max);
    Decision {
        inference_concurrency_milli: u32::from(inference_concurrency) * 1_000,
        gpu_duty_percent: u8::try_from(duty).unwrap_or(100),
        fan_percent: fan.map_or(0, |fan| step_of_curve(fan, hottest)),
        reason: Reason::Unlimited,
        is_fan_stuck: false,
    }
}

/// The kernel's active trip points are steps: the next point of the curve above.
fn step_of_curve(fan: &FanConfig, celsius: f64) -> u8 {
    fan.curve
        .iter()
        .find(|point| celsius <= degrees(point.millicelsius))
        .or(fan.curve.last())
        .map_or(0, |point| point.percent)
}

fn degrees(millicelsius: i32) -> f64 {
    f64::from(millicelsius) / 1_000.0
}
