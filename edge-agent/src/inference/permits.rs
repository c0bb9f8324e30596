//! How many models may compute at once: as many as the governor allows the board's heat.

use std::{sync::Arc, time::Instant};

use parking_lot::{Condvar, Mutex};

/// Permits to compute, shared by the workers of all models.
#[derive(Debug)]
pub struct Permits {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    /// Most that may compute at once.
    limit: u16,
    computing: u16,
    waiting: u16,
    /// Threads that may ask.
    workers: u16,
}

/// The right to compute; ends when dropped.
#[derive(Debug)]
pub(super) struct Permit(Arc<Permits>);

impl Default for Permits {
    fn default() -> Self {
        Self::new()
    }
}

impl Permits {
    /// No limit.
    pub const UNLIMITED: u16 = u16::MAX;

    /// Permits without a limit.
    #[must_use]
    pub fn new() -> Self {
        let state = State {
            limit: Self::UNLIMITED,
            workers: 0,
            computing: 0,
            waiting: 0,
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    /// Sets how many may compute at once; those who compute already go on. 0 lets nobody begin.
    pub fn limit(&self, limit: u16) {
        let mut state = self.state.lock();
        if state.limit != limit {
            state.limit = limit;
            self.changed.notify_all();
        }
    }

    /// One more thread, which may ask for a permit.
    pub(super) fn join(&self) {
        let mut state = self.state.lock();
        state.workers = state.workers.saturating_add(1);
    }

    /// One thread fewer.
    pub(super) fn leave(&self) {
        let mut state = self.state.lock();
        state.workers = state.workers.saturating_sub(1);
    }

    /// Most that may compute at once without a limit: all threads, at least one.
    #[must_use]
    pub fn most(&self) -> u16 {
        self.state.lock().workers.max(1)
    }

    /// How many compute or want to.
    #[must_use]
    pub fn demand(&self) -> u16 {
        let state = self.state.lock();
        state.computing.saturating_add(state.waiting)
    }

    /// Waits for a permit; `None` once `deadline` has passed.
    pub(super) fn take(self: &Arc<Self>, deadline: Instant) -> Option<Permit> {
        let mut state = self.state.lock();
        state.waiting += 1;
        let mut is_late = false;
        while state.computing >= state.limit && !is_late {
            is_late = self.changed.wait_until(&mut state, deadline).timed_out();
        }
        state.waiting -= 1;
        if state.computing >= state.limit {
            return None;
        }
        state.computing += 1;
        Some(Permit(self.clone()))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.computing -= 1;
        if state.waiting > 0 {
            self.0.changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread, time::Duration};

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(1)
    }

    #[test]
    fn no_more_compute_than_the_limit_says() {
        let permits = Arc::new(Permits::new());
        permits.limit(2);
        let first = permits.take(soon());
        let second = permits.take(soon());
        assert!(first.is_some() && second.is_some());
        assert!(permits.take(soon()).is_none());
        drop(first);
        assert!(permits.take(soon()).is_some());
    }

    #[test]
    fn a_lower_limit_ends_nobody_and_a_higher_one_wakes_who_waits() {
        let permits = Arc::new(Permits::new());
        let running = permits.take(soon());
        permits.limit(0);
        assert_eq!(permits.demand(), 1);
        let (sender, receiver) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| {
                let got = permits
                    .take(Instant::now() + Duration::from_secs(20))
                    .is_some();
                sender.send(got).unwrap();
            });
            while permits.demand() < 2 {
                thread::yield_now();
            }
            permits.limit(2);
            assert!(receiver.recv_timeout(Duration::from_secs(20)).unwrap());
        });
        drop(running);
        assert_eq!(permits.demand(), 0);
    }
}
