//! `cargo xtask bench thermal`: the governor on a simulated hot afternoon, beside the oracle and two peers that live
//! through the same hours with the same flawed sensors.

mod peers;
mod plot;

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use edge_hal::Board;
use edge_hal::governor::Governor;
use edge_hal::sim::Loads;
use edge_hal::sim::trial::{Demand, Flaws, Sample, Trial, hot_afternoon};

use super::BenchError;
use peers::{BangBang, StepWise};

/// The afternoon.
const SECONDS: u32 = 8 * 3_600;
/// Requests at a time: one for each core of the box.
const CONCURRENCY: u16 = 8;
/// How long a request computes.
const REQUEST: Duration = Duration::from_millis(250);
/// Which noise the sensors have.
const SEED: u64 = 865;
/// What counts as over the target, in kelvins: as near as the governor promises to hold it.
const OVER_KELVIN: f64 = 3.0;

/// What the table says before its rows.
const HEAD: &str = "\
A hot afternoon on host-sim: 8 hours, air from 22 to 41 to 27 °C, half an hour without the fan.
Work is in percent of an oracle that knows the board and holds the target exactly; \"hot\" counts
only the seconds in which the oracle too does less than was wanted.

                       inference, %   render.   above target     no inference   switches a minute
                         all    hot         %   K max  min>3 K    though wanted      mean   most
";

/// What the afternoon gave.
#[derive(Debug)]
pub struct Report {
    rows: Vec<Row>,
    svg: String,
}

#[derive(Debug)]
struct Row {
    name: &'static str,
    /// Of the oracle's, in percent.
    inference_percent: f64,
    inference_hot_percent: f64,
    rendering_percent: f64,
    minutes_without_inference: f64,
    hottest_above_target_kelvin: f64,
    minutes_over: f64,
    switches_a_minute: f64,
    most_switches_a_minute: usize,
}

/// Lives through the afternoon: the governor, the two peers, the oracle.
///
/// # Errors
/// When the board or the afternoon, both part of the program, cannot be read.
pub fn run() -> Result<Report, BenchError> {
    let board = Board::builtin("host-sim")?;
    let script = hot_afternoon()?;
    let trial = Trial {
        board: &board,
        script: &script,
        demand: Demand::in_bursts,
        flaws: Flaws::usual(SEED),
        concurrency: CONCURRENCY,
        request: REQUEST,
        seconds: SECONDS,
    };
    let oracle = trial.oracle()?;
    let mut governor = Governor::new(&board);
    let governed = trial.run(|elapsed, seen| governor.decide(elapsed, seen))?;
    let mut step_wise = StepWise::new(&board);
    let kernel = trial.run(|_, seen| step_wise.decide(seen))?;
    let mut bang_bang = BangBang::new(&board);
    let switched = trial.run(|_, seen| bang_bang.decide(seen))?;
    Ok(Report {
        rows: vec![
            Row::of("governor", &board, &governed, &oracle),
            Row::of("kernel's step_wise", &board, &kernel, &oracle),
            Row::of("bang-bang", &board, &switched, &oracle),
        ],
        svg: plot::draw(&board, &governed, &oracle, CONCURRENCY),
    })
}

impl Row {
    fn of(name: &'static str, board: &Board, samples: &[Sample], oracle: &[Loads]) -> Self {
        let ratio = |of: fn(&Loads) -> f64| {
            let done: f64 = samples.iter().map(|sample| of(&sample.done)).sum();
            100.0 * done / oracle.iter().map(of).sum::<f64>()
        };
        let is_hot =
            |(sample, loads): &(&Sample, &Loads)| loads.cpu_share < sample.demand.cpu_share;
        let hot = samples.iter().zip(oracle).filter(is_hot);
        let (done, could) = hot.fold((0.0, 0.0), |(done, could), (sample, loads)| {
            (done + sample.done.cpu_share, could + loads.cpu_share)
        });
        let idle = samples
            .iter()
            .filter(|sample| sample.decision.inference_concurrency_milli == 0)
            .count();
        let targets = peers::targets(board);
        let above: Vec<f64> = samples
            .iter()
            .map(|sample| {
                let zones = sample.celsius.iter().zip(&targets);
                zones.map(|(celsius, target)| celsius - target)
            })
            .map(|zones| zones.fold(f64::MIN, f64::max))
            .collect();
        let over = above.iter().filter(|kelvin| **kelvin > OVER_KELVIN).count();
        let changes = changes(samples);
        Self {
            name,
            inference_percent: ratio(|loads| loads.cpu_share),
            inference_hot_percent: 100.0 * done / could,
            minutes_without_inference: minutes(idle),
            rendering_percent: ratio(|loads| loads.gpu_share),
            hottest_above_target_kelvin: above.iter().copied().fold(f64::MIN, f64::max),
            minutes_over: minutes(over),
            switches_a_minute: f64::from(u32::try_from(changes.len()).unwrap_or(u32::MAX)) * 60.0
                / f64::from(SECONDS),
            most_switches_a_minute: most_in_a_minute(&changes),
        }
    }
}

fn minutes(seconds: usize) -> f64 {
    f64::from(u32::try_from(seconds).unwrap_or(u32::MAX)) / 60.0
}

/// Seconds in which the concurrency changed.
fn changes(samples: &[Sample]) -> Vec<u32> {
    samples
        .iter()
        .zip(samples.iter().skip(1))
        .filter(|(before, after)| {
            before.decision.inference_concurrency_milli
                != after.decision.inference_concurrency_milli
        })
        .map(|(_, after)| after.second)
        .collect()
}

fn most_in_a_minute(changes: &[u32]) -> usize {
    let within = |from: u32| {
        let in_minute = |at: &&u32| (from..from + 60).contains(*at);
        changes.iter().filter(in_minute).count()
    };
    changes.iter().map(|from| within(*from)).max().unwrap_or(0)
}

impl Report {
    /// The table that people read.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::from(HEAD);
        for row in &self.rows {
            // Writing to a string cannot fail.
            let _written = writeln!(
                text,
                "{:<21} {:>6.1} {:>6.1} {:>9.1} {:>7.1} {:>8.1} {:>12.1} min {:>9.2} {:>6}",
                row.name,
                row.inference_percent,
                row.inference_hot_percent,
                row.rendering_percent,
                row.hottest_above_target_kelvin,
                row.minutes_over,
                row.minutes_without_inference,
                row.switches_a_minute,
                row.most_switches_a_minute,
            );
        }
        text
    }

    /// Writes the plot, as SVG.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_plot(&self, path: &Path) -> Result<(), BenchError> {
        std::fs::write(path, &self.svg)
            .map_err(|source| BenchError::System("write the plot", source))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    #[test]
    fn the_governor_beats_its_peers_and_the_plot_is_whole() {
        let report = super::run().unwrap();
        let [governor, kernel, bang_bang] = report.rows.as_slice() else {
            panic!("three rows");
        };
        assert!(governor.inference_percent > 90.0, "{governor:?}");
        assert!(governor.inference_hot_percent > 90.0, "{governor:?}");
        assert!(governor.rendering_percent > 90.0, "{governor:?}");
        assert!(governor.minutes_over < kernel.minutes_over, "{kernel:?}");
        assert!(
            governor.inference_percent > bang_bang.inference_percent,
            "{bang_bang:?}"
        );
        assert!(governor.most_switches_a_minute <= 6, "{governor:?}");
        assert!(report.svg.ends_with("</svg>\n"));
        assert!(!report.svg.contains("NaN"));
    }
}
