//! Fastboot: the protocol of Android's boot loaders, over USB and TCP.
//!
//! - [`transport`]: what carries messages, and how it fails
//! - [`tcp`], [`usb`]: the two carriers
//! - [`client`]: commands and answers
//! - [`job`]: all partitions of an image, with repeats
//! - [`sim`]: a simulated board that can be told to fail
//!
//! Protocol: AOSP, `system/core/fastboot/README.md`. A board has no command to read back what it wrote, so what is
//! known at the end is what the board acknowledged.

pub mod client;
pub mod job;
pub mod sim;
pub mod tcp;
pub mod transport;
pub mod usb;
