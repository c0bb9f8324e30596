//! A model on simulated time with clients that send at random: what one that floods costs the others. The scheduler is
//! the real one; simulated are time, clients and the cost of runs. The same numbers come out every time.

use std::time::{Duration, Instant};

use edge_agent::inference::schedule::{Arrival, Arrived, Batch, Policy, Reading, Schedule, Step};
use edge_protocol::Id;
use hdrhistogram::Histogram;

/// What is simulated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scenario {
    /// Clients, the one that may flood among them.
    pub(crate) clients: u32,
    /// What each sends, as a part of its equal share of what the model can do.
    pub(crate) load: f64,
    /// What the first one sends, in shares.
    pub(crate) first: f64,
    /// What a run takes, however many rows it has.
    pub(crate) run: Duration,
    /// What each row adds.
    pub(crate) row: Duration,
    /// Rows that may run together.
    pub(crate) max_batch_size: u32,
}

/// What the others got; times from arrival to answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Others {
    /// Median, in microseconds.
    pub(crate) p50_us: u64,
    /// 99 of 100 are faster, in microseconds.
    pub(crate) p99_us: u64,
    /// Requests answered.
    pub(crate) answered: u64,
    /// Requests refused.
    pub(crate) refused: u64,
}

/// Requests of the others that are simulated.
const REQUESTS: u64 = 50_000;

/// What reading a request takes.
pub(crate) const READING: Duration = Duration::from_micros(2);

/// SplitMix64 (Steele, Lea, Flood 2014): the same numbers on every machine and in every release.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A pause between two arrivals that come `rate` times a second on average, independent of each other.
    #[allow(
        clippy::cast_precision_loss,
        reason = "53 bits are what a double holds"
    )]
    fn pause(&mut self, rate: f64) -> Duration {
        let uniform = ((self.next() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        Duration::from_secs_f64(-uniform.ln() / rate)
    }
}

struct Request {
    client: u32,
    arrived: Instant,
}

/// What the others get.
#[allow(
    clippy::expect_used,
    reason = "part of a test and a benchmark, each with its invariant"
)]
pub(crate) fn simulate(scenario: Scenario) -> Others {
    let Scenario {
        clients,
        load,
        first,
        run,
        row,
        max_batch_size,
    } = scenario;
    let full = run + (row + READING) * max_batch_size;
    let share = f64::from(max_batch_size) / full.as_secs_f64() / f64::from(clients);
    let rate = |client: u32| share * if client == 0 { first } else { load };
    let start = Instant::now();
    let deadline = start + Duration::from_secs(86_400);
    let mut schedule = Schedule::new(Policy {
        max_batch_size: max_batch_size as usize,
        ..Policy::default()
    });
    let mut random = Random(1);
    let mut next: Vec<Instant> = (0..clients)
        .map(|client| start + random.pause(rate(client)))
        .collect();
    let names: Vec<Id> = (0..clients)
        .filter_map(|client| Id::new(&format!("client-{client}")).ok())
        .collect();
    let mut microseconds =
        Histogram::<u64>::new_with_bounds(1, 3_600_000_000, 3).expect("1 < an hour, 3 digits");
    let (mut answered, mut refused) = (0, 0);
    // The worker: what it runs, until when.
    let mut now = start;
    let mut running: Option<(Batch<Request>, Instant, Duration)> = None;
    while answered + refused < REQUESTS {
        // What happens next: an arrival, or the end of a run.
        let (client, arrives) = (0..clients)
            .zip(next.iter().copied())
            .min_by_key(|(_, at)| *at)
            .expect("there are clients");
        match running.take() {
            Some((batch, ends, took)) if ends <= arrives => {
                now = ends;
                for request in &batch.jobs {
                    if request.client != 0 {
                        answered += 1;
                        let us = (now - request.arrived).as_micros();
                        microseconds.saturating_record(u64::try_from(us).unwrap_or(u64::MAX));
                    }
                }
                schedule.ran(batch.receipt, Some(took), now);
            }
            still => {
                running = still;
                let busy_until = now.max(arrives);
                let name = names
                    .get(client as usize)
                    .expect("one for each client")
                    .clone();
                let arrival = Arrival {
                    client: name,
                    deadline,
                    is_quickly_read: true,
                    job: Request {
                        client,
                        arrived: arrives,
                    },
                };
                match schedule.arrive(arrival, arrives) {
                    Arrived::Queued => {}
                    Arrived::InPlaceOf(other, _) | Arrived::Refused(other, _) => {
                        refused += u64::from(other.client != 0);
                    }
                }
                if let Some(next) = next.get_mut(client as usize) {
                    *next = arrives + random.pause(rate(client));
                }
                now = busy_until;
            }
        }
        // The worker goes on, if it is free.
        let mut read = Duration::ZERO;
        while running.is_none() {
            match schedule.step(now + read, true) {
                Step::Read(number) => {
                    let reading = Reading {
                        priority: None,
                        deadline,
                        rows: 1,
                        shape: Some(Box::default()),
                    };
                    schedule.read(number, reading, READING);
                    read += READING;
                }
                Step::Run(batch) => {
                    let rows = u32::try_from(batch.jobs.len()).unwrap_or(u32::MAX);
                    let took = run + row * rows;
                    running = Some((batch, now + read + took, took));
                }
                Step::Wait(_) => break,
                Step::Late(_) | Step::Permit(_) => unreachable!("a day is enough, and it may run"),
            }
        }
    }
    Others {
        p50_us: microseconds.value_at_quantile(0.5),
        p99_us: microseconds.value_at_quantile(0.99),
        answered,
        refused,
    }
}
