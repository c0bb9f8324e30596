//! All that crosses a wire between sensors, boxes and their region.
//!
//! Without features the crate is `no_std` and allocates nothing, so that a sensor's firmware uses the same
//! names, limits and bytes as the box: [`Id`], [`topic`], [`Status`], [`Datatype`], [`compact`]; [`sensor`] is its side of a
//! request as a state machine.
//! The feature `std` adds what only hosts need: [`oip`] (Open Inference Protocol v2 as JSON and binary tensors),
//! [`envelope`] (requests from MQTT 3.1.1 sensors), [`sparkplug`], the telemetry's [`metric`] names, and
//! [`provisioning`] (what an owner tells a box before its first start).
//!
//! Nothing here does I/O or knows the time. Every decoder takes foreign bytes and returns an error, never a panic.
#![cfg_attr(not(feature = "std"), no_std)]

pub mod compact;
mod datatype;
mod id;
pub mod limit;
pub mod property;
pub mod sensor;
mod status;
pub mod text;
pub mod topic;

#[cfg(feature = "std")]
mod broker;
#[cfg(feature = "std")]
pub mod envelope;
#[cfg(feature = "std")]
pub mod metric;
#[cfg(feature = "std")]
pub mod oip;
#[cfg(feature = "std")]
pub mod provisioning;
#[cfg(feature = "std")]
pub mod sparkplug;

#[cfg(feature = "std")]
pub use broker::{BrokerUrl, BrokerUrlError};
pub use datatype::{Datatype, UnknownDatatype};
pub use id::{Id, IdError};
pub use status::Status;
