//! Runs each request once and remembers its answer until the request expires, within bounds on number and memory.
//! Pure: time comes in as a value.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
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

/// Memory of an entry beside its bodies and correlation, in bytes: hash table, heap, strings.
const ENTRY_BYTES: usize = 400;

/// Repeats of one request that wait for its answer.
const WAITERS_MAX: usize = 64;

/// One client gets at most this part of [`Bounds::bytes_max`], so that it cannot lock out the others.
const CLIENT_SHARE: usize = 4;

/// A later expiry is remembered when it is later by this much: each costs memory until the earlier one.
const EXPIRY_STEP: Duration = Duration::from_secs(1);

/// Requests in progress with those that wait for them, and answers given.
#[derive(Debug)]
pub struct Answers<W> {
    bounds: Bounds,
    entries: HashMap<Arc<Key>, Entry<W>>,
    by_expiry: BinaryHeap<Reverse<(Instant, Arc<Key>)>>,
    running: usize,
    bytes: usize,
    bytes_by_client: HashMap<Id, usize>,
}

#[derive(Debug)]
enum Entry<W> {
    Running {
        waiters: Vec<W>,
        expires: Instant,
        bytes: usize,
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
    /// This client has used up its share: refuse this waiter.
    OverShare(W),
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
            bytes_by_client: HashMap::new(),
        }
    }

    /// Takes in a request of `body_bytes` that expires at `expires`. When it waits already, its first expiry is the one
    /// by which it must run; its answer is kept until the latest.
    pub fn begin(
        &mut self,
        key: Key,
        body_bytes: usize,
        waiter: W,
        expires: Instant,
        now: Instant,
    ) -> Begin<W> {
        self.forget_expired(now);
        let bytes = size(&key, body_bytes);
        let fits_share = self.fits_share(&key, bytes);
        match self.entries.get_mut(&key) {
            Some(Entry::Running {
                waiters,
                expires: kept,
                ..
            }) => {
                if waiters.len() >= WAITERS_MAX {
                    return Begin::Full(waiter, "this request was repeated too often");
                }
                *kept = expires.max(*kept);
                waiters.push(waiter);
                Begin::Joined
            }
            Some(Entry::Done {
                outcome,
                expires: kept,
            }) => {
                let outcome = outcome.clone();
                if expires >= *kept + EXPIRY_STEP {
                    *kept = expires;
                    self.by_expiry.push(Reverse((expires, Arc::new(key))));
                }
                Begin::Answered(waiter, outcome)
            }
            None if self.running >= self.bounds.running_max => {
                Begin::Full(waiter, "too many requests are in progress")
            }
            None if !fits_share => Begin::OverShare(waiter),
            None if self.bytes + bytes > self.bounds.bytes_max => {
                Begin::Full(waiter, "the memory for answers is full")
            }
            None => {
                let key = Arc::new(key);
                self.charge(&key, bytes);
                self.running += 1;
                let entry = Entry::Running {
                    waiters: vec![waiter],
                    expires,
                    bytes,
                };
                self.entries.insert(key.clone(), entry);
                Begin::Run(key)
            }
        }
    }

    /// Ends a running request and returns those that wait for it. Not remembered are an outcome that may be better
    /// next time, so that the sender's repeat runs again, and one for which there is no room.
    pub fn finish(&mut self, key: &Arc<Key>, outcome: &Arc<Outcome>) -> Vec<W> {
        let Some(Entry::Running {
            waiters,
            expires,
            bytes,
        }) = self.entries.remove(key)
        else {
            return Vec::new();
        };
        self.running -= 1;
        self.release(key, bytes);
        let bytes = size(key, outcome.body.bytes.len());
        let has_room = self.bytes + bytes <= self.bounds.bytes_max && self.fits_share(key, bytes);
        if !outcome.status.is_retryable() && has_room {
            self.charge(key, bytes);
            let entry = Entry::Done {
                outcome: outcome.clone(),
                expires,
            };
            self.entries.insert(key.clone(), entry);
            self.by_expiry.push(Reverse((expires, key.clone())));
        }
        waiters
    }

    /// Ends a running request that cannot be repeated, and returns those that wait for it.
    pub fn end(&mut self, key: &Arc<Key>) -> Vec<W> {
        let Some(Entry::Running { waiters, bytes, .. }) = self.entries.remove(key) else {
            return Vec::new();
        };
        self.running -= 1;
        self.release(key, bytes);
        waiters
    }

    fn fits_share(&self, key: &Key, bytes: usize) -> bool {
        let used = self.bytes_by_client.get(&key.client).unwrap_or(&0);
        used + bytes <= self.bounds.bytes_max / CLIENT_SHARE
    }

    fn charge(&mut self, key: &Key, bytes: usize) {
        self.bytes += bytes;
        *self.bytes_by_client.entry(key.client.clone()).or_default() += bytes;
    }

    fn release(&mut self, key: &Key, bytes: usize) {
        self.bytes -= bytes;
        if let Some(used) = self.bytes_by_client.get_mut(&key.client) {
            *used -= bytes;
            if *used == 0 {
                self.bytes_by_client.remove(&key.client);
            }
        }
    }

    fn forget_expired(&mut self, now: Instant) {
        while let Some(Reverse((expires, _))) = self.by_expiry.peek()
            && *expires <= now
            && let Some(Reverse((expired, key))) = self.by_expiry.pop()
        {
            if let Some(Entry::Done { outcome, expires }) = self.entries.get(&key)
                && *expires == expired
            {
                let bytes = size(&key, outcome.body.bytes.len());
                self.entries.remove(&key);
                self.release(&key, bytes);
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
            bytes_max: 16 * ENTRY_BYTES,
        })
    }

    #[test]
    fn a_request_runs_once_and_its_repeats_get_the_same_answer() {
        let (mut answers, now) = (answers(), Instant::now());
        let expires = now + Duration::from_secs(10);
        let Begin::Run(running) = answers.begin(key(1), 0, 1, expires, now) else {
            panic!("the first of a kind runs")
        };
        assert_eq!(answers.begin(key(1), 0, 2, expires, now), Begin::Joined);
        let ok = outcome(Status::Ok);
        assert_eq!(answers.finish(&running, &ok), [1, 2]);
        assert_eq!(
            answers.begin(key(1), 0, 3, expires, now),
            Begin::Answered(3, ok)
        );
        assert_eq!(answers.running(), 0);
        let Begin::Run(_) = answers.begin(key(1), 0, 4, expires, expires) else {
            panic!("an expired answer is forgotten")
        };
    }

    #[test]
    fn what_may_be_better_next_time_is_not_remembered() {
        let (mut answers, now) = (answers(), Instant::now());
        let expires = now + Duration::from_secs(10);
        for waiter in 0..3 {
            let Begin::Run(running) = answers.begin(key(1), 0, waiter, expires, now) else {
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
    fn a_request_that_cannot_be_repeated_leaves_nothing_behind() {
        let (mut answers, now) = (answers(), Instant::now());
        let expires = now + Duration::from_secs(10);
        let Begin::Run(running) = answers.begin(key(1), 10, 7, expires, now) else {
            panic!("it runs")
        };
        assert_eq!(answers.end(&running), [7]);
        assert_eq!((answers.running(), answers.bytes), (0, 0));
        assert!(answers.end(&running).is_empty(), "it has ended");
        let again = answers.begin(key(1), 10, 8, expires, now);
        assert!(matches!(again, Begin::Run(_)), "nothing is remembered");
    }

    #[test]
    fn bounds_hold() {
        let (mut answers, now) = (answers(), Instant::now());
        let expires = now + Duration::from_secs(10);
        assert!(matches!(
            answers.begin(key(1), 0, 1, expires, now),
            Begin::Run(_)
        ));
        assert!(matches!(
            answers.begin(key(2), 0, 2, expires, now),
            Begin::Run(_)
        ));
        assert!(matches!(
            answers.begin(key(3), 0, 3, expires, now),
            Begin::Full(3, _)
        ));
        assert_eq!(answers.begin(key(2), 0, 4, expires, now), Begin::Joined);
    }

    #[test]
    fn a_greedy_client_locks_out_only_itself() {
        let (mut answers, now) = (answers(), Instant::now());
        let expires = now + Duration::from_secs(10);
        let greedy = answers.begin(key(1), 4 * ENTRY_BYTES, 1, expires, now);
        assert_eq!(greedy, Begin::OverShare(1));
        let other = Key {
            client: Id::new("sensor-2").unwrap(),
            ..key(1)
        };
        assert!(matches!(
            answers.begin(other, 0, 2, expires, now),
            Begin::Run(_)
        ));
    }

    #[test]
    fn a_repeat_with_a_later_expiry_keeps_the_answer_longer() {
        let (mut answers, now) = (answers(), Instant::now());
        let second = Duration::from_secs(1);
        let Begin::Run(running) = answers.begin(key(1), 0, 1, now + 10 * second, now) else {
            panic!("the first of a kind runs")
        };
        let ok = outcome(Status::Ok);
        answers.finish(&running, &ok);
        let repeat = answers.begin(key(1), 0, 2, now + 19 * second, now + 9 * second);
        assert_eq!(repeat, Begin::Answered(2, ok.clone()));
        let later = answers.begin(key(1), 0, 3, now + 19 * second, now + 11 * second);
        assert_eq!(later, Begin::Answered(3, ok));
        assert!(matches!(
            answers.begin(key(1), 0, 4, now + 30 * second, now + 20 * second),
            Begin::Run(_)
        ));
    }

    proptest! {
        /// Every waiter comes out exactly once, and accounting returns to zero when all is expired.
        #[test]
        fn no_waiter_is_lost(steps in prop::collection::vec((0_u8..6, any::<bool>(), 1_u64..20), 0..200)) {
            let mut answers = Answers::new(Bounds { running_max: 4, bytes_max: 24 * ENTRY_BYTES });
            let start = Instant::now();
            let (mut running, mut given, mut taken) = (Vec::new(), 0_u32, 0);
            for (step, (correlation, finish, lifetime)) in steps.into_iter().enumerate() {
                let now = start + Duration::from_secs(step as u64);
                given += 1;
                match answers.begin(key(correlation), 0, given, now + Duration::from_secs(lifetime), now) {
                    Begin::Run(key) => running.push(key),
                    Begin::Joined => {}
                    Begin::Answered(..) | Begin::OverShare(_) | Begin::Full(..) => taken += 1,
                }
                prop_assert!(answers.running() <= 4);
                prop_assert!(answers.bytes <= 24 * ENTRY_BYTES / CLIENT_SHARE);
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
            prop_assert!(answers.bytes_by_client.is_empty());
        }
    }
}
