//! Lights, in trees of files and simulated.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;

use edge_hal::{
    board::LedMeaning,
    led::{Led, LedError, LedState, Lights, SimLed, SysfsLed},
    sim::SimReading,
};
use tempfile::TempDir;

const BLINK: LedState = LedState::Blink {
    on_ms: 100,
    off_ms: 900,
};

/// A machine with one light. Its `trigger` is a plain file here, where the kernel would show all triggers.
struct Machine(TempDir);

impl Machine {
    fn new() -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        fs::create_dir_all(machine.0.path().join("sys/class/leds/green:status")).unwrap();
        for (file, text) in [
            ("brightness", "0\n"),
            ("max_brightness", "511\n"),
            ("trigger", "[none] timer heartbeat\n"),
            ("delay_on", "500\n"),
            ("delay_off", "500\n"),
        ] {
            machine.write(file, text);
        }
        machine
    }

    fn write(&self, file: &str, text: &str) {
        let folder = self.0.path().join("sys/class/leds/green:status");
        fs::write(folder.join(file), text).unwrap();
    }

    fn read(&self, file: &str) -> String {
        let folder = self.0.path().join("sys/class/leds/green:status");
        fs::read_to_string(folder.join(file)).unwrap()
    }

    fn led(&self) -> SysfsLed {
        SysfsLed::new(self.0.path(), "green:status")
    }
}

#[test]
fn shines_as_told() {
    let machine = Machine::new();
    let mut led = machine.led();
    led.probe().unwrap();
    led.set(LedState::On).unwrap();
    assert_eq!(machine.read("brightness"), "511");
    assert_eq!(machine.read("trigger"), "none");
    led.set(BLINK).unwrap();
    assert_eq!(machine.read("trigger"), "timer");
    assert_eq!(machine.read("delay_on"), "100");
    assert_eq!(machine.read("delay_off"), "900");
    led.set(LedState::Off).unwrap();
    assert_eq!(machine.read("trigger"), "none");
    assert_eq!(machine.read("brightness"), "0");
}

#[test]
fn faults_are_told() {
    let machine = Machine::new();
    for name in ["red:status", "", "..", "../leds/green:status", "."] {
        let error = SysfsLed::new(machine.0.path(), name)
            .set(LedState::On)
            .unwrap_err();
        assert!(
            matches!(error, LedError::Missing { .. }),
            "{name:?}: {error}"
        );
    }
    for hostile in ["", "0", "-1", "bright", "99999999999"] {
        machine.write("max_brightness", hostile);
        assert!(machine.led().set(LedState::On).is_err(), "{hostile:?}");
        assert!(machine.led().probe().is_err(), "{hostile:?}");
        machine.led().set(LedState::Off).unwrap();
    }
    let folder = machine.0.path().join("sys/class/leds/green:status");
    fs::remove_file(folder.join("trigger")).unwrap();
    let error = machine.led().set(LedState::Off).unwrap_err();
    assert!(matches!(error, LedError::Setting(_)), "{error}");
}

#[test]
fn lights_are_known_by_what_they_say_and_set_once() {
    let sims: Vec<SimLed> = (0..3)
        .map(|_| SimLed(SimReading::new(LedState::Off)))
        .collect();
    let meanings = [LedMeaning::Serving, LedMeaning::Fault, LedMeaning::Serving];
    let lights = meanings
        .into_iter()
        .zip(sims.iter().cloned())
        .map(|(meaning, led)| (meaning, Box::new(led) as Box<dyn Led>));
    let mut lights = Lights::new(lights.collect());
    let shown = || -> Vec<LedState> { sims.iter().map(|led| led.0.read().unwrap()).collect() };

    lights.show(LedMeaning::Serving, BLINK).unwrap();
    assert_eq!(shown(), [BLINK, LedState::Off, BLINK]);
    lights.show(LedMeaning::Network, LedState::On).unwrap();
    assert_eq!(shown(), [BLINK, LedState::Off, BLINK]);
    // Already shown: not set again.
    sims[0].0.set(LedState::Off);
    lights.show(LedMeaning::Serving, BLINK).unwrap();
    assert_eq!(shown(), [LedState::Off, LedState::Off, BLINK]);
    // One that fails does not hold the other, and is set once it works again.
    sims[0].0.fail("wire");
    assert!(lights.show(LedMeaning::Serving, LedState::On).is_err());
    sims[0].0.recover();
    assert_eq!(shown(), [LedState::Off, LedState::Off, LedState::On]);
    lights.show(LedMeaning::Serving, LedState::On).unwrap();
    assert_eq!(shown(), [LedState::On, LedState::Off, LedState::On]);
}
