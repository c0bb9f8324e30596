//! The hardware of a board as its file describes it: processor, temperatures, fan, GPU, power, watchdog, LEDs.

use serde::Deserialize;

/// Cores that share a clock.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CpuCluster {
    /// Name in telemetry.
    pub name: String,
    /// What its cores are best for.
    pub role: CpuRole,
    /// Numbers of its cores, as in `/sys/devices/system/cpu/cpu*`.
    pub cores: Vec<u16>,
    /// Highest frequency, in thousands of cycles a second; none where the kernel shows no frequency.
    pub max_khz: Option<u32>,
}

/// What the cores of a cluster are best for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum CpuRole {
    /// Little work at little power.
    Efficiency,
    /// Sustained work.
    Performance,
    /// The fastest core.
    Prime,
}

/// A place whose temperature is known.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ThermalZoneConfig {
    /// Name in telemetry.
    pub name: String,
    /// Where its temperature comes from.
    pub source: ZoneSource,
    /// What heats it most.
    pub heated_by: HeatedBy,
    /// Where the governor holds it, in thousandths of a degree Celsius; none where it is only watched.
    pub target_millicelsius: Option<i32>,
    /// Points at which the kernel acts, in rising order.
    #[serde(default)]
    pub trips: Vec<Trip>,
}

impl ThermalZoneConfig {
    /// Temperature at which the kernel switches the board off, in thousandths of a degree Celsius.
    #[must_use]
    pub fn critical_millicelsius(&self) -> Option<i32> {
        let critical = |trip: &&Trip| trip.kind == TripKind::Critical;
        self.trips
            .iter()
            .find(critical)
            .map(|trip| trip.millicelsius)
    }
}

/// What heats a thermal zone most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum HeatedBy {
    /// The processor: inference.
    Cpu,
    /// The GPU: rendering.
    Gpu,
    /// Everything together.
    Board,
}

/// A point at which the kernel acts by itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Trip {
    /// What it does.
    pub kind: TripKind,
    /// Temperature, in thousandths of a degree Celsius.
    pub millicelsius: i32,
    /// How far below it the kernel lets go, in thousandths of a degree.
    #[serde(default)]
    pub hysteresis_millicelsius: u32,
}

/// What the kernel does at a trip point (Documentation/devicetree/bindings/thermal/thermal-zones.yaml).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum TripKind {
    /// Starts a fan.
    Active,
    /// Slows clocks.
    Passive,
    /// Tells drivers.
    Hot,
    /// Switches off.
    Critical,
}

/// Where a temperature comes from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ZoneSource {
    /// A zone of the kernel's thermal framework.
    Thermal {
        /// Content of its `type` file.
        #[serde(rename = "type")]
        zone_type: String,
    },
    /// An input of a hardware monitoring chip.
    Hwmon {
        /// Content of the chip's `name` file.
        chip: String,
        /// The input, such as `temp1`.
        input: String,
    },
    /// The thermal model of [`crate::sim`]: a mass that load heats and the case cools.
    Simulated {
        /// Heat without load, in thousandths of a watt.
        idle_milliwatts: u32,
        /// Heat that full load adds, in thousandths of a watt.
        full_load_milliwatts: u32,
        /// Heat that warms it by a degree, in thousandths of a joule.
        millijoules_per_kelvin: u32,
        /// How much warmer than the case a watt keeps it, in thousandths of a degree.
        millikelvin_per_watt: u32,
    },
}

/// The fan.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct FanConfig {
    /// Where it is driven and read.
    pub source: FanSource,
    /// Speed by the hottest governed temperature; linear in between, rising in both.
    pub curve: Vec<FanPoint>,
    /// Lowest speed at which it turns at all, in percent.
    pub min_percent: u8,
}

/// A point of a fan's curve.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct FanPoint {
    /// Temperature, in thousandths of a degree Celsius.
    pub millicelsius: i32,
    /// Speed, 0 to 100.
    pub percent: u8,
}

/// Where a fan is driven.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum FanSource {
    /// A hardware monitoring chip.
    Hwmon {
        /// Content of the chip's `name` file.
        chip: String,
        /// The output, such as `pwm1`.
        pwm: String,
        /// The input that counts turns, such as `fan1`.
        tachometer: Option<String>,
    },
    /// The thermal model of [`crate::sim`].
    Simulated {
        /// Turns a minute at full speed.
        max_rpm: u32,
    },
}

/// The GPU.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct GpuConfig {
    /// Its name, for people.
    pub name: String,
    /// Where its frequency and load come from.
    pub source: GpuSource,
    /// Highest frequency, in thousands of cycles a second.
    pub max_khz: Option<u32>,
}

/// Where readings of a GPU come from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum GpuSource {
    /// Mainline Linux: `/sys/class/devfreq/{device}`.
    Devfreq {
        /// Name of the device, such as `3d00000.gpu`.
        device: String,
    },
    /// Qualcomm's own driver: `/sys/class/kgsl/{device}`.
    Kgsl {
        /// Name of the device, such as `kgsl-3d0`.
        device: String,
    },
    /// Readings that somebody sets.
    Simulated,
}

/// A power rail or supply whose power or voltage is known.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PowerConfig {
    /// Name in telemetry.
    pub name: String,
    /// Where its readings come from.
    pub source: PowerSource,
}

/// Where power and voltage come from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum PowerSource {
    /// Inputs of a hardware monitoring chip; at least one.
    Hwmon {
        /// Content of the chip's `name` file.
        chip: String,
        /// The power input, such as `power1`.
        power: Option<String>,
        /// The voltage input, such as `in1`.
        voltage: Option<String>,
        /// The current input, such as `curr1`.
        current: Option<String>,
    },
    /// `/sys/class/power_supply/{device}`.
    PowerSupply {
        /// Name of the device.
        device: String,
    },
    /// Energy counters of x86 processors: `/sys/class/powercap/{zone}`.
    Rapl {
        /// Name of the zone, such as `intel-rapl:0`.
        zone: String,
    },
    /// What the thermal model of [`crate::sim`] spends.
    Simulated,
}

/// The watchdog that resets the box when nobody feeds it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct WatchdogConfig {
    /// Which one.
    pub source: WatchdogSource,
    /// Seconds without food after which it resets the box.
    pub timeout_s: u32,
    /// Seconds before the reset at which the kernel is told, where the hardware can.
    pub pretimeout_s: Option<u32>,
}

/// Which watchdog.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum WatchdogSource {
    /// The `/dev/watchdog*` with this identity (`WDIOC_GETSUPPORT`, `/sys/class/watchdog/*/identity`).
    Linux {
        /// Its identity.
        identity: String,
    },
    /// One that remembers instead of resetting.
    Simulated,
}

/// A light, and what it says.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LedConfig {
    /// Name of its folder in `/sys/class/leds`.
    pub name: String,
    /// What it says.
    pub meaning: LedMeaning,
}

/// What a light says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum LedMeaning {
    /// On: the box serves. Blinking: it starts.
    Serving,
    /// On: the broker is reached.
    Network,
    /// On: the owner should run `doctor`.
    Fault,
}

/// What the thermal model of [`crate::sim`] knows of the case that all simulated zones share.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SimulationConfig {
    /// Temperature of the air around the box, in thousandths of a degree Celsius.
    pub ambient_millicelsius: i32,
    /// Heat that warms the case by a degree, in thousandths of a joule.
    pub millijoules_per_kelvin: u32,
    /// How much warmer than the air a watt keeps the case without a fan, in thousandths of a degree.
    pub millikelvin_per_watt: u32,
    /// The same with the fan at full speed.
    pub millikelvin_per_watt_with_fan: u32,
}
