//! What must hold whatever arrives, in whatever order workers take it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use edge_protocol::Id;
use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);

/// What a request in a test is.
#[derive(Debug, Clone)]
struct Job {
    number: usize,
    client: u8,
    rows: usize,
    shape: Option<u64>,
    priority: Option<u32>,
    deadline: Instant,
    is_bad: bool,
}

impl Job {
    fn reading(&self) -> Reading {
        Reading {
            priority: self.priority,
            deadline: self.deadline,
            rows: self.rows,
            shape: self.shape.map(|shape| Box::from([shape])),
        }
    }
}

fn name(client: u8) -> Id {
    Id::new(&format!("client-{client}")).unwrap()
}

fn job(number: usize, client: u8, deadline: Instant) -> Job {
    Job {
        number,
        client,
        rows: 1,
        shape: Some(1),
        priority: None,
        deadline,
        is_bad: false,
    }
}

fn arrive(schedule: &mut Schedule<Job>, job: &Job, now: Instant) -> Arrived<Job> {
    let arrival = Arrival {
        client: name(job.client),
        deadline: job.deadline,
        is_quickly_read: true,
        job: job.clone(),
    };
    schedule.arrive(arrival, now)
}

/// Steps until there is a batch, reading on the way; `None` when there is nothing to do at this time.
fn next_batch(schedule: &mut Schedule<Job>, now: Instant) -> Option<Batch<Job>> {
    loop {
        match schedule.step(now, true) {
            Step::Run(batch) => return Some(batch),
            Step::Read(number) => {
                let reading = schedule.get_mut(number).unwrap().reading();
                schedule.read(number, reading, Duration::ZERO);
            }
            Step::Wait(_) => return None,
            Step::Late(job) => panic!("late: {job:?}"),
            Step::Permit(_) => panic!("it has the right to compute"),
        }
    }
}

fn numbers(batch: &Batch<Job>) -> Vec<usize> {
    batch.jobs.iter().map(|job| job.number).collect()
}

fn later(now: Instant) -> Instant {
    now + Duration::from_secs(3_600)
}

#[test]
fn requests_of_several_clients_run_together_by_shape_up_to_the_bound() {
    let now = Instant::now();
    let mut schedule = Schedule::new(Policy {
        max_batch_size: 4,
        ..Policy::default()
    });
    for (number, (client, rows, shape)) in [
        (0, 1, Some(1)),
        (1, 2, Some(1)),
        (2, 1, Some(2)),
        (0, 2, Some(1)),
        (2, 1, Some(1)),
        (1, 9, Some(1)),
        (0, 1, None),
    ]
    .into_iter()
    .enumerate()
    {
        let job = Job {
            rows,
            shape,
            ..job(number, client, later(now))
        };
        assert!(matches!(arrive(&mut schedule, &job, now), Arrived::Queued));
    }
    let mut ran = Vec::new();
    while let Some(batch) = next_batch(&mut schedule, now) {
        ran.push(numbers(&batch));
        schedule.ran(batch.receipt, Some(MS), now);
    }
    // No more of the first client than its share of 4 rows among 3; what is larger, or of another shape, runs alone.
    assert_eq!(ran, [vec![0, 1, 4], vec![3], vec![2], vec![5], vec![6]]);
}

#[test]
fn a_request_waits_for_others_no_longer_than_it_may() {
    let now = Instant::now();
    let mut schedule = Schedule::new(Policy {
        max_batch_size: 3,
        max_queue_delay: 5 * MS,
        ..Policy::default()
    });
    arrive(&mut schedule, &job(0, 0, later(now)), now);
    assert!(next_batch(&mut schedule, now).is_none());
    let Step::Wait(Some(until)) = schedule.step(now, true) else {
        panic!("it waits for others")
    };
    assert_eq!(until, now + 5 * MS);
    arrive(&mut schedule, &job(1, 1, later(now)), now + MS);
    assert!(next_batch(&mut schedule, now + MS).is_none());
    let batch = next_batch(&mut schedule, until).unwrap();
    assert_eq!(numbers(&batch), [0, 1]);
    schedule.ran(batch.receipt, Some(MS), until);
    // A full batch does not wait, nor does one that would be late.
    for number in 2..5 {
        let client = u8::try_from(number).unwrap();
        arrive(&mut schedule, &job(number, client, later(now)), until);
    }
    let batch = next_batch(&mut schedule, until).unwrap();
    assert_eq!(numbers(&batch), [2, 3, 4]);
    schedule.ran(batch.receipt, Some(MS), until);
    arrive(&mut schedule, &job(5, 0, until + 3 * MS), until);
    assert!(next_batch(&mut schedule, until).is_none());
    let batch = next_batch(&mut schedule, until + MS).unwrap();
    assert_eq!(numbers(&batch), [5]);
}

#[test]
fn who_floods_a_full_queue_refuses_itself() {
    let now = Instant::now();
    let mut schedule = Schedule::new(Policy {
        max_queue_size: 4,
        ..Policy::default()
    });
    for number in 0..4 {
        arrive(&mut schedule, &job(number, 0, later(now)), now);
    }
    let Arrived::Refused(refused, refusal) = arrive(&mut schedule, &job(4, 0, later(now)), now)
    else {
        panic!("full")
    };
    assert_eq!((refused.number, refusal.kind), (4, RefusalKind::Full));
    for (number, pushed_out) in [(5, 3), (6, 2)] {
        let client = u8::try_from(number).unwrap();
        let Arrived::InPlaceOf(other, refusal) =
            arrive(&mut schedule, &job(number, client, later(now)), now)
        else {
            panic!("the other one has more")
        };
        assert_eq!(
            (other.number, refusal.kind),
            (pushed_out, RefusalKind::Full)
        );
    }
    // Two of the first client, one each of two others: a fourth one makes it one each.
    assert!(matches!(
        arrive(&mut schedule, &job(7, 7, later(now)), now),
        Arrived::InPlaceOf(..)
    ));
    assert!(matches!(
        arrive(&mut schedule, &job(8, 8, later(now)), now),
        Arrived::Refused(..)
    ));
    assert_eq!(schedule.len(), 4);
}

#[test]
fn a_quota_refuses_one_client_and_says_when_to_come_back() {
    let now = Instant::now();
    let mut schedule = Schedule::new(Policy {
        quota: Some(Quota {
            interval: 10 * MS,
            burst: 2,
        }),
        ..Policy::default()
    });
    for number in 0..2 {
        assert!(matches!(
            arrive(&mut schedule, &job(number, 0, later(now)), now),
            Arrived::Queued
        ));
    }
    let Arrived::Refused(_, refusal) = arrive(&mut schedule, &job(2, 0, later(now)), now) else {
        panic!("beyond its quota")
    };
    let kind = RefusalKind::Quota;
    let retry_after = 10 * MS;
    assert_eq!(refusal, Refusal { kind, retry_after });
    assert!(matches!(
        arrive(&mut schedule, &job(3, 1, later(now)), now),
        Arrived::Queued
    ));
    let back = now + retry_after;
    assert!(matches!(
        arrive(&mut schedule, &job(4, 0, later(now)), back),
        Arrived::Queued
    ));
}

#[test]
fn urgent_requests_go_first_between_clients_and_within_one() {
    let now = Instant::now();
    let mut schedule = Schedule::new(Policy {
        priority_levels: 2,
        default_priority_level: 2,
        ..Policy::default()
    });
    for (number, (client, priority)) in [
        (0, None),
        (0, Some(9)),
        (1, Some(2)),
        (1, Some(1)),
        (0, Some(1)),
    ]
    .into_iter()
    .enumerate()
    {
        let job = Job {
            priority,
            ..job(number, client, later(now))
        };
        arrive(&mut schedule, &job, now);
    }
    let mut order = Vec::new();
    while let Some(batch) = next_batch(&mut schedule, now) {
        order.extend(numbers(&batch));
        schedule.ran(batch.receipt, Some(MS), now);
    }
    assert_eq!(order, [4, 3, 0, 2, 1]);
}

#[test]
fn what_cannot_be_in_time_any_more_never_runs() {
    let start = Instant::now();
    let mut schedule = Schedule::new(Policy {
        is_steady: true,
        ..Policy::default()
    });
    let mut now = start;
    for number in 0..20 {
        arrive(&mut schedule, &job(number, 0, later(start)), now);
        let batch = next_batch(&mut schedule, now).unwrap();
        now += 20 * MS;
        schedule.ran(batch.receipt, Some(20 * MS), now);
    }
    // Every run took 20 ms, so one that must end within 9 ms would end too late; within 11 ms it may be in time.
    arrive(&mut schedule, &job(20, 0, now + 9 * MS), now);
    assert!(matches!(schedule.step(now, true), Step::Late(job) if job.number == 20));
    arrive(&mut schedule, &job(21, 0, now + 11 * MS), now);
    let batch = next_batch(&mut schedule, now).unwrap();
    assert_eq!(numbers(&batch), [21]);
}

/// What a step of the random test does.
#[derive(Debug, Clone)]
enum Do {
    Arrive {
        client: u8,
        rows: usize,
        shape: Option<u64>,
        priority: Option<u32>,
        lifetime_ms: u32,
        is_quickly_read: bool,
        is_bad: bool,
    },
    /// A worker asks for its next step.
    Step {
        worker: usize,
    },
    /// A worker ends what it does.
    End {
        worker: usize,
        is_whole: bool,
    },
    Pass {
        ms: u32,
    },
}

fn anything() -> impl Strategy<Value = Do> {
    prop_oneof![
        4 => (0_u8..6, 1_usize..7, prop::option::weighted(0.9, 0_u64..2), prop::option::of(0_u32..5), 0_u32..60,
              any::<bool>(), prop::bool::weighted(0.1))
            .prop_map(|(client, rows, shape, priority, lifetime_ms, is_quickly_read, is_bad)| Do::Arrive {
                client, rows, shape, priority, lifetime_ms, is_quickly_read, is_bad,
            }),
        6 => (0_usize..3).prop_map(|worker| Do::Step { worker }),
        3 => (0_usize..3, any::<bool>()).prop_map(|(worker, is_whole)| Do::End { worker, is_whole }),
        1 => (0_u32..30).prop_map(|ms| Do::Pass { ms }),
    ]
}

#[derive(Debug)]
enum Busy {
    Reading(Number),
    Running(Receipt, Instant),
}

fn any_policy() -> impl Strategy<Value = Policy> {
    let quota = prop::option::of((1_u32..20, 1_u32..5));
    (
        1_usize..12,
        1_usize..8,
        0_u32..20,
        0_u32..4,
        0_u32..5,
        quota,
        any::<bool>(),
    )
        .prop_map(
            |(
                max_queue_size,
                max_batch_size,
                delay,
                priority_levels,
                default_priority_level,
                quota,
                is_steady,
            )| Policy {
                max_queue_size,
                max_batch_size,
                max_queue_delay: delay * MS,
                priority_levels,
                default_priority_level,
                quota: quota.map(|(interval, burst)| Quota {
                    interval: interval * MS,
                    burst,
                }),
                is_steady,
            },
        )
}

proptest! {
    /// Three workers, anything in any order: every request comes out exactly once, none runs late, every batch is
    /// within its bounds, and nothing is left behind.
    #[test]
    fn nothing_is_lost_late_or_too_large(policy in any_policy(), steps in prop::collection::vec(anything(), 0..300)) {
        let start = Instant::now();
        let mut now = start;
        let mut schedule = Schedule::new(policy.clone());
        let mut workers: [Option<Busy>; 3] = [None, None, None];
        let mut out: BTreeMap<usize, &str> = BTreeMap::new();
        let mut count = 0;
        let mut steps = steps;
        // In the end all that waits becomes late or is run.
        for _ in 0..4_000 {
            let last = steps.is_empty();
            let step = if last { Do::Pass { ms: 1 } } else { steps.remove(0) };
            let mut come_out = |number: usize, how: &'static str| {
                prop_assert_eq!(out.insert(number, how), None, "{} came out twice", number);
                Ok(())
            };
            let mut turns = Vec::new();
            match step {
                Do::Arrive { client, rows, shape, priority, lifetime_ms, is_quickly_read, is_bad } => {
                    let deadline = now + MS * lifetime_ms;
                    let job = Job { number: count, client, rows, shape, priority, deadline, is_bad };
                    count += 1;
                    let before = schedule.len();
                    let client = name(client);
                    match schedule.arrive(Arrival { client, deadline, is_quickly_read, job }, now) {
                        Arrived::Queued => prop_assert!(before < policy.max_queue_size),
                        Arrived::InPlaceOf(other, refusal) => {
                            prop_assert_eq!(refusal.kind, RefusalKind::Full);
                            come_out(other.number, "pushed out")?;
                        }
                        Arrived::Refused(job, refusal) => {
                            let is_full = before >= policy.max_queue_size;
                            prop_assert!(is_full || refusal.kind == RefusalKind::Quota);
                            prop_assert!(!refusal.retry_after.is_zero());
                            come_out(job.number, "refused")?;
                        }
                    }
                    prop_assert!(schedule.len() <= policy.max_queue_size);
                }
                Do::Step { worker } => turns.push((worker, false, true)),
                Do::End { worker, is_whole } => turns.push((worker, true, is_whole)),
                Do::Pass { ms } => now += MS * ms,
            }
            if last {
                turns = (0..3).flat_map(|worker| [(worker, true, true), (worker, false, true)]).collect();
            }
            for (worker, is_end, is_whole) in turns {
                if is_end {
                    match workers[worker].take() {
                        Some(Busy::Reading(number)) => match schedule.get_mut(number) {
                            Some(job) if job.is_bad => {
                                let job = schedule.remove(number).unwrap();
                                come_out(job.number, "bad")?;
                            }
                            Some(job) => {
                                let reading = job.reading();
                                schedule.read(number, reading, MS / 100);
                            }
                            None => {}
                        },
                        Some(Busy::Running(receipt, since)) => {
                            schedule.ran(receipt, is_whole.then_some(now - since), now);
                        }
                        None => {}
                    }
                } else if workers[worker].is_none() {
                    match schedule.step(now, true) {
                        Step::Wait(None) => prop_assert!(schedule.is_empty()),
                        Step::Wait(Some(until)) => prop_assert!(until > now, "it would not wait"),
                        Step::Late(job) => {
                            let earliest = if policy.is_steady { now + Duration::from_secs(1) } else { now };
                            prop_assert!(job.deadline <= earliest);
                            come_out(job.number, "late")?;
                        }
                        Step::Read(number) => workers[worker] = Some(Busy::Reading(number)),
                        Step::Permit(_) => prop_assert!(false, "it has the right to compute"),
                        Step::Run(Batch { jobs, receipt }) => {
                            let rows: usize = jobs.iter().map(|job| job.rows).sum();
                            prop_assert!(jobs.len() == 1 || rows <= policy.max_batch_size);
                            prop_assert!(!jobs.is_empty());
                            for job in &jobs {
                                prop_assert!(job.deadline > now, "it runs late");
                                prop_assert!(jobs.len() == 1 || job.shape.is_some());
                                prop_assert_eq!(job.shape, jobs[0].shape);
                                come_out(job.number, "ran")?;
                            }
                            workers[worker] = Some(Busy::Running(receipt, now));
                        }
                    }
                }
            }
            if last && schedule.is_empty() && workers.iter().all(Option::is_none) {
                break;
            }
        }
        prop_assert!(schedule.is_empty());
        prop_assert_eq!(out.len(), count, "all came out");
        prop_assert!(matches!(schedule.step(now, false), Step::Wait(None)));
    }

    /// Clients that always want more get the same compute time, whatever their requests cost.
    #[test]
    fn compute_time_is_shared_fairly(
        costs_us in prop::collection::vec((1_usize..9, 100_u64..5_000), 2..6),
        max_batch_size in 1_usize..16,
        per_client in 1_usize..4,
    ) {
        let start = Instant::now();
        let mut now = start;
        let mut schedule = Schedule::new(Policy { max_batch_size, ..Policy::default() });
        let mut served = vec![Duration::ZERO; costs_us.len()];
        let mut longest = Duration::ZERO;
        let send = |schedule: &mut Schedule<Job>, client: usize, now| {
            let (rows, _) = costs_us[client];
            let name = u8::try_from(client).unwrap();
            // A shape of its own for each client, since only then its cost is its own.
            let shape = Some(client as u64);
            let job = Job { rows, shape, ..job(client, name, later(start)) };
            assert!(matches!(arrive(schedule, &job, now), Arrived::Queued));
        };
        for client in 0..costs_us.len() {
            for _ in 0..per_client {
                send(&mut schedule, client, now);
            }
        }
        for _ in 0..400 {
            let batch = next_batch(&mut schedule, now).unwrap();
            let cost = batch.jobs.iter().map(|job| costs_us[job.number].1).sum();
            let took = Duration::from_micros(cost);
            longest = longest.max(took);
            now += took;
            for job in batch.jobs {
                served[job.number] += Duration::from_micros(costs_us[job.number].1);
                send(&mut schedule, job.number, now);
            }
            schedule.ran(batch.receipt, Some(took), now);
        }
        let (least, most) = (served.iter().min().unwrap(), served.iter().max().unwrap());
        prop_assert!(*most - *least <= 2 * longest, "{served:?}");
    }

    /// However many urgent requests others send, one without urgency runs after a bounded time.
    #[test]
    fn nobody_starves(
        others in 1_u8..6,
        levels in 1_u32..6,
        run_ms in 1_u32..40,
        max_batch_size in 1_usize..4,
        own in any::<bool>(),
    ) {
        let start = Instant::now();
        let mut now = start;
        let policy = Policy {
            max_batch_size,
            max_queue_size: 64,
            priority_levels: levels,
            default_priority_level: levels,
            ..Policy::default()
        };
        let mut schedule = Schedule::new(policy);
        let send = |schedule: &mut Schedule<Job>, client: u8, now| {
            let job = Job { priority: Some(1), ..job(1, client, later(start)) };
            assert!(matches!(arrive(schedule, &job, now), Arrived::Queued));
        };
        // The victim's own urgent requests too, if it sends such.
        for client in 0..others + u8::from(own) {
            for _ in 0..4 {
                send(&mut schedule, client, now);
            }
        }
        let victim = job(0, others, later(start));
        arrive(&mut schedule, &victim, now);
        let run = MS * run_ms;
        // Everybody may be ahead by the head start of all levels, and by what waits already.
        let parties = u32::from(others) + 1;
        let bound = HEAD_START * (levels - 1) * (parties + 1) + run * (8 * parties + 16);
        loop {
            let batch = next_batch(&mut schedule, now).unwrap();
            if batch.jobs.iter().any(|job| job.number == 0) {
                break;
            }
            now += run;
            for job in batch.jobs {
                send(&mut schedule, job.client, now);
            }
            schedule.ran(batch.receipt, Some(run), now);
            prop_assert!(now - start <= bound, "waited {:?}", now - start);
        }
    }
}
