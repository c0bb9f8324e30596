//! A fan of hardware monitoring, in trees of files.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use edge_hal::fan::{Fan, FanError, HwmonFan};
use tempfile::TempDir;

struct Machine(TempDir);

impl Machine {
    fn new(mode: Option<&str>) -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        machine.write("hwmon0/name", "nvme\n");
        machine.write("hwmon3/name", "pwmfan\n");
        machine.write("hwmon3/pwm1", "40\n");
        machine.write("hwmon3/fan1_input", "1234\n");
        if let Some(mode) = mode {
            machine.write("hwmon3/pwm1_enable", mode);
        }
        machine
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join("sys/class/hwmon").join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    fn fan(&self) -> HwmonFan {
        fan(self.0.path())
    }
}

fn fan(root: &Path) -> HwmonFan {
    HwmonFan::new(root, "pwmfan", "pwm1", Some("fan1"))
}

#[test]
fn takes_an_automatic_fan_over_and_gives_it_back() {
    let machine = Machine::new(Some("2\n"));
    let mut fan = machine.fan();
    fan.probe().unwrap();
    assert_eq!(fan.read_rpm().unwrap(), Some(1234));
    assert_eq!(machine.read("hwmon3/pwm1_enable"), "2\n");
    fan.set_percent(20).unwrap();
    assert_eq!(machine.read("hwmon3/pwm1_enable"), "1");
    assert_eq!(machine.read("hwmon3/pwm1"), "51");
    fan.set_percent(0).unwrap();
    assert_eq!(machine.read("hwmon3/pwm1"), "0");
    fan.release().unwrap();
    assert_eq!(machine.read("hwmon3/pwm1"), "255");
    assert_eq!(machine.read("hwmon3/pwm1_enable"), "2");
    // Nothing is released twice.
    machine.write("hwmon3/pwm1", "9");
    drop(fan);
    assert_eq!(machine.read("hwmon3/pwm1"), "9");
}

#[test]
fn a_fan_that_nobody_else_drives_is_left_at_full_speed() {
    for mode in [None, Some("1\n"), Some("0\n")] {
        let machine = Machine::new(mode);
        let mut fan = machine.fan();
        fan.set_percent(10).unwrap();
        assert_eq!(machine.read("hwmon3/pwm1"), "26");
        drop(fan);
        assert_eq!(machine.read("hwmon3/pwm1"), "255", "{mode:?}");
        if let Some(mode) = mode {
            assert_eq!(machine.read("hwmon3/pwm1_enable").trim(), "1", "{mode:?}");
        }
    }
}

#[test]
fn a_mode_that_cannot_be_restored_leaves_full_speed() {
    let machine = Machine::new(Some("2\n"));
    let mut fan = machine.fan();
    fan.set_percent(10).unwrap();
    let mode = machine.path("hwmon3/pwm1_enable");
    fs::remove_file(&mode).unwrap();
    fs::create_dir(&mode).unwrap();
    let error = fan.release().unwrap_err();
    assert!(matches!(error, FanError::Setting(_)), "{error}");
    assert_eq!(machine.read("hwmon3/pwm1"), "255");
}

#[test]
fn a_fan_that_was_only_read_is_not_touched() {
    let machine = Machine::new(Some("2\n"));
    let mut fan = machine.fan();
    fan.read_rpm().unwrap();
    drop(fan);
    assert_eq!(machine.read("hwmon3/pwm1"), "40\n");
    assert_eq!(machine.read("hwmon3/pwm1_enable"), "2\n");
}

#[test]
fn is_found_again_when_its_driver_was_reloaded() {
    let machine = Machine::new(Some("2\n"));
    let mut fan = machine.fan();
    fan.set_percent(10).unwrap();
    fs::rename(machine.path("hwmon3"), machine.path("hwmon12")).unwrap();
    // The number went to another chip, which must not be driven.
    machine.write("hwmon3/name", "other\n");
    machine.write("hwmon3/pwm1", "7\n");
    machine.write("hwmon12/pwm1_enable", "2\n");
    fan.set_percent(100).unwrap();
    assert_eq!(machine.read("hwmon12/pwm1"), "255");
    assert_eq!(machine.read("hwmon12/pwm1_enable"), "1");
    assert_eq!(machine.read("hwmon3/pwm1"), "7\n");
    assert_eq!(fan.read_rpm().unwrap(), Some(1234));
    fan.release().unwrap();
    assert_eq!(machine.read("hwmon12/pwm1_enable"), "2");
}

#[test]
fn a_passing_fault_does_not_make_it_forget_the_automatic_mode() {
    let machine = Machine::new(Some("2\n"));
    let mut fan = machine.fan();
    fan.set_percent(10).unwrap();
    let pwm = machine.path("hwmon3/pwm1");
    fs::remove_file(&pwm).unwrap();
    assert!(fan.set_percent(50).is_err());
    fs::write(&pwm, "0").unwrap();
    fan.set_percent(50).unwrap();
    assert_eq!(machine.read("hwmon3/pwm1"), "128");
    fan.release().unwrap();
    assert_eq!(machine.read("hwmon3/pwm1_enable"), "2");
}

#[test]
fn a_fan_that_firmware_took_back_is_taken_over_again() {
    let machine = Machine::new(Some("2\n"));
    let mut fan = machine.fan();
    fan.set_percent(10).unwrap();
    machine.write("hwmon3/pwm1_enable", "2\n");
    fan.set_percent(20).unwrap();
    assert_eq!(machine.read("hwmon3/pwm1_enable"), "1");
}

#[test]
fn faults_are_told() {
    let empty = tempfile::tempdir().unwrap();
    let error = fan(empty.path()).set_percent(5).unwrap_err();
    assert!(matches!(error, FanError::Missing { .. }), "{error}");
    for (file, text) in [
        ("hwmon3/fan1_input", "fast"),
        ("hwmon3/fan1_input", "-1"),
        ("hwmon3/fan1_input", ""),
    ] {
        let machine = Machine::new(None);
        machine.write(file, text);
        assert!(machine.fan().read_rpm().is_err(), "{text:?}");
    }
    let machine = Machine::new(Some("automatic"));
    assert!(machine.fan().set_percent(5).is_err());
    assert_eq!(machine.read("hwmon3/pwm1"), "40\n");
    let mut without = HwmonFan::new(machine.0.path(), "pwmfan", "pwm1", None);
    assert_eq!(without.read_rpm().unwrap(), None);
}
