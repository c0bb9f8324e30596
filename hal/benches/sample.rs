//! What a look at the board costs: time and allocations of a box of the Snapdragon 865 class made of files, and of
//! this machine, beside the floor of both: one bare `pread` of each file that the look keeps open.
#![allow(
    missing_docs,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a benchmark's functions name themselves, and it fails by panicking"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    fs::{self, File},
    hint::black_box,
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, Instant},
};

use divan::{AllocProfiler, Bencher};
use edge_hal::{Board, Readings, Sensors};

use support::Machine;

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

/// Looks of the summary.
const LOOKS: usize = 2_000;

fn main() {
    let machine = Machine::sm8250();
    let mut sensors = sm8250(&machine);
    summary("sm8250 made of files", &mut sensors, machine.root());
    drop(sensors);
    summary("this machine as host-sim", &mut host_sim(), Path::new("/"));
    divan::main();
}

fn sm8250(machine: &Machine) -> Sensors {
    Sensors::new(&Machine::board(), machine.root(), machine.root())
}

fn host_sim() -> Sensors {
    let board = Board::builtin("host-sim").unwrap();
    Sensors::new(&board, Path::new("/"), &std::env::temp_dir())
}

/// Prints the medians of looks and of bare reads, taken in turn, and their ratio.
fn summary(name: &str, sensors: &mut Sensors, root: &Path) {
    let mut readings = Readings::default();
    sensors.sample(&mut readings);
    let files = kept_open(root);
    let (mut looks, mut floors) = (Vec::new(), Vec::new());
    for _ in 0..LOOKS {
        looks.push(timed(|| sensors.sample(black_box(&mut readings))));
        floors.push(timed(|| read_all(&files)));
    }
    let (look, floor) = (median(&mut looks), median(&mut floors));
    println!(
        "{name}: {} files, {} faults; a look {look:?}, bare reads {floor:?}, ratio {:.2}",
        files.len(),
        readings.faults.len(),
        look.as_secs_f64() / floor.as_secs_f64(),
    );
}

fn timed(action: impl FnOnce()) -> Duration {
    let start = Instant::now();
    action();
    start.elapsed()
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// The kernel's files below `root` that this process has open, opened once more.
fn kept_open(root: &Path) -> Vec<File> {
    fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|fd| fs::read_link(fd.unwrap().path()).ok())
        .filter(|path| {
            let below = path.strip_prefix(root);
            below.is_ok_and(|path| path.starts_with("proc") || path.starts_with("sys"))
        })
        .filter(|path| path.is_file())
        .map(|path| File::open(path).unwrap())
        .collect()
}

fn read_all(files: &[File]) {
    let mut buffer = [0; 4_096];
    for file in files {
        black_box(file.read_at(&mut buffer, 0).unwrap());
    }
}

#[divan::bench]
fn look_sm8250(bencher: Bencher<'_, '_>) {
    let machine = Machine::sm8250();
    bench_look(bencher, sm8250(&machine));
}

#[divan::bench]
fn floor_sm8250(bencher: Bencher<'_, '_>) {
    let machine = Machine::sm8250();
    bench_floor(bencher, sm8250(&machine), machine.root());
}

#[divan::bench]
fn look_host_sim(bencher: Bencher<'_, '_>) {
    bench_look(bencher, host_sim());
}

#[divan::bench]
fn floor_host_sim(bencher: Bencher<'_, '_>) {
    bench_floor(bencher, host_sim(), Path::new("/"));
}

fn bench_look(bencher: Bencher<'_, '_>, mut sensors: Sensors) {
    let mut readings = Readings::default();
    sensors.sample(&mut readings);
    bencher.bench_local(|| sensors.sample(black_box(&mut readings)));
}

fn bench_floor(bencher: Bencher<'_, '_>, mut sensors: Sensors, root: &Path) {
    sensors.sample(&mut Readings::default());
    let files = kept_open(root);
    bencher.bench_local(|| read_all(&files));
}
