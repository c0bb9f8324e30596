//! Flashing: an image onto a file, a disk, or a board that speaks fastboot.
//!
//! - [`target`]: where an image goes, as a word on the command line
//! - [`source`], [`sparse`], [`checksum`]: the image as a stream of bytes, however it is stored
//! - [`medium`], [`mod@write`]: a file or block device, and the order in which it is written
//! - [`bundle`], [`pieces`]: a board's partitions, and how they are cut for it
//! - [`fastboot`]: the protocol of Android's boot loaders
//! - [`blocks`], [`guard`]: the disks of this machine, and which of them are not to be touched
//! - [`plan`]: what will be done, and what was
//! - [`progress`], [`stop`]: the person at the terminal

pub mod blocks;
pub mod bundle;
pub mod checksum;
pub mod fastboot;
pub mod guard;
pub mod medium;
pub mod pieces;
pub mod plan;
pub mod progress;
pub mod source;
pub mod sparse;
pub mod stop;
pub mod target;
pub mod write;
