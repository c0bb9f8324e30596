//! Lights: what the owner sees without a screen.

use std::path::{Path, PathBuf};

use crate::{
    board::LedMeaning,
    kernel_file::{KernelFile, KernelFileError},
    kernel_setting::{KernelSetting, KernelSettingError},
    sim::{SimFault, SimReading},
};

/// A light.
pub trait Led: Send {
    /// Lets it shine as `state` says.
    ///
    /// # Errors
    /// [`LedError`] when it does not obey.
    fn set(&mut self, state: LedState) -> Result<(), LedError>;
}

/// How a light shines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LedState {
    /// Dark.
    Off,
    /// As bright as it can.
    On,
    /// On and off in turn.
    Blink {
        /// Milliseconds on.
        on_ms: u32,
        /// Milliseconds off.
        off_ms: u32,
    },
}

/// Why a light does not obey.
#[derive(Debug, thiserror::Error)]
pub enum LedError {
    /// None of the name that the board file states.
    #[error("no light {name:?} below {}; correct the board file or load the driver", below.display())]
    Missing {
        /// Its name.
        name: String,
        /// Where it was looked for.
        below: PathBuf,
    },
    /// The kernel's file that is read.
    #[error(transparent)]
    Kernel(#[from] KernelFileError),
    /// The kernel's file that is written.
    #[error(transparent)]
    Setting(#[from] KernelSettingError),
    /// The simulation.
    #[error(transparent)]
    Simulated(#[from] SimFault),
}

/// A light of the kernel's LED class: `/sys/class/leds/{name}` (Documentation/leds/leds-class.rst). Blinking is the
/// kernel's: it goes on when the agent hangs.
#[derive(Debug, Clone)]
pub struct SysfsLed {
    class: PathBuf,
    name: String,
}

impl SysfsLed {
    /// The light of this name below `root`.
    #[must_use]
    pub fn new(root: &Path, name: &str) -> Self {
        Self {
            class: root.join("sys/class/leds"),
            name: name.to_owned(),
        }
    }

    /// Looks whether the light is there, without touching it.
    ///
    /// # Errors
    /// [`LedError`] when it is not.
    pub fn probe(&self) -> Result<(), LedError> {
        self.max_brightness().map(|_| ())
    }

    fn folder(&self) -> Result<PathBuf, LedError> {
        let folder = self.class.join(&self.name);
        // A name with a path in it would leave the class.
        let is_name =
            !self.name.is_empty() && !self.name.contains('/') && !self.name.starts_with('.');
        if !is_name || !folder.is_dir() {
            return Err(LedError::Missing {
                name: self.name.clone(),
                below: self.class.clone(),
            });
        }
        Ok(folder)
    }

    fn max_brightness(&self) -> Result<u32, LedError> {
        let mut file = KernelFile::new(&self.folder()?, "max_brightness");
        Ok(file.parse("whole number above 0", |text| {
            text.trim().parse().ok().filter(|max| *max > 0)
        })?)
    }
}

impl Led for SysfsLed {
    fn set(&mut self, state: LedState) -> Result<(), LedError> {
        let folder = self.folder()?;
        let write = |file: &str, value: &str| KernelSetting::new(&folder, file).write(value);
        // Also ends any blinking.
        write("trigger", "none")?;
        match state {
            LedState::Off => write("brightness", "0")?,
            LedState::On => write("brightness", &self.max_brightness()?.to_string())?,
            LedState::Blink { on_ms, off_ms } => {
                // The timer takes the brightness that it finds; its delays exist from then on.
                write("brightness", &self.max_brightness()?.to_string())?;
                write("trigger", "timer")?;
                // Both 0 mean "whatever the driver likes".
                write("delay_on", &on_ms.max(1).to_string())?;
                write("delay_off", &off_ms.max(1).to_string())?;
            }
        }
        Ok(())
    }
}

/// A light that remembers; told to fail, it takes no order.
#[derive(Debug, Clone)]
pub struct SimLed(pub SimReading<LedState>);

impl Led for SimLed {
    fn set(&mut self, state: LedState) -> Result<(), LedError> {
        self.0.read()?;
        self.0.set(state);
        Ok(())
    }
}

/// The board's lights by what they say.
#[derive(Default)]
pub struct Lights {
    lights: Vec<Light>,
}

struct Light {
    meaning: LedMeaning,
    led: Box<dyn Led>,
    /// What it shows; none when that is not known.
    shows: Option<LedState>,
}

impl Lights {
    /// These lights, whose state is not known yet.
    #[must_use]
    pub fn new(lights: Vec<(LedMeaning, Box<dyn Led>)>) -> Self {
        let lights = lights.into_iter().map(|(meaning, led)| Light {
            meaning,
            led,
            shows: None,
        });
        Self {
            lights: lights.collect(),
        }
    }

    /// Lets all lights of this meaning shine as `state` says; a board without one says nothing. What a light shows
    /// already is not set again, so that blinking keeps its beat.
    ///
    /// # Errors
    /// The first light's [`LedError`]; the others were set all the same.
    pub fn show(&mut self, meaning: LedMeaning, state: LedState) -> Result<(), LedError> {
        let mut result = Ok(());
        for light in self.lights.iter_mut().filter(|l| l.meaning == meaning) {
            if light.shows == Some(state) {
                continue;
            }
            let set = light.led.set(state);
            light.shows = set.is_ok().then_some(state);
            result = result.and(set);
        }
        result
    }
}

impl std::fmt::Debug for Lights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = self.lights.iter().map(|light| (light.meaning, light.shows));
        f.debug_list().entries(shown).finish()
    }
}
