//! When one request is sent again and when it is given up. Time is a [`Duration`] since any fixed moment.

use core::time::Duration;

/// How patient a sensor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// A request is given up this long after it was begun.
    pub expiry: Duration,
    /// A request without an answer is sent again after this long.
    pub first_repeat: Duration,
    /// The pause doubles with each repeat, up to this.
    pub longest_repeat: Duration,
}

impl Patience {
    /// Repeats after 2, 4, 8 and at most 30 seconds, until `expiry`.
    #[must_use]
    pub const fn until(expiry: Duration) -> Self {
        Self {
            expiry,
            first_repeat: Duration::from_secs(2),
            longest_repeat: Duration::from_secs(30),
        }
    }
}

/// The course of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    begun: Duration,
    deadline: Duration,
    due: Duration,
    /// Pause after the next sending.
    pause: Duration,
}

/// What to do with a request now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Nothing before [`Attempt::due`].
    Wait,
    /// Send it; it is of use for the time that remains.
    Send {
        /// Until the deadline; more than zero.
        remaining: Duration,
    },
    /// Its time is over.
    GiveUp,
}

impl Attempt {
    /// A request that begins now and is to be sent at once.
    #[must_use]
    pub fn new(now: Duration, patience: &Patience) -> Self {
        Self {
            begun: now,
            deadline: now.saturating_add(patience.expiry),
            due: now,
            pause: patience.first_repeat,
        }
    }

    /// When it began.
    #[must_use]
    pub const fn begun(&self) -> Duration {
        self.begun
    }

    /// When to look at it next: to send it again, or to give it up.
    #[must_use]
    pub const fn due(&self) -> Duration {
        self.due
    }

    /// Decides what to do at `now`; [`Look::Send`] counts as done.
    pub fn look(&mut self, now: Duration, patience: &Patience) -> Look {
        if now >= self.deadline {
            return Look::GiveUp;
        }
        if now < self.due {
            return Look::Wait;
        }
        self.set_due(now.saturating_add(self.pause));
        self.pause = self.pause.saturating_mul(2).min(patience.longest_repeat);
        Look::Send {
            remaining: self.deadline - now,
        }
    }

    /// A box said "not now": it is sent again after `retry_after`, or after the first pause where the box names none.
    pub fn refuse(&mut self, now: Duration, retry_after: Option<Duration>, patience: &Patience) {
        // A box that answers is no silent one: the pause for silence starts afresh.
        self.pause = patience.first_repeat;
        let wait = retry_after.unwrap_or(patience.first_repeat);
        self.set_due(now.saturating_add(wait.max(Duration::from_millis(1))));
    }

    /// It is sent again at once.
    pub fn hasten(&mut self, now: Duration) {
        self.set_due(now);
    }

    /// It is not sent before [`Attempt::hasten`], since there is no connection.
    pub fn hold(&mut self) {
        self.due = self.deadline;
    }

    fn set_due(&mut self, due: Duration) {
        self.due = due.min(self.deadline);
    }
}

/// MQTT's Message Expiry for a request of which `remaining` is left: rounded up, so that a box does not give up before
/// the sensor, and at least 1 s.
#[must_use]
pub fn whole_seconds(remaining: Duration) -> u32 {
    let round_up = u64::from(remaining.subsec_nanos() > 0);
    u32::try_from(remaining.as_secs().saturating_add(round_up))
        .unwrap_or(u32::MAX)
        .max(1)
}
