//! What the parts of the agent say about themselves while they work: cheap enough for each request.

use std::sync::{
    Arc,
    atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering},
};

use parking_lot::Mutex;

use super::progress::{Mark, Part};

/// No temperature is known.
const UNKNOWN: i32 = i32::MIN;

/// A part's own side of its [`Mark`]. One thread or task writes it.
#[derive(Debug, Default)]
pub struct Pulse(AtomicU64);

impl Pulse {
    /// Busy from now on, or making progress while it is.
    pub fn beat(&self) {
        let mark = self.mark();
        let step = if mark.is_busy() { 2 } else { 1 };
        self.0.store(mark.0 + step, Ordering::Relaxed);
    }

    /// Idle from now on.
    pub fn rest(&self) {
        let mark = self.mark();
        if mark.is_busy() {
            self.0.store(mark.0 + 1, Ordering::Relaxed);
        }
    }

    /// How far the part has come.
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark(self.0.load(Ordering::Relaxed))
    }
}

/// The pulses of all parts, and what the status line tells. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Vitals(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    parts: Mutex<Vec<(Part, Arc<Pulse>)>>,
    connected: AtomicUsize,
    hottest_millicelsius: AtomicI32,
    waits_for: Mutex<Option<String>>,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            parts: Mutex::default(),
            connected: AtomicUsize::new(0),
            hottest_millicelsius: AtomicI32::new(UNKNOWN),
            waits_for: Mutex::default(),
        }
    }
}

impl Vitals {
    /// Watches a part from now on; it begins idle.
    #[must_use]
    pub fn watch(&self, part: Part) -> Arc<Pulse> {
        let pulse = Arc::new(Pulse::default());
        self.0.parts.lock().push((part, pulse.clone()));
        pulse
    }

    /// Watches a part no longer.
    pub fn forget(&self, part: &Part) {
        self.0.parts.lock().retain(|(other, _)| other != part);
    }

    /// Where each part is.
    #[must_use]
    pub fn marks(&self) -> Vec<(Part, Mark)> {
        let parts = self.0.parts.lock();
        let marks = parts.iter();
        marks
            .map(|(part, pulse)| (part.clone(), pulse.mark()))
            .collect()
    }

    /// Watches a connection from now on.
    pub(crate) fn connection(&self, purpose: &'static str) -> Connection {
        let pulse = self.watch(Part::Connection(purpose));
        pulse.beat();
        Connection {
            pulse,
            vitals: self.clone(),
            is_up: false,
        }
    }

    /// Whether each connection has been made, or its first attempt has failed.
    #[must_use]
    pub(super) fn have_connections_tried(&self) -> bool {
        let marks = self.marks();
        let mut connections = marks
            .iter()
            .filter(|(part, _)| matches!(part, Part::Connection(_)));
        connections.all(|(_, mark)| mark.0 > 1)
    }

    /// How many connections stand.
    #[must_use]
    pub(crate) fn connected(&self) -> usize {
        self.0.connected.load(Ordering::Relaxed)
    }

    /// The box cannot serve before this is done, or nothing hinders it.
    pub(crate) fn set_waits_for(&self, what: Option<String>) {
        *self.0.waits_for.lock() = what;
    }

    /// What has to be done before the box can serve.
    pub(crate) fn waits_for(&self) -> Option<String> {
        self.0.waits_for.lock().clone()
    }

    /// The hottest place of the board was this hot.
    pub(crate) fn set_hottest_millicelsius(&self, millicelsius: Option<i32>) {
        let value = millicelsius.unwrap_or(UNKNOWN);
        self.0.hottest_millicelsius.store(value, Ordering::Relaxed);
    }

    /// How hot the hottest place of the board was.
    #[must_use]
    pub(super) fn hottest_millicelsius(&self) -> Option<i32> {
        let value = self.0.hottest_millicelsius.load(Ordering::Relaxed);
        (value != UNKNOWN).then_some(value)
    }
}

/// A connection's own side.
pub(crate) struct Connection {
    pulse: Arc<Pulse>,
    vitals: Vitals,
    is_up: bool,
}

impl Connection {
    /// Something came, went or failed; or the next attempt begins.
    pub(crate) fn polled(&self) {
        self.pulse.beat();
    }

    /// The next attempt comes after a wait.
    pub(crate) fn rests(&self) {
        self.pulse.rest();
    }

    /// The connection stands, or does not.
    pub(crate) fn set_up(&mut self, is_up: bool) {
        if is_up == self.is_up {
            return;
        }
        self.is_up = is_up;
        let connected = &self.vitals.0.connected;
        if is_up {
            connected.fetch_add(1, Ordering::Relaxed);
        } else {
            connected.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.set_up(false);
        self.pulse.rest();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pulse_is_odd_while_busy_and_always_moves() {
        let pulse = Pulse::default();
        let mut marks = vec![pulse.mark()];
        pulse.beat();
        marks.push(pulse.mark());
        pulse.beat();
        marks.push(pulse.mark());
        pulse.rest();
        marks.push(pulse.mark());
        pulse.rest();
        assert_eq!(pulse.mark(), marks[3]);
        assert!(marks.is_sorted_by(|a, b| a.0 < b.0), "{marks:?}");
        let busy: Vec<bool> = marks.iter().map(|mark| mark.is_busy()).collect();
        assert_eq!(busy, [false, true, true, false]);
    }

    #[test]
    fn a_connection_counts_once_and_leaves_with_its_task() {
        let vitals = Vitals::default();
        let mut connection = vitals.connection("own");
        assert!(!vitals.have_connections_tried());
        connection.polled();
        assert!(vitals.have_connections_tried());
        connection.set_up(true);
        connection.set_up(true);
        assert_eq!(vitals.connected(), 1);
        drop(connection);
        assert_eq!(vitals.connected(), 0);
        assert!(!vitals.marks()[0].1.is_busy());
    }
}
