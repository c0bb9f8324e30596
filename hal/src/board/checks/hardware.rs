//! Rules of clusters, zones, fan, GPU, power, watchdog and lights.

use super::{Check, repeated, steps};
use crate::board::{
    Board, FanConfig, FanSource, GpuSource, PowerSource, SimulationConfig, ThermalZoneConfig,
    TripKind, WatchdogSource, ZoneSource,
};

/// Content of a thermal zone's `type` file holds one character less than this
/// (`THERMAL_NAME_LENGTH`, include/uapi/linux/thermal.h).
const THERMAL_NAME_LENGTH: usize = 20;

/// Temperatures that a sensor of a box can mean, in thousandths of a degree Celsius.
const SANE_MILLICELSIUS: std::ops::RangeInclusive<i32> = -40_000..=200_000;

impl Check<'_> {
    pub(super) fn hardware(&mut self, board: &Board) {
        self.clusters(board);
        self.zones(board);
        if let Some(fan) = &board.fan {
            self.fan(fan, board.simulation.as_ref());
        }
        if let Some(model) = &board.simulation {
            self.simulation(model);
        }
        if let Some(gpu) = &board.gpu {
            self.rule(gpu.max_khz != Some(0), steps!["gpu", "max_khz"], || {
                "max_khz in gpu is 0".to_owned()
            });
            if gpu.source == GpuSource::Simulated {
                self.only_tag(steps!["gpu", "source"]);
            }
        }
        self.power(board);
        self.watchdog(board);
        self.distinct(
            "led",
            "name",
            board.leds.iter().map(|led| led.name.as_str()),
        );
        for (index, led) in board.leds.iter().enumerate() {
            let is_folder = !led.name.is_empty() && !led.name.contains('/') && led.name != "..";
            self.rule(is_folder, steps!["led", index, "name"], || {
                format!("led name {:?} is no folder of /sys/class/leds", led.name)
            });
        }
    }

    fn clusters(&mut self, board: &Board) {
        let key = "cpu_cluster";
        let clusters = &board.cpu_clusters;
        self.distinct(key, "name", clusters.iter().map(|c| c.name.as_str()));
        for (index, cluster) in clusters.iter().enumerate() {
            self.name(&cluster.name, steps![key, index, "name"]);
            self.rule(
                !cluster.cores.is_empty(),
                steps![key, index, "cores"],
                || format!("cpu_cluster {:?} has no cores", cluster.name),
            );
            self.rule(
                cluster.max_khz != Some(0),
                steps![key, index, "max_khz"],
                || format!("max_khz in cpu_cluster {:?} is 0", cluster.name),
            );
        }
        let cores = clusters
            .iter()
            .enumerate()
            .flat_map(|(index, cluster)| cluster.cores.iter().map(move |core| (index, *core)));
        let owners: Vec<(usize, u16)> = cores.collect();
        for (first, again, core) in repeated(owners.iter().map(|(_, core)| *core)) {
            let cluster = |position: usize| owners.get(position).map_or(0, |(index, _)| *index);
            let name = |index: usize| clusters.get(index).map_or("", |c| c.name.as_str());
            let (earlier, later) = (cluster(first), cluster(again));
            self.wrong(
                steps![key, later, "cores"],
                format!(
                    "core {core} of cpu_cluster {:?} is already one of {:?}",
                    name(later),
                    name(earlier)
                ),
            );
        }
    }

    fn zones(&mut self, board: &Board) {
        let key = "thermal_zone";
        let zones = &board.thermal_zones;
        self.distinct(key, "name", zones.iter().map(|z| z.name.as_str()));
        for (index, zone) in zones.iter().enumerate() {
            self.name(&zone.name, steps![key, index, "name"]);
            self.trips(index, zone);
            match &zone.source {
                ZoneSource::Thermal { zone_type } => {
                    let fits = (1..THERMAL_NAME_LENGTH).contains(&zone_type.len());
                    self.rule(fits, steps![key, index, "source", "type"], || {
                        format!(
                            "type {zone_type:?} of thermal_zone {:?} has not 1 to {} characters, as the kernel's have",
                            zone.name,
                            THERMAL_NAME_LENGTH - 1
                        )
                    });
                }
                ZoneSource::Hwmon { input, .. } => {
                    self.channel(
                        &[key.into(), index.into(), "source".into(), "input".into()],
                        input,
                        "temp",
                    );
                }
                ZoneSource::Simulated {
                    millijoules_per_kelvin,
                    ..
                } => {
                    self.rule(board.simulation.is_some(), steps![key, index, "source"], || {
                        format!(
                            "thermal_zone {:?} is simulated, but the board has no [simulation] for its case",
                            zone.name
                        )
                    });
                    self.rule(
                        *millijoules_per_kelvin > 0,
                        steps![key, index, "source", "millijoules_per_kelvin"],
                        || {
                            format!(
                                "millijoules_per_kelvin of thermal_zone {:?} is 0: nothing warms without a mass",
                                zone.name
                            )
                        },
                    );
                }
            }
        }
    }

    fn trips(&mut self, index: usize, zone: &ThermalZoneConfig) {
        let key = "thermal_zone";
        let name = &zone.name;
        for (position, pair) in zone.trips.windows(2).enumerate() {
            if let [low, high] = pair {
                self.rule(
                    low.millicelsius < high.millicelsius,
                    steps![key, index, "trips", position + 1],
                    || {
                        format!(
                            "trips of thermal_zone {name:?} do not rise: {} comes after {}",
                            high.millicelsius, low.millicelsius
                        )
                    },
                );
            }
        }
        for (position, trip) in zone.trips.iter().enumerate() {
            self.temperature(trip.millicelsius, steps![key, index, "trips", position]);
        }
        let Some(target) = zone.target_millicelsius else {
            return;
        };
        let place = steps![key, index, "target_millicelsius"];
        self.temperature(target, place);
        let acts = |kind| matches!(kind, TripKind::Passive | TripKind::Hot | TripKind::Critical);
        if let Some(trip) = zone.trips.iter().find(|trip| acts(trip.kind)) {
            self.rule(target < trip.millicelsius, place, || {
                format!(
                    "target_millicelsius {target} in thermal_zone {name:?} is not below {}, where the kernel acts itself",
                    trip.millicelsius
                )
            });
        }
    }

    fn temperature(&mut self, millicelsius: i32, place: &[super::Step]) {
        self.rule(SANE_MILLICELSIUS.contains(&millicelsius), place, || {
            format!(
                "{millicelsius} is no temperature of a box in thousandths of a degree ({} to {})",
                SANE_MILLICELSIUS.start(),
                SANE_MILLICELSIUS.end()
            )
        });
    }

    fn fan(&mut self, fan: &FanConfig, simulation: Option<&SimulationConfig>) {
        let percents = fan.curve.iter().map(|point| point.percent);
        for (index, percent) in percents.enumerate() {
            self.rule(percent <= 100, steps!["fan", "curve", index], || {
                format!("curve of fan has {percent} percent")
            });
        }
        self.rule(fan.min_percent <= 100, steps!["fan", "min_percent"], || {
            format!("min_percent of fan is {}", fan.min_percent)
        });
        self.rule(fan.curve.len() >= 2, steps!["fan", "curve"], || {
            "curve of fan has not two points".to_owned()
        });
        for (position, pair) in fan.curve.windows(2).enumerate() {
            if let [low, high] = pair {
                let rises = low.millicelsius < high.millicelsius && low.percent <= high.percent;
                self.rule(rises, steps!["fan", "curve", position + 1], || {
                    format!(
                        "curve of fan does not rise: {} at {} % comes after {} at {} %",
                        high.millicelsius, high.percent, low.millicelsius, low.percent
                    )
                });
            }
        }
        match &fan.source {
            FanSource::Hwmon {
                pwm, tachometer, ..
            } => {
                self.channel(steps!["fan", "source", "pwm"], pwm, "pwm");
                if let Some(input) = tachometer {
                    self.channel(steps!["fan", "source", "tachometer"], input, "fan");
                }
            }
            FanSource::Simulated { max_rpm } => {
                self.rule(*max_rpm > 0, steps!["fan", "source", "max_rpm"], || {
                    "max_rpm of fan is 0".to_owned()
                });
                self.rule(simulation.is_some(), steps!["fan", "source"], || {
                    "fan is simulated, but the board has no [simulation] for its case".to_owned()
                });
            }
        }
    }

    fn simulation(&mut self, model: &SimulationConfig) {
        for (key, value) in [
            ("millijoules_per_kelvin", model.millijoules_per_kelvin),
            ("millikelvin_per_watt", model.millikelvin_per_watt),
            (
                "millikelvin_per_watt_with_fan",
                model.millikelvin_per_watt_with_fan,
            ),
        ] {
            self.rule(value > 0, steps!["simulation", key], || {
                format!("{key} in simulation is 0")
            });
        }
        self.rule(
            model.millikelvin_per_watt_with_fan <= model.millikelvin_per_watt,
            steps!["simulation", "millikelvin_per_watt_with_fan"],
            || "millikelvin_per_watt_with_fan in simulation says that the fan heats".to_owned(),
        );
        self.temperature(
            model.ambient_millicelsius,
            steps!["simulation", "ambient_millicelsius"],
        );
    }

    fn power(&mut self, board: &Board) {
        self.distinct("power", "name", board.power.iter().map(|p| p.name.as_str()));
        for (index, rail) in board.power.iter().enumerate() {
            self.name(&rail.name, steps!["power", index, "name"]);
            match &rail.source {
                PowerSource::Hwmon {
                    power,
                    voltage,
                    current,
                    ..
                } => {
                    let inputs = [
                        ("power", power, "power"),
                        ("voltage", voltage, "in"),
                        ("current", current, "curr"),
                    ];
                    self.rule(
                        inputs.iter().any(|(_, input, _)| input.is_some()),
                        steps!["power", index, "source"],
                        || {
                            format!(
                                "source of power {:?} names none of power, voltage and current",
                                rail.name
                            )
                        },
                    );
                    for (key, input, prefix) in inputs {
                        if let Some(input) = input {
                            self.channel(steps!["power", index, "source", key], input, prefix);
                        }
                    }
                }
                PowerSource::Simulated => self.only_tag(steps!["power", index, "source"]),
                PowerSource::PowerSupply { .. } | PowerSource::Rapl { .. } => {}
            }
        }
    }

    fn watchdog(&mut self, board: &Board) {
        let Some(watchdog) = &board.watchdog else {
            return;
        };
        self.rule(
            watchdog.timeout_s > 0,
            steps!["watchdog", "timeout_s"],
            || "timeout_s of watchdog is 0".to_owned(),
        );
        if let Some(pretimeout) = watchdog.pretimeout_s {
            self.rule(
                pretimeout > 0 && pretimeout < watchdog.timeout_s,
                steps!["watchdog", "pretimeout_s"],
                || {
                    format!(
                        "pretimeout_s of watchdog is {pretimeout}, not between 0 and timeout_s ({})",
                        watchdog.timeout_s
                    )
                },
            );
        }
        match &watchdog.source {
            WatchdogSource::Linux { identity } => {
                self.rule(
                    !identity.is_empty(),
                    steps!["watchdog", "source", "identity"],
                    || "identity of watchdog is empty".to_owned(),
                );
            }
            WatchdogSource::Simulated => self.only_tag(steps!["watchdog", "source"]),
        }
    }

    /// A channel of a hardware monitoring chip: its prefix and a number (Documentation/hwmon/sysfs-interface.rst).
    fn channel(&mut self, place: &[super::Step], channel: &str, prefix: &str) {
        let is_channel = channel
            .strip_prefix(prefix)
            .is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()));
        self.rule(is_channel, place, || {
            format!("{channel:?} is no such input of a monitoring chip; one is {prefix}1")
        });
    }
}
