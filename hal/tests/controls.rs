//! All controls of a board together.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, path::Path};

use edge_hal::{
    Board,
    board::{FanConfig, FanSource, LedConfig, LedMeaning, WatchdogConfig, WatchdogSource},
    controls::Controls,
    led::LedState,
};

fn real_board() -> Board {
    Board {
        fan: Some(FanConfig {
            source: FanSource::Hwmon {
                chip: "pwmfan".to_owned(),
                pwm: "pwm1".to_owned(),
                tachometer: None,
            },
            curve: Vec::new(),
            min_percent: 20,
        }),
        watchdog: Some(WatchdogConfig {
            source: WatchdogSource::Linux {
                identity: "qcom_wdt".to_owned(),
            },
            timeout_s: 30,
            pretimeout_s: None,
        }),
        leds: vec![LedConfig {
            name: "green:status".to_owned(),
            meaning: LedMeaning::Serving,
        }],
        ..Board::builtin("host-sim").unwrap()
    }
}

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

#[test]
fn simulated_parts_come_with_their_handles() {
    let root = tempfile::tempdir().unwrap();
    let mut controls = Controls::open(&Board::builtin("host-sim").unwrap(), root.path());
    assert_eq!(controls.faults, [""; 0]);
    let fan = controls.simulated.fan.clone().unwrap();
    controls.fan.as_mut().unwrap().set_percent(40).unwrap();
    assert_eq!(fan.percent.read().unwrap(), 40);
    let handle = controls.simulated.watchdog.clone().unwrap();
    let unarmed = controls.watchdog.as_ref().unwrap();
    assert!(!handle.armed.read().unwrap());
    assert_eq!(unarmed.inspect().unwrap().timeout_s, Some(30));
    let mut watchdog = unarmed.arm().unwrap();
    assert!(handle.armed.read().unwrap());
    watchdog.feed().unwrap();
    assert_eq!(handle.meals.read().unwrap(), 1);
    controls
        .lights
        .show(LedMeaning::Serving, LedState::On)
        .unwrap();
    let (meaning, led) = &controls.simulated.leds[0];
    assert_eq!(*meaning, LedMeaning::Serving);
    assert_eq!(led.0.read().unwrap(), LedState::On);
}

#[test]
fn each_missing_part_is_told_and_costs_only_itself() {
    let root = tempfile::tempdir().unwrap();
    let mut controls = Controls::open(&real_board(), root.path());
    let parts: Vec<_> = controls
        .faults
        .iter()
        .map(|fault| fault.split_once(": ").unwrap().0)
        .collect();
    assert_eq!(parts, ["fan", "watchdog", "led green:status"]);
    assert!(controls.simulated.fan.is_none());
    assert!(controls.watchdog.as_ref().unwrap().arm().is_err());
    // The drivers load later.
    let leds = "sys/class/leds/green:status";
    write(root.path(), &format!("{leds}/max_brightness"), "255");
    write(root.path(), &format!("{leds}/brightness"), "0");
    write(root.path(), &format!("{leds}/trigger"), "none");
    write(root.path(), "sys/class/hwmon/hwmon0/name", "pwmfan");
    write(root.path(), "sys/class/hwmon/hwmon0/pwm1", "0");
    controls.fan.as_mut().unwrap().set_percent(100).unwrap();
    controls
        .lights
        .show(LedMeaning::Serving, LedState::On)
        .unwrap();
    let brightness = root.path().join(leds).join("brightness");
    assert_eq!(fs::read_to_string(brightness).unwrap(), "255");
    let found = Controls::open(&real_board(), root.path());
    assert_eq!(found.faults.len(), 1, "{:?}", found.faults);
}

#[test]
fn opening_starts_and_sets_nothing() {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in [
        ("sys/class/hwmon/hwmon0/name", "pwmfan"),
        ("sys/class/hwmon/hwmon0/pwm1", "77"),
        ("sys/class/hwmon/hwmon0/pwm1_enable", "2"),
        ("sys/class/watchdog/watchdog0/identity", "qcom_wdt"),
        ("sys/class/leds/green:status/max_brightness", "255"),
        ("sys/class/leds/green:status/brightness", "9"),
    ] {
        write(root.path(), path, text);
    }
    // No device file: opening it would fail, and be told.
    let controls = Controls::open(&real_board(), root.path());
    assert_eq!(controls.faults, [""; 0]);
    drop(controls);
    for (path, text) in [
        ("sys/class/hwmon/hwmon0/pwm1", "77"),
        ("sys/class/hwmon/hwmon0/pwm1_enable", "2"),
        ("sys/class/leds/green:status/brightness", "9"),
    ] {
        assert_eq!(fs::read_to_string(root.path().join(path)).unwrap(), text);
    }
}
