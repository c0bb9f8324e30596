//! A fan of the kernel's hardware monitoring (Documentation/hwmon/sysfs-interface.rst).

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{Fan, FanError};
use crate::{
    kernel_file::{KernelFile, KernelFileError},
    kernel_setting::{KernelSetting, KernelSettingError},
};

/// `pwmN`: full speed.
const FULL_DUTY: u8 = 255;
/// `pwmN_enable`: the speed is what `pwmN` says. From 2 on the chip decides by itself.
const MODE_MANUAL: u8 = 1;

/// A `pwm*` output of the chip whose `name` is the one wanted, and its tachometer.
///
/// The chip is looked up when it is first needed, and anew when its files have gone (its driver was reloaded). The fan
/// is taken over by the first [`Fan::set_percent`]; reading turns only reads.
///
/// # End
/// [`HwmonFan::release`], or dropping it, sets full speed and then gives the fan back to the chip's automatic mode if
/// that is where it was. A fan that was in manual mode stays at full speed: nobody else would speed it up. A process
/// that is killed cannot do this: the unit that starts the agent must.
#[derive(Debug)]
pub struct HwmonFan {
    class: PathBuf,
    chip: String,
    pwm: String,
    tachometer: Option<String>,
    /// The chip's folder and the mode its output had before; kept only while its files answer.
    taken: Option<Taken>,
}

#[derive(Debug)]
struct Taken {
    folder: PathBuf,
    /// None where the chip has no modes.
    previous_mode: Option<u8>,
}

impl HwmonFan {
    /// Output `pwm` (such as `pwm1`) of the chip named `chip`, with the turns that `tachometer` (such as `fan1`)
    /// counts.
    #[must_use]
    pub fn new(root: &Path, chip: &str, pwm: &str, tachometer: Option<&str>) -> Self {
        Self {
            class: root.join("sys/class/hwmon"),
            chip: chip.to_owned(),
            pwm: pwm.to_owned(),
            tachometer: tachometer.map(str::to_owned),
            taken: None,
        }
    }

    /// Looks whether the chip and its output are there, without touching them.
    ///
    /// # Errors
    /// [`FanError`] names what is missing.
    pub fn probe(&self) -> Result<(), FanError> {
        let folder = self.find_chip()?;
        read_byte(&folder, &self.pwm)?;
        Ok(())
    }

    /// Sets full speed and gives the fan back to the chip, if it was taken over.
    ///
    /// # Errors
    /// [`FanError`] of the first step that failed; the other was still attempted.
    pub fn release(&mut self) -> Result<(), FanError> {
        let Some(taken) = self.taken.take() else {
            return Ok(());
        };
        // First, so that a mode that cannot be set leaves the fan at full speed.
        let full = self.write_duty(&taken.folder, FULL_DUTY);
        // 0 is full speed in the documentation, but "off" in some drivers (pwm-fan): full speed in manual mode is both
        // what the documentation means and safe.
        let mode = match taken.previous_mode {
            Some(mode) if mode > MODE_MANUAL => self.write_mode(&taken.folder, mode),
            _ => Ok(()),
        };
        full?;
        Ok(mode?)
    }

    fn set_duty(&mut self, duty: u8) -> Result<(), FanError> {
        if let Some(taken) = &self.taken
            && self.is_chip(&taken.folder)
            && self.ensure_manual(&taken.folder).is_ok()
            && self.write_duty(&taken.folder, duty).is_ok()
        {
            return Ok(());
        }
        let folder = self.find_chip()?;
        let mode = self.read_mode(&folder)?;
        let previous_mode = match &self.taken {
            // Manual because of us: what it was before still counts.
            Some(taken) if mode == Some(MODE_MANUAL) => taken.previous_mode,
            _ => mode,
        };
        // Recorded before the first write: whatever fails from here on, `release` undoes it.
        self.taken = Some(Taken {
            folder: folder.clone(),
            previous_mode,
        });
        self.ensure_manual(&folder)?;
        self.write_duty(&folder, duty)?;
        Ok(())
    }

    /// Sets the mode if it is not set: others (firmware after a resume) may have changed it.
    fn ensure_manual(&self, folder: &Path) -> Result<(), FanError> {
        match self.read_mode(folder)? {
            None | Some(MODE_MANUAL) => Ok(()),
            Some(_) => Ok(self.write_mode(folder, MODE_MANUAL)?),
        }
    }

    fn read_mode(&self, folder: &Path) -> Result<Option<u8>, KernelFileError> {
        let name = format!("{}_enable", self.pwm);
        if folder.join(&name).exists() {
            read_byte(folder, &name).map(Some)
        } else {
            Ok(None)
        }
    }

    fn write_mode(&self, folder: &Path, mode: u8) -> Result<(), KernelSettingError> {
        KernelSetting::new(folder, &format!("{}_enable", self.pwm)).write(&mode.to_string())
    }

    fn write_duty(&self, folder: &Path, duty: u8) -> Result<(), KernelSettingError> {
        KernelSetting::new(folder, &self.pwm).write(&duty.to_string())
    }

    fn is_chip(&self, folder: &Path) -> bool {
        KernelFile::new(folder, "name")
            .read()
            .is_ok_and(|name| name.trim() == self.chip)
    }

    /// The folder of the first chip of the name, by number.
    fn find_chip(&self) -> Result<PathBuf, FanError> {
        let missing = || FanError::Missing {
            chip: self.chip.clone(),
            below: self.class.clone(),
        };
        let mut folders: Vec<(u32, PathBuf)> = fs::read_dir(&self.class)
            .map_err(|_| missing())?
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let name = entry.file_name();
                let number = name.to_str()?.strip_prefix("hwmon")?.parse().ok()?;
                Some((number, entry.path()))
            })
            .collect();
        folders.sort_unstable();
        folders
            .into_iter()
            .map(|(_, folder)| folder)
            .find(|folder| self.is_chip(folder))
            .ok_or_else(missing)
    }
}

impl Fan for HwmonFan {
    fn set_percent(&mut self, percent: u8) -> Result<(), FanError> {
        self.set_duty(duty_of(percent))
    }

    fn read_rpm(&mut self) -> Result<Option<u32>, FanError> {
        let Some(tachometer) = &self.tachometer else {
            return Ok(None);
        };
        let folder = self.find_chip()?;
        let turns = KernelFile::new(&folder, &format!("{tachometer}_input"))
            .parse("turns a minute, a whole number", |text| {
                text.trim().parse().ok()
            })?;
        Ok(Some(turns))
    }
}

impl Drop for HwmonFan {
    fn drop(&mut self) {
        // Nobody is left to tell of an error.
        drop(self.release());
    }
}

/// 0 to 100 percent as 0 to 255, rounded up: rather too fast than too slow.
fn duty_of(percent: u8) -> u8 {
    let duty = (u16::from(percent.min(100)) * u16::from(FULL_DUTY)).div_ceil(100);
    u8::try_from(duty).unwrap_or(FULL_DUTY)
}

fn read_byte(folder: &Path, name: &str) -> Result<u8, KernelFileError> {
    KernelFile::new(folder, name).parse("whole number up to 255", |text| text.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_become_duty_rounded_up() {
        for (percent, duty) in [(0, 0), (1, 3), (20, 51), (50, 128), (100, 255), (255, 255)] {
            assert_eq!(duty_of(percent), duty, "{percent} %");
        }
    }
}
