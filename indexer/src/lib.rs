//! The indexer: one region of Aethir Edge, as a library so that tests run it in their own process.
//!
//! Messages flow one way: [`broker`] (or an outside one) → [`host`] (MQTT) → [`live`] (the one owner of the
//! [`region`]'s state) → [`store`] (SQLite, a thread of its own) and [`api`] (HTTP). [`identity`] says who everybody is.
//! [`run`] is the only file that knows all of them.

pub mod api;
pub mod broker;
pub mod host;
pub mod identity;
pub mod live;
pub mod region;
pub mod run;
pub mod settings;
pub mod store;
