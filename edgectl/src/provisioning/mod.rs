//! The provisioning of a box, as a PC writes it.
//!
//! - [`files`]: the owner's two files, out of a file or of flags, and checked
//! - [`disk`]: the provisioning partition of a disk or of its image
//! - [`report`]: what lies there, for people and programs

pub mod disk;
pub mod files;
pub mod report;
