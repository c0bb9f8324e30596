//! The processor: how busy it is, and how fast its clusters run.

mod clock;
mod load;

pub use self::{
    clock::{ClusterClock, CpuClock, CpuClockError, CpufreqClock, SimCpuClock},
    load::{CpuLoad, CpuLoadError, ProcStatLoad, SimCpuLoad},
};
