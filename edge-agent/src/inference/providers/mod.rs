//! Execution providers: which of the board's runs a model.
//!
//! - [`choice`] (pure): the fastest whose answers are right
//! - [`trial`]: tries one, in a process of its own
//! - [`book`]: has trials made and remembers them over starts
//! - [`sim`]: a simulated accelerator that can be told to crash, to differ and to be slow

mod book;
mod choice;
mod sim;
mod trial;

pub use self::book::Book;
pub(super) use self::{choice::Choice, sim::SimModel};
pub(crate) use self::{choice::Trial, trial::try_provider};
