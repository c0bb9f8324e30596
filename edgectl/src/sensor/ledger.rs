//! What becomes of each request: a state machine over (now, event) that decides when a request is sent again, when
//! it is given up, and that each one counts once. It knows no clock, no network and no payload.
//!
//! Time is a [`Duration`] since the run began.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::Duration,
};

use edge_protocol::sensor::{Attempt, Look, Patience, whole_seconds};
use hdrhistogram::Histogram;

/// Failure of a request that nobody answered in time.
pub const EXPIRED: &str = "expired";
/// Failure of a request whose answer has status 200 and is not an answer to it.
pub const BAD_ANSWER: &str = "bad-answer";
/// Failure of a request that was still open when the run was ended from outside.
pub const ABANDONED: &str = "abandoned";

/// A request that is to be sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Send {
    /// Number of the request in this run; the same for every repeat.
    pub number: u64,
    /// Whole seconds until it is given up, at least 1: MQTT's Message Expiry.
    pub expiry_s: u32,
}

/// What an answer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Status 200; whether the label was the expected one, where there is an expected one.
    Answered {
        /// The label was right.
        is_correct: Option<bool>,
    },
    /// 429 or 503: to be sent again after a while.
    NotNow {
        /// The status.
        status: u16,
        /// When to send again, where the answer says so.
        retry_after: Option<Duration>,
        /// The answer's own words.
        message: String,
    },
    /// Any other status, or an answer that is none.
    Failed {
        /// The status, or [`BAD_ANSWER`].
        reason: String,
        /// The answer's own words.
        message: String,
    },
}

/// Failures of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// How many requests failed so.
    pub count: u64,
    /// What was said about the first of them.
    pub first_message: String,
}

/// What became of all requests so far.
#[derive(Debug, Clone)]
pub struct Tally {
    /// Requests that were sent at least once.
    pub requests: u64,
    /// Requests with an answer of status 200.
    pub answered: u64,
    /// Answered requests whose expected label was known.
    pub labelled: u64,
    /// Answered requests with the expected label.
    pub correct: u64,
    /// Requests that failed, by status or reason.
    pub failures: BTreeMap<String, Failure>,
    /// Times that a request was sent again.
    pub retries: u64,
    /// Answers to requests that had been answered before.
    pub duplicates: u64,
    /// Answers to requests that had been given up.
    pub late: u64,
    /// Microseconds from the first sending to the answer, of answered requests.
    pub latency_us: Histogram<u64>,
}

impl Tally {
    fn new() -> Self {
        #[allow(
            clippy::expect_used,
            reason = "bounds and digits are constants within the documented range"
        )]
        // 4 digits: exact to the microsecond up to 16 ms, to a hundredth of a percent beyond.
        let latency_us = Histogram::new_with_bounds(1, 3_600_000_000, 4).expect("valid constants");
        Self {
            requests: 0,
            answered: 0,
            labelled: 0,
            correct: 0,
            failures: BTreeMap::new(),
            retries: 0,
            duplicates: 0,
            late: 0,
            latency_us,
        }
    }

    /// Requests that failed, whatever the reason.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failures.values().map(|failure| failure.count).sum()
    }

    fn fail(&mut self, reason: &str, message: String) {
        match self.failures.get_mut(reason) {
            Some(failure) => failure.count += 1,
            None => {
                let failure = Failure {
                    count: 1,
                    first_message: message,
                };
                self.failures.insert(reason.to_owned(), failure);
            }
        }
    }
}

/// The requests of a run.
#[derive(Debug)]
pub struct Ledger {
    patience: Patience,
    is_link_up: bool,
    next_number: u64,
    open: HashMap<u64, Open>,
    /// Each open request once, at the time when it must be looked at.
    schedule: BTreeSet<(Duration, u64)>,
    given_up: HashSet<u64>,
    tally: Tally,
}

/// A request without a final answer.
#[derive(Debug)]
struct Open {
    attempt: Attempt,
    /// The last 429 or 503.
    refusal: Option<(u16, String)>,
}

impl Ledger {
    /// An empty ledger, with the link up.
    #[must_use]
    pub fn new(patience: Patience) -> Self {
        Self {
            patience,
            is_link_up: true,
            next_number: 0,
            open: HashMap::new(),
            schedule: BTreeSet::new(),
            given_up: HashSet::new(),
            tally: Tally::new(),
        }
    }

    /// What became of the requests so far.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The final count; requests still open count as [`ABANDONED`] for `why`.
    #[must_use]
    pub fn close(mut self, why: &str) -> Tally {
        for _ in 0..self.open.len() {
            self.tally.fail(ABANDONED, why.to_owned());
        }
        self.tally
    }

    /// Requests without a final answer.
    #[must_use]
    pub fn open_count(&self) -> usize {
        self.open.len()
    }

    /// Begins a request, which the caller sends now.
    pub fn begin(&mut self, now: Duration) -> Send {
        let number = self.next_number;
        self.next_number += 1;
        self.tally.requests += 1;
        let mut attempt = Attempt::new(now, &self.patience);
        let first = attempt.look(now, &self.patience);
        let remaining = match first {
            Look::Send { remaining } => remaining,
            // Only without any patience.
            Look::Wait | Look::GiveUp => Duration::ZERO,
        };
        if !self.is_link_up {
            attempt.hold();
        }
        self.schedule.insert((attempt.due(), number));
        let refusal = None;
        self.open.insert(number, Open { attempt, refusal });
        Send {
            number,
            expiry_s: whole_seconds(remaining),
        }
    }

    /// When [`Ledger::take_due`] has something to do next.
    #[must_use]
    pub fn next_due(&self) -> Option<Duration> {
        self.schedule.first().map(|(due, _)| *due)
    }

    /// Gives up what has expired, and returns the next request that is to be sent again now.
    pub fn take_due(&mut self, now: Duration) -> Option<Send> {
        while let Some((due, number)) = self.schedule.first().copied()
            && due <= now
        {
            let patience = self.patience;
            match self.change(number, |attempt| attempt.look(now, &patience)) {
                Some(Look::Send { remaining }) => {
                    self.tally.retries += 1;
                    let expiry_s = whole_seconds(remaining);
                    return Some(Send { number, expiry_s });
                }
                _ => self.give_up(number),
            }
        }
        None
    }

    /// Takes in an answer.
    pub fn answer(&mut self, now: Duration, number: u64, verdict: Verdict) {
        let Some(request) = self.open.get_mut(&number) else {
            if self.given_up.contains(&number) {
                self.tally.late += 1;
            } else if number < self.next_number {
                self.tally.duplicates += 1;
            }
            return;
        };
        match verdict {
            Verdict::Answered { is_correct } => {
                let latency = now.saturating_sub(request.attempt.begun());
                self.tally.answered += 1;
                self.tally.labelled += u64::from(is_correct.is_some());
                self.tally.correct += u64::from(is_correct == Some(true));
                self.tally.latency_us.saturating_record(whole_us(latency));
                self.forget(number);
            }
            Verdict::NotNow {
                status,
                retry_after,
                message,
            } => {
                request.refusal = Some((status, message));
                let (patience, is_link_up) = (self.patience, self.is_link_up);
                self.change(number, |attempt| {
                    attempt.refuse(now, retry_after, &patience);
                    if !is_link_up {
                        attempt.hold();
                    }
                });
            }
            Verdict::Failed { reason, message } => {
                self.tally.fail(&reason, message);
                self.forget(number);
            }
        }
    }

    /// The connection is lost: nothing can be sent again until it is back.
    pub fn link_down(&mut self) {
        self.is_link_up = false;
        self.change_all(Attempt::hold);
    }

    /// The connection is back: whatever has no answer is to be sent again at once.
    pub fn link_up(&mut self, now: Duration) {
        self.is_link_up = true;
        self.change_all(|attempt| attempt.hasten(now));
    }

    fn change_all(&mut self, change: impl Fn(&mut Attempt)) {
        let numbers: Vec<u64> = self.open.keys().copied().collect();
        for number in numbers {
            self.change(number, &change);
        }
    }

    /// Changes when to look at a request next; `None` when it has ended.
    fn change<T>(&mut self, number: u64, change: impl FnOnce(&mut Attempt) -> T) -> Option<T> {
        let request = self.open.get_mut(&number)?;
        self.schedule.remove(&(request.attempt.due(), number));
        let changed = change(&mut request.attempt);
        self.schedule.insert((request.attempt.due(), number));
        Some(changed)
    }

    fn give_up(&mut self, number: u64) {
        if let Some(request) = self.forget(number) {
            match request.refusal {
                Some((status, message)) => self.tally.fail(&status.to_string(), message),
                None => {
                    let expiry_s = self.patience.expiry.as_secs_f32();
                    let message = format!("no answer within {expiry_s} s");
                    self.tally.fail(EXPIRED, message);
                }
            }
            self.given_up.insert(number);
        }
    }

    fn forget(&mut self, number: u64) -> Option<Open> {
        let request = self.open.remove(&number)?;
        self.schedule.remove(&(request.attempt.due(), number));
        Some(request)
    }
}

fn whole_us(latency: Duration) -> u64 {
    let rounded = latency + Duration::from_nanos(500);
    u64::try_from(rounded.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PATIENCE: Patience = Patience::until(Duration::from_secs(20));

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn ok() -> Verdict {
        Verdict::Answered {
            is_correct: Some(true),
        }
    }

    fn busy(retry_after_ms: u64) -> Verdict {
        Verdict::NotNow {
            status: 503,
            retry_after: Some(Duration::from_millis(retry_after_ms)),
            message: "queue full".to_owned(),
        }
    }

    /// Times of all repeats until nothing is left to do.
    fn repeats(ledger: &mut Ledger) -> Vec<(Duration, u32)> {
        let mut times = Vec::new();
        while let Some(due) = ledger.next_due() {
            while let Some(send) = ledger.take_due(due) {
                times.push((due, send.expiry_s));
            }
        }
        times
    }

    #[test]
    fn silence_is_answered_by_growing_pauses_until_expiry() {
        let mut ledger = Ledger::new(PATIENCE);
        let first = ledger.begin(s(0));
        assert_eq!((first.number, first.expiry_s), (0, 20));
        assert_eq!(repeats(&mut ledger), [(s(2), 18), (s(6), 14), (s(14), 6)]);
        let tally = ledger.close("");
        assert_eq!((tally.requests, tally.answered, tally.retries), (1, 0, 3));
        assert_eq!(tally.failures[EXPIRED].count, 1);
        assert_eq!(
            tally.failures[EXPIRED].first_message,
            "no answer within 20 s"
        );
    }

    #[test]
    fn an_answer_counts_once_and_its_latency_runs_from_the_first_sending() {
        let mut ledger = Ledger::new(PATIENCE);
        let send = ledger.begin(s(1));
        assert_eq!(ledger.take_due(s(3)).map(|s| s.number), Some(0));
        let now = s(3) + Duration::from_nanos(123_456_700);
        ledger.answer(now, send.number, ok());
        ledger.answer(now, send.number, ok());
        ledger.answer(now, 99, ok());
        assert_eq!(ledger.next_due(), None);
        let tally = ledger.close("");
        assert_eq!((tally.answered, tally.correct, tally.duplicates), (1, 1, 1));
        assert_eq!(tally.failed(), 0);
        assert!(
            tally
                .latency_us
                .equivalent(tally.latency_us.max(), 2_123_457)
        );
    }

    #[test]
    fn a_refusal_sets_its_own_pause_and_is_the_reason_when_time_runs_out() {
        let mut ledger = Ledger::new(PATIENCE);
        let send = ledger.begin(s(0));
        ledger.answer(s(1), send.number, busy(500));
        assert_eq!(ledger.next_due(), Some(Duration::from_millis(1_500)));
        assert!(ledger.take_due(Duration::from_millis(1_500)).is_some());
        // Silence after that is measured from there.
        assert_eq!(ledger.next_due(), Some(Duration::from_millis(3_500)));
        ledger.answer(s(2), send.number, busy(60_000));
        assert_eq!(ledger.next_due(), Some(s(20)));
        assert_eq!(ledger.take_due(s(20)), None);
        let tally = ledger.close("");
        assert_eq!(tally.failures["503"].first_message, "queue full");
        assert_eq!((tally.failed(), tally.retries), (1, 1));
    }

    #[test]
    fn an_answer_after_giving_up_is_late_and_changes_nothing() {
        let mut ledger = Ledger::new(PATIENCE);
        let send = ledger.begin(s(0));
        repeats(&mut ledger);
        ledger.answer(s(21), send.number, ok());
        let tally = ledger.close("");
        assert_eq!((tally.answered, tally.late, tally.failed()), (0, 1, 1));
    }

    #[test]
    fn a_lost_link_stops_repeats_and_its_return_sends_everything_again() {
        let mut ledger = Ledger::new(PATIENCE);
        ledger.begin(s(0));
        ledger.begin(s(0));
        ledger.link_down();
        assert_eq!(ledger.take_due(s(10)), None);
        assert_eq!(ledger.next_due(), Some(s(20)));
        ledger.link_up(s(10));
        let mut again: Vec<u64> = std::iter::from_fn(|| ledger.take_due(s(10)))
            .map(|send| send.number)
            .collect();
        again.sort_unstable();
        assert_eq!(again, [0, 1]);
        assert_eq!(ledger.close("interrupted").failures[ABANDONED].count, 2);
    }

    #[derive(Debug, Clone)]
    enum Event {
        Begin,
        Wait(u16),
        Answer(u64, Verdict),
        Down,
        Up,
    }

    fn verdict() -> impl Strategy<Value = Verdict> {
        prop_oneof![
            any::<Option<bool>>().prop_map(|is_correct| Verdict::Answered { is_correct }),
            (0_u64..30_000).prop_map(busy),
            Just(Verdict::NotNow {
                status: 429,
                retry_after: None,
                message: String::new()
            }),
            Just(Verdict::Failed {
                reason: "400".to_owned(),
                message: String::new()
            }),
        ]
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            3 => Just(Event::Begin),
            4 => any::<u16>().prop_map(Event::Wait),
            4 => (0_u64..12, verdict()).prop_map(|(number, verdict)| Event::Answer(number, verdict)),
            1 => Just(Event::Down),
            1 => Just(Event::Up),
        ]
    }

    proptest! {
        #[test]
        fn every_request_ends_once_and_is_never_sent_past_its_deadline(
            events in proptest::collection::vec(event(), 0..60)
        ) {
            let mut ledger = Ledger::new(PATIENCE);
            let mut now = Duration::ZERO;
            let mut began = Vec::new();
            let mut is_up = true;
            for event in events {
                match event {
                    Event::Begin => {
                        let send = ledger.begin(now);
                        prop_assert_eq!(send.number, began.len() as u64);
                        began.push(now);
                    }
                    Event::Wait(ms) => now += Duration::from_millis(ms.into()),
                    Event::Answer(number, verdict) => ledger.answer(now, number, verdict),
                    Event::Down => {
                        ledger.link_down();
                        is_up = false;
                    }
                    Event::Up => {
                        ledger.link_up(now);
                        is_up = true;
                    }
                }
                let mut sent = HashSet::new();
                while let Some(send) = ledger.take_due(now) {
                    prop_assert!(is_up);
                    prop_assert!(sent.insert(send.number), "sent twice at once");
                    let deadline = began[usize::try_from(send.number).unwrap()] + PATIENCE.expiry;
                    prop_assert!(now < deadline);
                    prop_assert!(now + s(send.expiry_s.into()) >= deadline);
                }
                prop_assert!(ledger.next_due().is_none_or(|due| due > now));
                prop_assert_eq!(ledger.schedule.len(), ledger.open.len());
                let tally = ledger.tally();
                prop_assert_eq!(
                    tally.requests,
                    tally.answered + tally.failed() + ledger.open_count() as u64
                );
                prop_assert_eq!(tally.latency_us.len(), tally.answered);
                prop_assert!(tally.correct <= tally.labelled && tally.labelled <= tally.answered);
            }
            ledger.take_due(now + PATIENCE.expiry);
            while ledger.take_due(now + PATIENCE.expiry).is_some() {}
            prop_assert_eq!(ledger.open_count(), 0);
        }
    }
}
