//! How many models may compute at once: as many as the governor allows the board's heat. A fraction of one is kept by
//! letting the last one begin for a part of the time (`edge_hal::governor::Duty`).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use edge_hal::governor::Duty;
use parking_lot::{Condvar, Mutex};

/// Permits to compute, shared by the workers of all models.
#[derive(Debug)]
pub struct Permits {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    duty: Duty,
    computing: u16,
    waiting: u16,
    /// Threads that may ask.
    workers: u16,
    /// Until when time has passed.
    now: Instant,
    /// Time that was computed until then, by all together.
    worked: Duration,
}

/// The right to compute; ends when dropped.
#[derive(Debug)]
pub(super) struct Permit(Arc<Permits>);

impl Default for Permits {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    /// Lets time pass until now.
    fn pass(&mut self) {
        let before = self.now;
        self.now = Instant::now();
        let elapsed = self.now.saturating_duration_since(before);
        self.duty.pass(elapsed, self.computing.into());
        self.worked += elapsed * self.computing.into();
    }
}

impl Permits {
    /// Permits without a limit.
    #[must_use]
    pub fn new() -> Self {
        let state = State {
            duty: Duty::new(Duty::UNLIMITED),
            workers: 0,
            computing: 0,
            waiting: 0,
            now: Instant::now(),
            worked: Duration::ZERO,
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    /// Sets how many may compute at once, in thousandths of one ([`Duty::UNLIMITED`]: all); those who compute already
    /// go on. 0 lets nobody begin.
    pub fn limit(&self, limit_milli: u32) {
        let mut state = self.state.lock();
        state.pass();
        if state.duty.set(limit_milli) {
            self.changed.notify_all();
        }
    }

    /// Time that was computed since the beginning, by all together.
    #[must_use]
    pub fn worked(&self) -> Duration {
        let mut state = self.state.lock();
        state.pass();
        state.worked
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

    /// Waits for a permit; `None` once `deadline` has passed.
    pub(super) fn take(self: &Arc<Self>, deadline: Instant) -> Option<Permit> {
        let mut state = self.state.lock();
        state.waiting += 1;
        let may_begin = loop {
            state.pass();
            let computing = state.computing.into();
            if state.duty.may_begin(computing) {
                break true;
            }
            if state.now >= deadline {
                break false;
            }
            let opens = state
                .duty
                .opens_in(computing)
                .map(|after| state.now + after);
            let until = opens.map_or(deadline, |opens| opens.min(deadline));
            self.changed.wait_until(&mut state, until);
        };
        state.waiting -= 1;
        if !may_begin {
            return None;
        }
        state.computing += 1;
        Some(Permit(self.clone()))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.pass();
        state.computing -= 1;
        if state.waiting > 0 {
            self.0.changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(1)
    }

    fn late() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[test]
    fn no_more_compute_than_the_limit_says() {
        let permits = Arc::new(Permits::new());
        permits.limit(2_000);
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
        let (sender, receiver) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| sender.send(permits.take(late()).is_some()).unwrap());
            while permits.state.lock().waiting < 1 {
                thread::yield_now();
            }
            permits.limit(2_000);
            assert!(receiver.recv_timeout(Duration::from_secs(20)).unwrap());
        });
        drop(running);
        assert_eq!(permits.state.lock().computing, 0);
    }

    /// Lets `threads` want to compute all the time, in runs of at least `run`: what they computed, that time, and the
    /// longest run, in seconds.
    fn compute(limit_milli: u32, threads: usize, run: Duration) -> (f64, f64, f64) {
        let permits = Arc::new(Permits::new());
        let longest = Mutex::new(Duration::ZERO);
        let began = Instant::now();
        permits.limit(limit_milli);
        let end = began + Duration::from_millis(1_500);
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while let Some(permit) = permits.take(end) {
                        let begun = Instant::now();
                        while begun.elapsed() < run {
                            thread::yield_now();
                        }
                        drop(permit);
                        let mut longest = longest.lock();
                        *longest = begun.elapsed().max(*longest);
                        if Instant::now() >= end {
                            break;
                        }
                    }
                });
            }
        });
        let longest = longest.lock().as_secs_f64();
        let worked = permits.worked().as_secs_f64();
        (worked, began.elapsed().as_secs_f64(), longest)
    }

    #[test]
    fn a_fraction_is_kept_on_average_over_the_time_that_passed() {
        for (limit_milli, threads) in [(1_500, 2), (1_500, 4), (200, 2)] {
            for run in [Duration::from_millis(5), Duration::from_millis(150)] {
                let (worked, seconds, longest) = compute(limit_milli, threads, run);
                let allowed = f64::from(limit_milli) / 1_000.0 * seconds;
                let case = format!("{limit_milli} for {threads}, {run:?}: {worked} of {allowed} s");
                // Above: half a second that was saved before, and the debt of the last run.
                assert!(worked <= allowed + 0.5 + longest, "{case}");
                // Below: as far as the machine lets who may begin wait.
                assert!(worked >= 0.5 * allowed, "{case}");
            }
        }
    }
}
