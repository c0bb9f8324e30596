//! One simulated reading: what a test or a demonstration sets, and makes fail.

use std::sync::{Arc, Mutex, PoisonError};

/// A simulated sensor does not answer, because somebody told it so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("simulated fault: {0}")]
pub struct SimFault(pub String);

/// A reading under somebody's control. Clones share it, so that the one who keeps a clone decides what the sensor
/// that was given the other one says.
#[derive(Debug, Clone)]
pub struct SimReading<T> {
    state: Arc<Mutex<State<T>>>,
}

#[derive(Debug)]
struct State<T> {
    value: T,
    fault: Option<SimFault>,
}

impl<T: Clone> SimReading<T> {
    /// A healthy sensor that reads `value`.
    #[must_use]
    pub fn new(value: T) -> Self {
        Self {
            state: Arc::new(Mutex::new(State { value, fault: None })),
        }
    }

    /// Sets the value; a fault stays.
    pub fn set(&self, value: T) {
        self.with(|state| state.value = value);
    }

    /// Lets every read fail with `reason` until [`SimReading::recover`].
    pub fn fail(&self, reason: &str) {
        self.with(|state| state.fault = Some(SimFault(reason.to_owned())));
    }

    /// Ends a fault.
    pub fn recover(&self) {
        self.with(|state| state.fault = None);
    }

    /// Reads the sensor.
    ///
    /// # Errors
    /// [`SimFault`] while it is told to fail.
    pub fn read(&self) -> Result<T, SimFault> {
        self.with(|state| match &state.fault {
            Some(fault) => Err(fault.clone()),
            None => Ok(state.value.clone()),
        })
    }

    fn with<R>(&self, action: impl FnOnce(&mut State<T>) -> R) -> R {
        // A panic while the lock is held leaves a whole value behind: nothing here can panic halfway.
        action(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
