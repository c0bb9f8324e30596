//! What one client that floods costs the others, on simulated time.

mod flood;

use std::time::Duration;

use flood::{Others, Scenario, simulate};

/// A model of fixed cost, as most are on a box's processor.
const HEAVY: Scenario = Scenario {
    clients: 10,
    load: 0.8,
    first: 1.0,
    run: Duration::from_micros(5_000),
    row: Duration::ZERO,
    max_batch_size: 1,
};

/// A model whose runs cost much more than their rows.
const LIGHT: Scenario = Scenario {
    run: Duration::from_micros(100),
    row: Duration::from_micros(5),
    max_batch_size: 16,
    ..HEAVY
};

/// What others get beside one that sends its share, and beside one that sends 50 times as much.
fn calm_and_flooded(scenario: Scenario) -> (Others, Others) {
    let calm = simulate(scenario);
    let flooded = simulate(Scenario {
        first: 50.0,
        ..scenario
    });
    println!("{scenario:?}\n  {calm:?}\n  {flooded:?}");
    assert_eq!(flooded.refused, 0, "only the one that floods is refused");
    (calm, flooded)
}

#[test]
fn one_that_floods_at_50_times_its_share_costs_the_others_at_most_a_tenth() {
    for scenario in [HEAVY, LIGHT] {
        let (calm, flooded) = calm_and_flooded(scenario);
        assert!(flooded.p99_us * 10 <= calm.p99_us * 11);
    }
}

/// Where the others hardly ever wait for each other, a flood costs them the run that is in progress when they come: it
/// is not interrupted.
fn a_flood_costs_never_more_than_the_run_in_progress(scenario: Scenario) {
    let run = scenario.run + (scenario.row + flood::READING) * scenario.max_batch_size;
    for (clients, load) in [(10, 0.2), (10, 0.9), (4, 0.9), (40, 0.8)] {
        let scenario = Scenario {
            clients,
            load,
            ..scenario
        };
        let (calm, flooded) = calm_and_flooded(scenario);
        let allowed = Duration::from_micros(calm.p99_us) + run;
        assert!(Duration::from_micros(flooded.p99_us) <= allowed);
    }
}

#[test]
fn a_flood_costs_never_more_than_a_run_of_fixed_cost() {
    a_flood_costs_never_more_than_the_run_in_progress(HEAVY);
}

#[test]
fn a_flood_costs_never_more_than_a_batch_in_progress() {
    a_flood_costs_never_more_than_the_run_in_progress(LIGHT);
}

#[test]
fn the_simulation_gives_the_same_numbers_every_time() {
    assert_eq!(simulate(HEAVY), simulate(HEAVY));
}
