//! The simulated board: heat, events and faults, as its users see them.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::time::Duration;

use edge_hal::{
    Board, Readings, Sensors,
    clock::Clock,
    fan::Fan,
    sensors::SimFollower,
    sim::{
        Event, Loads, PowerState, ResetReason, Script, ScriptError, SimBoard, SimBoardError, Step,
        ThermalModel,
    },
    storage_health::{Reserve, StorageHealth},
    thermal::ThermalZone,
    watchdog::Watchdog,
};
use proptest::prelude::*;

fn host() -> Board {
    Board::builtin("host-sim").unwrap()
}

/// What the board stands without a fan.
const INFERENCE: Loads = Loads {
    cpu_share: 1.0,
    gpu_share: 0.0,
};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn loads() -> impl Strategy<Value = Loads> {
    (0.0..1.0, 0.0..1.0).prop_map(|(cpu_share, gpu_share)| Loads {
        cpu_share,
        gpu_share,
    })
}

proptest! {
    #[test]
    fn no_heat_is_lost_or_made(
        steps in prop::collection::vec((1_u64..200_000, loads(), 0.0..100.0, -20.0..50.0), 1..20)
    ) {
        let mut model = ThermalModel::new(&host());
        let before = model.joules_stored();
        for (milliseconds, loads, fan_percent, air) in steps {
            model.set_air_celsius(air);
            model.advance(Duration::from_millis(milliseconds), loads, fan_percent);
        }
        let gained = model.joules_stored() - before;
        let balance = model.joules_in() - model.joules_out();
        prop_assert!((gained - balance).abs() < 1e-6 * (1.0 + model.joules_in()), "{gained} {balance}");
    }

    #[test]
    fn rest_is_what_the_resistances_say(loads in loads(), air in 0.0..45.0, fan_percent in 0.0..100.0) {
        let mut model = ThermalModel::new(&host());
        model.set_air_celsius(air);
        for _ in 0..10 {
            model.advance(seconds(3_600), loads, fan_percent);
        }
        // The values of host-sim.
        let cpu_watts = 0.8 + 7.0 * loads.cpu_share;
        let gpu_watts = 0.4 + 5.0 * loads.gpu_share;
        let conductance = 1.0 / 5.0 + fan_percent / 100.0 * (1.0 / 2.0 - 1.0 / 5.0);
        let case = air + (cpu_watts + gpu_watts) / conductance;
        let zones: Vec<f64> = model.zones_celsius().collect();
        prop_assert!((model.case_celsius() - case).abs() < 0.01);
        prop_assert!((zones[0] - (case + 3.0 * cpu_watts)).abs() < 0.01);
        prop_assert!((zones[1] - (case + 3.5 * gpu_watts)).abs() < 0.01);
    }

    #[test]
    fn the_length_of_the_steps_does_not_matter(loads in loads(), parts in 2_u32..60) {
        let mut at_once = ThermalModel::new(&host());
        let mut in_parts = at_once.clone();
        at_once.advance(seconds(60), loads, 50.0);
        for _ in 0..parts {
            in_parts.advance(seconds(60) / parts, loads, 50.0);
        }
        for (a, b) in at_once.zones_celsius().zip(in_parts.zones_celsius()) {
            prop_assert!((a - b).abs() < 0.1, "{a} {b}");
        }
    }

    #[test]
    fn a_script_never_panics(text in "\\PC{0,200}") {
        let _any = Script::parse(&text, "s.toml").is_ok();
    }
}

#[test]
fn loads_that_are_no_shares_count_as_the_nearest() {
    let heated = |cpu_share, gpu_share| {
        let mut model = ThermalModel::new(&host());
        model.advance(
            seconds(60),
            Loads {
                cpu_share,
                gpu_share,
            },
            f64::NAN,
        );
        model.zones_celsius().collect::<Vec<_>>()
    };
    assert_eq!(heated(f64::NAN, f64::INFINITY), heated(0.0, 1.0));
    assert_eq!(heated(-3.0, 7.0), heated(0.0, 1.0));
}

#[test]
fn the_fan_follows_orders_with_a_lag_and_cools() {
    let sim = SimBoard::new(&host());
    let mut fan = sim.parts().fan.clone().unwrap();
    let mut zone = sim.parts().zones[0].1.clone();
    sim.advance(seconds(3_600), INFERENCE);
    let hot = zone.read_millicelsius().unwrap();
    assert!(hot > 85_000, "{hot}");
    fan.set_percent(100).unwrap();
    sim.advance(seconds(1), INFERENCE);
    let starting = fan.read_rpm().unwrap().unwrap();
    assert!((1_000..3_000).contains(&starting), "{starting}");
    sim.advance(seconds(1_800), INFERENCE);
    assert_eq!(fan.read_rpm().unwrap(), Some(5_000));
    let cooled = zone.read_millicelsius().unwrap();
    assert!(cooled < 70_000, "{cooled}");

    sim.suffer(&Event::FanStuck).unwrap();
    fan.set_percent(100).unwrap();
    sim.advance(seconds(30), INFERENCE);
    assert_eq!(fan.read_rpm().unwrap(), Some(0));
    sim.suffer(&Event::FanBack).unwrap();
    sim.advance(seconds(30), INFERENCE);
    sim.suffer(&Event::FanDeaf).unwrap();
    fan.set_percent(0).unwrap_err();
    sim.advance(seconds(30), INFERENCE);
    assert_eq!(fan.read_rpm().unwrap(), Some(5_000));
}

#[test]
fn a_watchdog_that_starves_resets_the_board_and_its_heat_stays() {
    let sim = SimBoard::new(&host());
    // Nobody opened it: it does not run.
    sim.advance(seconds(100), Loads::FULL);
    assert_eq!(sim.resets(), 0);
    let mut watchdog = sim.open_watchdog().unwrap();
    for _ in 0..10 {
        watchdog.feed().unwrap();
        sim.advance(seconds(20), Loads::FULL);
    }
    assert_eq!(sim.resets(), 0);
    let before = sim.parts().zones[0].1.clone().read_millicelsius().unwrap();
    sim.advance(seconds(11), Loads::FULL);
    assert_eq!(
        (sim.resets(), sim.reset_reason()),
        (1, ResetReason::Watchdog)
    );
    assert!(watchdog.caused_last_reset().unwrap());
    let after = sim.parts().zones[0].1.clone().read_millicelsius().unwrap();
    assert!(after >= before, "{before} {after}");
    // One reset, not one each 30 s: whoever starts opens it again.
    sim.advance(seconds(100), Loads::FULL);
    assert_eq!(sim.resets(), 1);

    // A disarmed one does not bite; a broken one does.
    let mut watchdog = sim.open_watchdog().unwrap();
    watchdog.disarm().unwrap();
    sim.advance(seconds(100), Loads::default());
    assert_eq!(sim.resets(), 1);
    let mut watchdog = sim.open_watchdog().unwrap();
    sim.suffer(&Event::WatchdogBroken).unwrap();
    for _ in 0..3 {
        watchdog.feed().unwrap_err();
        sim.advance(seconds(10), Loads::default());
    }
    assert_eq!(sim.resets(), 2);
    watchdog.feed().unwrap();
}

#[test]
fn past_the_critical_point_the_board_is_off_until_it_is_switched_on() {
    let sim = SimBoard::new(&host());
    sim.suffer(&Event::HotDay {
        millicelsius: 60_000,
        over_s: 0,
    })
    .unwrap();
    sim.advance(seconds(3_600), Loads::FULL);
    assert_eq!(sim.power_state(), PowerState::ThermalShutdown);
    let mut zone = sim.parts().zones[0].1.clone();
    let error = zone.read_millicelsius().unwrap_err().to_string();
    assert!(error.contains("zone cpu is too hot"), "{error}");
    assert_eq!(sim.parts().power.0.read().unwrap().milliwatts, Some(0));
    for _ in 0..5 {
        sim.advance(seconds(3_600), Loads::FULL);
    }
    sim.power_on();
    sim.power_on();
    assert_eq!(
        (sim.resets(), sim.reset_reason()),
        (1, ResetReason::Thermal)
    );
    let cold = zone.read_millicelsius().unwrap();
    assert!((60_000..60_100).contains(&cold), "{cold}");
}

#[test]
fn a_script_happens_in_time_whatever_its_order() {
    let script = r#"
        [[step]]
        at_s = 20
        event = { kind = "sensor-back", zone = "gpu" }
        [[step]]
        at_s = 10
        event = { kind = "sensor-gone", zone = "gpu" }
        [[step]]
        at_s = 0
        event = { kind = "hot-day", millicelsius = 35_000, over_s = 100 }
        [[step]]
        at_s = 30
        event = { kind = "clock-untrusted" }
        [[step]]
        at_s = 40
        event = { kind = "clock-jump", by_ms = -3_600_000 }
        [[step]]
        at_s = 50
        event = { kind = "clock-trusted" }
        [[step]]
        at_s = 60
        event = { kind = "storage-dying", over_s = 100 }
    "#;
    let sim = SimBoard::new(&host());
    sim.play(&Script::parse(script, "s.toml").unwrap()).unwrap();
    let parts = sim.parts().clone();
    let mut clock = parts.clock;
    let mut storage = parts.storage_health;
    let mut gpu = parts.zones[1].1.clone();
    sim.advance(seconds(15), Loads::default());
    gpu.read_millicelsius().unwrap_err();
    assert_eq!(sim.air_millicelsius(), 26_500);
    sim.advance(seconds(10), Loads::default());
    gpu.read_millicelsius().unwrap();
    assert!(clock.read().unwrap().is_synchronised);
    sim.advance(seconds(10), Loads::default());
    assert!(!clock.read().unwrap().is_synchronised);
    sim.advance(seconds(10), Loads::default());
    assert_eq!(parts.clock_offset_ms.read().unwrap(), -3_600_000);
    sim.advance(seconds(10), Loads::default());
    assert!(clock.read().unwrap().is_synchronised);
    assert_eq!(parts.clock_offset_ms.read().unwrap(), 0);
    assert_eq!(storage.read().unwrap().used_percent, Some(10));
    sim.advance(seconds(85), Loads::default());
    let wear = storage.read().unwrap();
    assert_eq!(
        (wear.used_percent, wear.reserve),
        (Some(90), Some(Reserve::Warning))
    );
    sim.advance(seconds(30), Loads::default());
    storage.read().unwrap_err();
    assert_eq!(sim.air_millicelsius(), 35_000);
}

#[test]
fn a_wrong_script_says_where_and_what() {
    let many = "[[step]]\nat_s = 1\nevent = { kind = \"fan-stuck\" }\n".repeat(1_001);
    for (text, expected) in [
        (
            "[[step]]\nat_s = 1\nevent = { kind = \"fan-gone\" }",
            "s.toml:3: unknown variant `fan-gone`",
        ),
        (
            "[[step]]\nevent = { kind = \"fan-stuck\" }",
            "s.toml:1: missing field `at_s`",
        ),
        (
            "\n[[step]]\nat_s = 9_999_999\nevent = { kind = \"fan-stuck\" }",
            "s.toml:2: at_s is 9999999 s",
        ),
        (
            "[[step]]\nat_s = 1\nevent = { kind = \"hot-day\", millicelsius = 99_000, over_s = 1 }",
            "s.toml:1: air of 99000",
        ),
        ("[[steps]]\nat_s = 1", "s.toml:1: unknown field `steps`"),
        (&many, "s.toml has 1001 steps; at most 1000"),
    ] {
        let error = Script::parse(text, "s.toml").unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.toml");
    std::fs::write(&path, vec![b'#'; 65_537]).unwrap();
    let error = Script::from_file(&path).unwrap_err();
    assert!(
        matches!(error, ScriptError::TooLarge { bytes: 65_537, .. }),
        "{error}"
    );
    let error = Script::from_file(&folder.path().join("none.toml")).unwrap_err();
    assert!(matches!(error, ScriptError::Read { .. }), "{error}");
}

#[test]
fn a_script_for_another_board_is_refused_whole() {
    let sim = SimBoard::new(&host());
    let step = |event| Step { at_s: 0, event };
    let hot = Event::HotDay {
        millicelsius: 40_000,
        over_s: 0,
    };
    let unknown = Event::SensorGone { zone: "npu".into() };
    let script = Script::new(vec![step(hot), step(unknown)], "s.toml").unwrap();
    let error = sim.play(&script).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the simulation's script names zone \"npu\"; this board simulates: cpu, gpu"
    );
    sim.advance(seconds(1), Loads::default());
    assert_eq!(sim.air_millicelsius(), 25_000);

    let mut board = host();
    board.fan = None;
    board.watchdog = None;
    let sim = SimBoard::new(&board);
    for (event, part) in [
        (Event::FanStuck, "fan"),
        (Event::WatchdogBroken, "watchdog"),
    ] {
        assert_eq!(sim.suffer(&event), Err(SimBoardError::NoSuchPart { part }));
    }
    assert!(sim.open_watchdog().is_none());
}

#[test]
fn the_sensors_of_a_simulated_board_are_its_own_and_load_heats_it() {
    let board = host();
    let root = tempfile::tempdir().unwrap();
    let mut sensors = Sensors::new(&board, root.path(), root.path());
    let sim = sensors.simulated().unwrap().clone();
    let mut readings = Readings::default();
    sensors.sample(&mut readings);
    let temperatures = |readings: &Readings| -> Vec<i32> {
        readings.temperatures.iter().map(|(_, t)| *t).collect()
    };
    // The board's own time runs from its making on.
    let cold = temperatures(&readings);
    assert!(
        cold.iter().all(|t| (25_000..25_100).contains(t)),
        "{cold:?}"
    );
    sim.advance(seconds(600), INFERENCE);
    sim.suffer(&Event::ClockUntrusted).unwrap();
    sensors.sample(&mut readings);
    let warm = temperatures(&readings);
    assert!(warm[0] > 60_000 && warm[1] > 40_000, "{warm:?}");
    assert!(!readings.clock_trust.unwrap().is_synchronised);
    assert_eq!(readings.wear.unwrap().used_percent, Some(10));
    sim.suffer(&Event::SensorGone { zone: "cpu".into() })
        .unwrap();
    sensors.sample(&mut readings);
    assert_eq!(temperatures(&readings).len(), 1);
    let fault = readings
        .faults
        .iter()
        .find(|f| f.sensor == "temperature cpu")
        .unwrap();
    assert!(fault.error.contains("the sensor is gone"), "{fault:?}");
}

#[test]
fn time_between_looks_heats_by_the_load_that_was_read() {
    let sim = SimBoard::new(&host());
    let mut follower = SimFollower::new(sim.clone());
    for _ in 0..60 {
        follower.advance(seconds(10), Some(100.0));
    }
    let by_load = sim.parts().zones[0].1.clone().read_millicelsius().unwrap();
    let twin = SimBoard::new(&host());
    twin.advance(seconds(600), INFERENCE);
    let by_hand = twin.parts().zones[0].1.clone().read_millicelsius().unwrap();
    assert!((by_load - by_hand).abs() < 10, "{by_load} {by_hand}");
    // A look without a load goes on with the last one.
    follower.advance(seconds(10), None);
    assert!(sim.parts().zones[0].1.clone().read_millicelsius().unwrap() > by_load);
}
