//! The governor in simulation: over boards, air, work and noise.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::time::Duration;

use edge_hal::{
    Board,
    board::ZoneSource,
    governor::{Governor, Observation, Reason},
    sim::{
        Event, Script, Step,
        trial::{Demand, Flaws, Sample, Trial, hot_afternoon},
    },
};

const TARGET: f64 = 80.0;
const CRITICAL: f64 = 110.0;

/// `host-sim` with other masses: watts of the zones at full load, heat capacity and resistance of both.
fn board(cpu_watts: u32, gpu_watts: u32, joules: u32, millikelvin: u32) -> Board {
    let mut board = Board::builtin("host-sim").unwrap();
    for (zone, watts) in board.thermal_zones.iter_mut().zip([cpu_watts, gpu_watts]) {
        let ZoneSource::Simulated {
            full_load_milliwatts,
            millijoules_per_kelvin,
            millikelvin_per_watt,
            ..
        } = &mut zone.source
        else {
            panic!("host-sim's zones are simulated");
        };
        *full_load_milliwatts = watts * 1_000;
        *millijoules_per_kelvin = joules * 1_000;
        *millikelvin_per_watt = millikelvin;
    }
    board
}

/// Boards from small and quick to large and slow. With six requests at a time, one is at most 1.5 W.
fn boards() -> Vec<Board> {
    vec![
        board(7, 5, 9, 3_000),
        board(8, 6, 9, 3_000),
        board(6, 6, 7, 4_000),
        board(9, 4, 14, 2_500),
        board(5, 7, 12, 3_500),
    ]
}

fn script(steps: impl IntoIterator<Item = (u32, Event)>) -> Script {
    let steps = steps.into_iter().map(|(at_s, event)| Step { at_s, event });
    Script::new(steps.collect(), "test").unwrap()
}

fn air(celsius: i32) -> Event {
    Event::HotDay {
        millicelsius: celsius * 1_000,
        over_s: 0,
    }
}

fn govern(trial: &Trial<'_>) -> Vec<Sample> {
    let mut governor = Governor::new(trial.board);
    trial
        .run(|elapsed, observation| governor.decide(elapsed, observation))
        .unwrap()
}

/// Most changes of what `of` says in any 60 seconds.
fn most_changes_a_minute<T: PartialEq>(samples: &[Sample], of: impl Fn(&Sample) -> T) -> usize {
    let changes: Vec<u32> = samples
        .windows(2)
        .filter(|pair| of(&pair[0]) != of(&pair[1]))
        .map(|pair| pair[1].second)
        .collect();
    let within = |from: u32| {
        changes
            .iter()
            .filter(move |at| (from..from + 60).contains(at))
    };
    changes
        .iter()
        .map(|from| within(*from).count())
        .max()
        .unwrap_or(0)
}

fn hottest(samples: &[Sample]) -> f64 {
    let all = samples.iter().flat_map(|sample| &sample.celsius);
    all.copied().fold(f64::MIN, f64::max)
}

#[test]
fn under_full_load_it_holds_the_target_within_three_kelvins() {
    for (index, board) in boards().iter().enumerate() {
        for celsius in [5, 25, 35, 41, 45] {
            for concurrency in [6, 8] {
                for seed in 0..3 {
                    let trial = Trial {
                        board,
                        script: &script([(0, air(celsius))]),
                        demand: |_| Demand::FULL,
                        flaws: Flaws::usual(seed),
                        concurrency,
                        seconds: 7_200,
                    };
                    let samples = govern(&trial);
                    let case = format!("board {index}, {celsius} °C, {concurrency}, seed {seed}");
                    // Above: always. Below: once it was reached, where full load would exceed it.
                    let top = hottest(&samples);
                    assert!(top <= TARGET + 3.0, "{case}: {top:.1} °C");
                    for zone in 0..2 {
                        let Some(reached) = samples.iter().position(|s| s.celsius[zone] >= TARGET)
                        else {
                            continue;
                        };
                        let lowest = samples[reached..]
                            .iter()
                            .map(|s| s.celsius[zone])
                            .fold(f64::MAX, f64::min);
                        assert!(
                            lowest >= TARGET - 3.0,
                            "{case}, zone {zone}: {lowest:.1} °C"
                        );
                    }
                    let switches =
                        most_changes_a_minute(&samples, |s| s.decision.inference_concurrency);
                    assert!(switches <= 6, "{case}: {switches} switches a minute");
                    let switches = most_changes_a_minute(&samples, |s| s.decision.gpu_duty_percent);
                    assert!(
                        switches <= 6,
                        "{case}: {switches} changes of the duty a minute"
                    );
                }
            }
        }
    }
}

#[test]
fn load_that_does_not_reach_the_target_is_not_throttled() {
    for seed in 0..5 {
        let trial = Trial {
            board: &board(7, 5, 9, 3_000),
            script: &script([(0, air(20))]),
            demand: |_| Demand::FULL,
            flaws: Flaws::usual(seed),
            concurrency: 8,
            seconds: 7_200,
        };
        let samples = govern(&trial);
        let top = hottest(&samples);
        assert!((60.0..TARGET - 4.0).contains(&top), "{top}");
        for sample in &samples {
            assert_eq!(sample.decision.inference_concurrency, 8, "{sample:?}");
            assert_eq!(sample.decision.gpu_duty_percent, 100, "{sample:?}");
            assert_eq!(sample.decision.reason, Reason::Unlimited, "{sample:?}");
        }
    }
}

#[test]
fn on_a_hot_afternoon_it_does_nine_tenths_of_the_oracle_and_recovers() {
    let script = hot_afternoon().unwrap();
    for (index, board) in boards().iter().enumerate() {
        for seed in 0..2 {
            let trial = Trial {
                board,
                script: &script,
                demand: Demand::in_bursts,
                flaws: Flaws::usual(seed),
                concurrency: 8,
                seconds: 8 * 3_600,
            };
            let samples = govern(&trial);
            let oracle = trial.oracle().unwrap();
            let case = format!("board {index}, seed {seed}");
            let done: f64 = samples.iter().map(|s| s.done.cpu_share).sum();
            let could: f64 = oracle.iter().map(|loads| loads.cpu_share).sum();
            assert!(done >= 0.9 * could, "{case}: inference {:.3}", done / could);
            // The same in those seconds alone in which the oracle, too, does less than was wanted.
            let hot = samples.iter().zip(&oracle);
            let (done, could) = hot
                .filter(|(sample, loads)| loads.cpu_share < sample.demand.cpu_share)
                .fold((0.0, 0.0), |(done, could), (sample, loads)| {
                    (done + sample.done.cpu_share, could + loads.cpu_share)
                });
            assert!(could > 100.0, "{case}: the afternoon is not hot");
            assert!(done >= 0.9 * could, "{case}: hot {:.3}", done / could);
            let done: f64 = samples.iter().map(|s| s.done.gpu_share).sum();
            let could: f64 = oracle.iter().map(|loads| loads.gpu_share).sum();
            assert!(done >= 0.9 * could, "{case}: rendering {:.3}", done / could);
            let top = hottest(&samples);
            assert!(top <= TARGET + 5.0, "{case}: {top:.1} °C");
            let switches = most_changes_a_minute(&samples, |s| s.decision.inference_concurrency);
            assert!(switches <= 6, "{case}: {switches}");
            let stuck = samples.iter().filter(|s| s.decision.is_fan_stuck).count();
            assert!(
                (1_700..1_900).contains(&stuck),
                "{case}: stuck for {stuck} s"
            );
        }
    }
}

#[test]
fn without_a_fan_and_in_great_heat_it_never_comes_near_the_critical_point() {
    for board in boards() {
        for celsius in [35, 45, 55] {
            let trial = Trial {
                board: &board,
                script: &script([(0, air(celsius)), (0, Event::FanStuck)]),
                demand: |second| {
                    let full = second % 400 < 200;
                    if full {
                        Demand::FULL
                    } else {
                        Demand {
                            cpu_share: 0.0,
                            gpu_share: 0.0,
                        }
                    }
                },
                flaws: Flaws::usual(7),
                concurrency: 8,
                seconds: 7_200,
            };
            let top = hottest(&govern(&trial));
            assert!(top < CRITICAL - 15.0, "{top:.1} °C in air of {celsius} °C");
        }
    }
}

#[test]
fn a_lost_sensor_means_a_quarter_and_its_return_all_again() {
    let gone = Event::SensorGone { zone: "cpu".into() };
    let back = Event::SensorBack { zone: "cpu".into() };
    let board = board(9, 6, 9, 3_000);
    let trial = Trial {
        board: &board,
        script: &script([
            (0, air(45)),
            (0, Event::FanStuck),
            (3_600, gone),
            (7_200, back),
            (7_200, air(20)),
            (7_200, Event::FanBack),
        ]),
        demand: |_| Demand::FULL,
        flaws: Flaws::usual(3),
        concurrency: 8,
        seconds: 10_800,
    };
    let samples = govern(&trial);
    for sample in &samples[3_630..7_200] {
        assert_eq!(
            sample.decision.reason,
            Reason::Blind { zone: 0 },
            "{sample:?}"
        );
        assert!(
            (1..=2).contains(&sample.decision.inference_concurrency),
            "{sample:?}"
        );
        assert!(sample.decision.gpu_duty_percent <= 25, "{sample:?}");
        assert_eq!(sample.decision.fan_percent, 100, "{sample:?}");
    }
    // What the sensor shows when it is back is what happened meanwhile.
    assert!(samples[7_201].celsius[0] < TARGET, "{:?}", samples[7_201]);
    let last = samples.last().unwrap();
    assert!(hottest(&samples) < TARGET + 3.0);
    assert!(last.decision.inference_concurrency >= 6, "{last:?}");
}

fn observe(millicelsius: &[Option<i32>]) -> Observation<'_> {
    Observation {
        millicelsius,
        fan_rpm: None,
        inference_max_concurrency: 8,
        gpu_wanted: true,
    }
}

#[test]
fn near_the_critical_point_all_work_stops_at_once_and_stays_so() {
    let board = Board::builtin("host-sim").unwrap();
    let mut governor = Governor::new(&board);
    let second = Duration::from_secs(1);
    let decision = governor.decide(second, &observe(&[Some(60_000), Some(60_000)]));
    assert_eq!(decision.inference_concurrency, 8);
    let mut decision = governor.decide(second, &observe(&[Some(104_000), Some(60_000)]));
    assert_eq!(decision.reason, Reason::NearCritical { zone: 0 });
    assert_eq!(
        (decision.inference_concurrency, decision.gpu_duty_percent),
        (0, 0)
    );
    for _ in 0..29 {
        decision = governor.decide(second, &observe(&[Some(60_000), Some(60_000)]));
        assert_eq!(
            (decision.inference_concurrency, decision.gpu_duty_percent),
            (0, 0)
        );
    }
    for _ in 0..180 {
        decision = governor.decide(second, &observe(&[Some(60_000), Some(60_000)]));
    }
    assert_eq!(decision.inference_concurrency, 8);
}

#[test]
fn implausible_readings_count_as_none() {
    let board = Board::builtin("host-sim").unwrap();
    for absurd in [i32::MIN, -100_000, 200_000, i32::MAX] {
        let mut governor = Governor::new(&board);
        let decision = governor.decide(
            Duration::from_secs(1),
            &observe(&[Some(absurd), Some(50_000)]),
        );
        assert_eq!(decision.reason, Reason::Blind { zone: 0 });
        assert_eq!(decision.inference_concurrency, 2);
    }
    // Fewer readings than zones, and none at all.
    let mut governor = Governor::new(&board);
    assert_eq!(
        governor.decide(Duration::MAX, &observe(&[])).reason,
        Reason::Blind { zone: 0 }
    );
}

#[test]
fn what_is_cut_first_is_what_heats_the_zone() {
    let board = Board::builtin("host-sim").unwrap();
    let mut governor = Governor::new(&board);
    assert_eq!(governor.zones().collect::<Vec<_>>(), ["cpu", "gpu"]);
    let mut seen_only_cpu = false;
    let mut last = None;
    for _ in 0..1_200 {
        let decision = governor.decide(
            Duration::from_secs(1),
            &observe(&[Some(83_000), Some(60_000)]),
        );
        seen_only_cpu |= decision.inference_concurrency == 0 && decision.gpu_duty_percent == 100;
        assert!(decision.inference_concurrency == 0 || decision.gpu_duty_percent == 100);
        last = Some(decision);
    }
    assert!(seen_only_cpu);
    assert_eq!(last.unwrap().gpu_duty_percent, 0);
}
