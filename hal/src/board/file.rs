//! The written form of a board file, and the checks between its keys. Each problem knows its place in the text.

use serde::Deserialize;
use toml::Spanned;

use super::{Board, ExecutionProvider, StorageSource, ThermalZoneConfig, ZoneSource};

/// Longest name of a board or a zone, in bytes.
const NAME_MAX_BYTES: usize = 63;

/// What is wrong at a byte offset of the file.
pub(super) struct Problem {
    pub(super) offset: usize,
    pub(super) text: String,
}

impl Problem {
    fn at<T>(place: &Spanned<T>, text: impl Into<String>) -> Self {
        Self {
            offset: place.span().start,
            text: text.into(),
        }
    }
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BoardFile {
    board: BoardSection,
    storage: Spanned<StorageSection>,
    inference: InferenceSection,
    #[serde(default, rename = "thermal_zone")]
    thermal_zones: Vec<Spanned<ThermalZoneSection>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BoardSection {
    name: Spanned<String>,
    description: String,
    #[serde(default)]
    compatible: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InferenceSection {
    execution_providers: Spanned<Vec<ExecutionProvider>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StorageSection {
    kind: StorageKind,
    total_bytes: Option<u64>,
    available_bytes: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum StorageKind {
    Linux,
    Simulated,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ThermalZoneSection {
    name: Spanned<String>,
    kind: ZoneKind,
    #[serde(rename = "type")]
    zone_type: Option<String>,
    chip: Option<String>,
    input: Option<String>,
    base_millicelsius: Option<i32>,
    per_load_millicelsius: Option<i32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ZoneKind {
    Linux,
    Hwmon,
    Simulated,
}

impl BoardFile {
    /// The board, when names, kinds and keys agree.
    pub(super) fn check(self) -> Result<Board, Problem> {
        check_name(&self.board.name)?;
        let providers = self.inference.execution_providers;
        if providers.get_ref().is_empty() {
            return Err(Problem::at(
                &providers,
                "execution_providers is empty; every board has \"cpu\"",
            ));
        }
        let mut thermal_zones: Vec<ThermalZoneConfig> = Vec::new();
        for zone in self.thermal_zones {
            let name = &zone.get_ref().name;
            check_name(name)?;
            if thermal_zones.iter().any(|z| z.name == *name.get_ref()) {
                let text = format!("two thermal zones are called {:?}", name.get_ref());
                return Err(Problem::at(name, text));
            }
            let source = zone
                .get_ref()
                .source()
                .map_err(|text| Problem::at(&zone, text))?;
            thermal_zones.push(ThermalZoneConfig {
                name: zone.into_inner().name.into_inner(),
                source,
            });
        }
        let storage = self
            .storage
            .get_ref()
            .source()
            .map_err(|text| Problem::at(&self.storage, text))?;
        Ok(Board {
            name: self.board.name.into_inner(),
            description: self.board.description,
            compatible: self.board.compatible,
            storage,
            execution_providers: providers.into_inner(),
            thermal_zones,
        })
    }
}

impl StorageSection {
    fn source(&self) -> Result<StorageSource, String> {
        match (&self.kind, self.total_bytes, self.available_bytes) {
            (StorageKind::Linux, None, None) => Ok(StorageSource::Linux),
            (StorageKind::Linux, ..) => {
                Err("storage of kind \"linux\" has no other key".to_owned())
            }
            (StorageKind::Simulated, Some(total_bytes), Some(available_bytes)) => {
                Ok(StorageSource::Simulated {
                    total_bytes,
                    available_bytes,
                })
            }
            (StorageKind::Simulated, ..) => Err(
                "storage of kind \"simulated\" needs total_bytes and available_bytes".to_owned(),
            ),
        }
    }
}

impl ThermalZoneSection {
    /// The source that the keys state together: those of its kind, all of them, and no other.
    fn source(&self) -> Result<ZoneSource, String> {
        let Self {
            zone_type,
            chip,
            input,
            base_millicelsius: base,
            per_load_millicelsius: per_load,
            ..
        } = self;
        match (&self.kind, zone_type, chip, input, base, per_load) {
            (ZoneKind::Linux, Some(zone_type), None, None, None, None) => Ok(ZoneSource::Linux {
                zone_type: zone_type.clone(),
            }),
            (ZoneKind::Hwmon, None, Some(chip), Some(input), None, None) => Ok(ZoneSource::Hwmon {
                chip: chip.clone(),
                input: input.clone(),
            }),
            (ZoneKind::Simulated, None, None, None, Some(base), Some(per_load)) => {
                Ok(ZoneSource::Simulated {
                    base_millicelsius: *base,
                    per_load_millicelsius: *per_load,
                })
            }
            (kind, ..) => {
                let (kind, keys) = match kind {
                    ZoneKind::Linux => ("linux", "type"),
                    ZoneKind::Hwmon => ("hwmon", "chip and input"),
                    ZoneKind::Simulated => {
                        ("simulated", "base_millicelsius and per_load_millicelsius")
                    }
                };
                Err(format!(
                    "a thermal zone of kind {kind:?} has name, kind, {keys}, all of them and no other key"
                ))
            }
        }
    }
}

/// Names end in metric names and topics, so they are as narrow as topic levels.
fn check_name(name: &Spanned<String>) -> Result<(), Problem> {
    let text = name.get_ref();
    let is_plain = text
        .bytes()
        .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    if !text.is_empty() && text.len() <= NAME_MAX_BYTES && is_plain && !text.starts_with('-') {
        return Ok(());
    }
    Err(Problem::at(
        name,
        format!(
            "{text:?} is no name: 1 to {NAME_MAX_BYTES} characters of a-z, 0-9 and '-', not starting with '-'"
        ),
    ))
}
