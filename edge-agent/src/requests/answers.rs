//! Runs each request once and remembers its answer until the request expires, within bounds on number and memory.
//! Pure: time comes in as a value.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;
use edge_protocol::Id;

use crate::outcome::Outcome;

/// What makes two requests the same one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The sender.
    pub client: Id,
    /// Its correlation data.
    pub correlation: Bytes,
}

/// Bounds of [`Answers`].
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Requests running or waiting to run.
    pub running_max: usize,
    /// Memory of the entries, roughly, in bytes.
    pub bytes_max: usize,
}

/// Memory of an entry beside its answer's body and correlation, in bytes: hash table, heap, strings.
const ENTRY_BYTES: usize = 400;

/// Requests in progress with those that wait for them, and answers given.
#[derive(Debug)]
pub struct Answers<W> {
    bounds: Bounds,
    entries: HashMap<Arc<Key>, Entry<W>>,
    by_expiry: BinaryHeap<Reverse<(Instant, Arc<Key>)>>,
    running: usize,
    bytes: usize,
}

#[derive(Debug)]
enum Entry<W> {
    Running {
        waiters: Vec<W>,
        expires: Instant,
    },
    Done {
        outcome: Arc<Outcome>,
        expires: Instant,
    },
}

/// What to do with a request that has arrived.
#[derive(Debug, PartialEq)]
pub enum Begin<W> {
    /// Run it, then call [`Answers::finish`].
    Run(Arc<Key>),
    /// It is running already; its answer will come out of [`Answers::finish`] for this waiter too.
    Joined,
    /// It has run: answer this waiter with this.
    Answered(W, Arc<Outcome>),
    /// A bound is reached: refuse this waiter.
    Full(W, &'static str),
}

impl<W> Answers<W> {
    /// Nothing running, nothing remembered.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            entries: HashMap::new(),
            by_expiry: BinaryHeap::new(),
            running: 0,
            bytes: 0,
        }
    }

    /// Takes in a request that expires at `expires`.
    pub fn begin(&mut self, key: Key, waiter: W, expires: Instant, now: Instant) -> Begin<W> {
        self.forget_expired(now);
        match self.entries.get_mut(&key) {
            Some(Entry::Running { waiters, .. }) => {
                if waiters.len() >= self.bounds.running_max {
                    return Begin::Full(waiter, "this request was repeated too often");
                }
                waiters.push(waiter);
                Begin::Joined
            }
            Some(Entry::Done { outcome, .. }) => Begin::Answered(waiter, outcome.clone()),
            None if self.running >= self.bounds.running_max => {
                Begin::Full(waiter, "too many requests are in progress")
            }
            None if self.bytes + size(&key, 0) > self.bounds.bytes_max => {
                Begin::Full(waiter, "the memory for answers is full")
            }
            None => {
                let key = Arc::new(key);
                self.bytes += size(&key, 0);
                self.running += 1;
                let entry = Entry::Running {
                    waiters: vec![waiter],
                    expires,
                };
                self.entries.insert(key.clone(), entry);
                Begin::Run(key)
            }
        }
    }

    /// Ends a running request and returns those that wait for it. An outcome that may be better next time is not
    /// remembered: the sender's repeat runs again.
    pub fn finish(&mut self, key: &Arc<Key>, outcome: &Arc<Outcome>) -> Vec<W> {
        let Some(Entry::Running { waiters, expires }) = self.entries.remove(key) else {
            return Vec::new();
        };
        self.running -= 1;
        self.bytes -= size(key, 0);
        if !outcome.status.is_retryable() {
            self.bytes += size(key, outcome.body.bytes.len());
            let entry = Entry::Done {
                outcome: outcome.clone(),
                expires,
            };
            self.entries.insert(key.clone(), entry);
            self.by_expiry.push(Reverse((expires, key.clone())));
        }
        waiters
    }

    fn forget_expired(&mut self, now: Instant) {
        while let Some(Reverse((expires, _))) = self.by_expiry.peek()
            && *expires <= now
            && let Some(Reverse((expired, key))) = self.by_expiry.pop()
        {
            if let Some(Entry::Done { outcome, expires }) = self.entries.get(&key)
                && *expires == expired
            {
                self.bytes -= size(&key, outcome.body.bytes.len());
                self.entries.remove(&key);
            }
        }
    }

    /// Requests in progress.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running
    }
}

fn size(key: &Key, body_bytes: usize) -> usize {
    ENTRY_BYTES + key.correlation.len() + body_bytes
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use edge_protocol::{Status, oip::Encoding};
    use proptest::prelude::*;

    use super::*;

    fn key(correlation: u8) -> Key {
        Key {
            client: Id::new("sensor-1").unwrap(),
            correlation: Bytes::copy_from_slice(&[correlation]),
        }
    }

    fn outcome(status: Status) -> Arc<Outcome> {
        Arc::new(Outcome::failure(status, "", Encoding::Json))
    }

    fn answers() -> Answers<u32> {
        Answers::new(Bounds {
            running_max: 2,
            bytes_max: 4 * ENTRY_BYTES,
        })
    }

    #[test]
    fn a_request_runs_once_and_its_repeats_get_the_same_answer() {
        let (mut answers, now) = (answers(), Instant::now());
        let expires = now + Duration::from_secs(10);
        let Begin::Run(running) = answers.begin(key(1), 1, expires, now) else {
            panic!("the first of a kind runs")
        };
        assert_eq!(answers.begin(key(1), 2, expires, now), Begin::Joined);
        let ok = outcome(Status::Ok);
        assert_eq!(answers.finish(&running, &ok), [1, 2]);
        assert_eq!(
            answers.begin(key(1), 3, expires, now),
            Begin::Answered(3, ok)
        );
        assert_eq!(answers.running(), 0);
        let Begin::Run(_) = answers.begin(key(1), 4, expires, expires) else {
            panic!("an expired answer is forgotten")
        };
    }

    #[test]
    fn what_may_be_better_next_time_is_not_remembered() {
        let (mut answers, now) = (answers(), Instant::now());
        let expires = now + Duration::from_secs(10);
        for waiter in 0..3 {
            let Begin::Run(running) = answers.begin(key(1), waiter, expires, now) else {
                panic!("runs again")
            };
            assert_eq!(
                answers.finish(&running, &outcome(Status::Unavailable)),
                [waiter]
            );
        }
        assert_eq!(answers.bytes, 0);
    }

    #[test]
    fn bounds_hold() {
        let (mut answers, now) = (answers(), Instant::now());
        let expires = now + Duration::from_secs(10);
        assert!(matches!(
            answers.begin(key(1), 1, expires, now),
            Begin::Run(_)
        ));
        assert!(matches!(
            answers.begin(key(2), 2, expires, now),
            Begin::Run(_)
        ));
        assert!(matches!(
            answers.begin(key(3), 3, expires, now),
            Begin::Full(3, _)
        ));
        assert_eq!(answers.begin(key(2), 4, expires, now), Begin::Joined);
    }

    proptest! {
        /// Every waiter comes out exactly once, and accounting returns to zero when all is expired.
        #[test]
        fn no_waiter_is_lost(steps in prop::collection::vec((0_u8..6, any::<bool>(), 1_u64..20), 0..200)) {
            let mut answers = Answers::new(Bounds { running_max: 4, bytes_max: 6 * ENTRY_BYTES });
            let start = Instant::now();
            let (mut running, mut given, mut taken) = (Vec::new(), 0_u32, 0);
            for (step, (correlation, finish, lifetime)) in steps.into_iter().enumerate() {
                let now = start + Duration::from_secs(step as u64);
                given += 1;
                match answers.begin(key(correlation), given, now + Duration::from_secs(lifetime), now) {
                    Begin::Run(key) => running.push(key),
                    Begin::Joined => {}
                    Begin::Answered(..) | Begin::Full(..) => taken += 1,
                }
                prop_assert!(answers.running() <= 4);
                prop_assert!(answers.bytes <= 6 * ENTRY_BYTES + 6 * 32);
                if finish && let Some(key) = running.pop() {
                    taken += answers.finish(&key, &outcome(Status::Ok)).len();
                }
            }
            for key in running {
                taken += answers.finish(&key, &outcome(Status::Ok)).len();
            }
            prop_assert_eq!(taken, given as usize);
            answers.forget_expired(start + Duration::from_secs(10_000));
            prop_assert_eq!(answers.bytes, 0);
            prop_assert!(answers.entries.is_empty());
        }
    }
}
