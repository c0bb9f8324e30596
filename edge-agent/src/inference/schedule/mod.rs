//! What runs next, for whom, and together with what: the scheduler of one model. Pure: jobs are opaque, time comes in
//! as a value, and what is to be done comes out as a [`Step`].
//!
//! - [`policy`]: what the model's settings say
//! - [`queue`]: the state machine
//! - [`clients`]: fair sharing between clients by compute time, and their quotas
//! - [`quota`]: how many requests a client may send
//! - [`estimate`]: what runs have taken
//!
//! # Which request is next
//! Every client has a *virtual time*: the compute time that it was served. The client with the least goes first (start
//! time fair queueing). A new one begins at the time of those who wait; one that comes back after a pause has at most a
//! small credit from the past, enough for a burst. A run of several clients' requests is charged to each by its rows.
//!
//! A priority is a head start: a request of level 1 goes before one of level 2 of a client that was served up to
//! [`HEAD_START`] less, and before one of its own client that arrived up to [`HEAD_START`] earlier. So every level is
//! served, however busy those above it are.
//!
//! # What is refused
//! Beyond its quota a client gets 429. When the queue is full, a request of the client that has most in it makes room
//! for one of a client with less: one that floods refuses itself, with 503. What can no longer be answered in time is
//! taken out with 408 and never runs.

pub mod clients;
pub mod estimate;
pub mod policy;
pub mod queue;
pub mod quota;

#[cfg(test)]
mod tests;

pub use self::{
    policy::{HEAD_START, Policy},
    queue::{
        Arrival, Arrived, Batch, Number, Reading, Receipt, Refusal, RefusalKind, Schedule, Shape,
        Step,
    },
    quota::Quota,
};
