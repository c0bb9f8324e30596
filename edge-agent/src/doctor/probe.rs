//! What `doctor` and the agent do in a process of its own: `edge-agent probe WHAT` prints one JSON answer and ends. It may
//! crash.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Instant,
};

use clap::Subcommand;
use edge_hal::{
    board::{ExecutionProvider, SimProvider},
    identity::KeyPlace,
};
use edge_protocol::Id;
use nix::{
    sys::{prctl, signal::Signal},
    unistd::{Gid, Uid, geteuid, setgid, setuid},
};
use ort::{ep::ExecutionProviderDispatch, session::Session, value::Tensor};
use serde::Serialize;
use vulkano::{
    VulkanLibrary,
    device::physical::PhysicalDeviceType,
    instance::{Instance, InstanceCreateFlags, InstanceCreateInfo},
};

use super::verdict::work::{RuntimeFacts, SelfTest, VulkanDevice};
use crate::inference::{self, ModelEntry, Runtime, Trial};

/// What to try.
#[derive(Debug, Subcommand)]
pub enum Probe {
    /// Load ONNX Runtime
    Runtime {
        /// Its library
        #[arg(long)]
        onnxruntime: PathBuf,
    },
    /// Compute on an execution provider
    Provider {
        /// Its name in board files
        name: String,
        /// ONNX Runtime's library
        #[arg(long)]
        onnxruntime: PathBuf,
    },
    /// Load a model
    Model {
        /// Its name
        name: Id,
        /// The repository
        #[arg(long)]
        models: PathBuf,
        /// ONNX Runtime's library
        #[arg(long)]
        onnxruntime: PathBuf,
    },
    /// Try a model on an execution provider, beside the CPU
    Trial {
        /// The model's name
        name: Id,
        /// Its version
        version: u64,
        /// The provider's name in board files
        provider: String,
        /// The repository
        #[arg(long)]
        models: PathBuf,
        /// ONNX Runtime's library
        #[arg(long)]
        onnxruntime: PathBuf,
        /// What the simulated accelerator does
        #[arg(long)]
        sim: Option<String>,
    },
    /// List the Vulkan devices
    Vulkan,
    /// Open the box's key
    Identity {
        /// Its folder
        folder: PathBuf,
        /// The TPM that may hold it
        tpm: PathBuf,
    },
}

/// The graph of `self-test/make_self_test.py`, with which a provider is tried.
const GRAPH: &[u8] = include_bytes!("../../self-test/self-test.onnx");
/// Its inputs, as that program prints them.
const INPUTS: [f32; 8] = [-0.3125, 0.0, 0.3125, -0.0625, 0.25, -0.125, 0.1875, -0.1875];
/// The outputs that these must give, computed there without ONNX Runtime.
const OUTPUTS: [f64; 4] = [
    0.216_149_661_532_675_45,
    0.486_150_341_260_802_37,
    0.202_064_758_512_837_37,
    0.095_635_238_693_684_82,
];
/// What providers that compute in FP32 may be off by: a hundred roundings of a number under 1.
const TOLERANCE: f64 = 1e-5;
/// What providers that may compute in FP16 may be off by (Qualcomm's GPU and HTP back ends do by default): its
/// precision of 1 in 2,048 at logits around 3.
const TOLERANCE_FP16: f64 = 1e-2;
/// Runs that are timed, after one that is not.
const RUNS: usize = 21;

/// A library's version stands among the names of its symbols' versions, in its first part.
const VERSION_WITHIN_BYTES: u64 = 16 << 20;

/// Answers on standard output.
///
/// # Errors
/// When there is nobody to answer.
pub fn run(probe: &Probe) -> io::Result<()> {
    // Without the one who asked there is no reason to go on. A kernel that refuses lets it go on until it ends.
    let _set = prctl::set_pdeathsig(Signal::SIGKILL);
    match probe {
        Probe::Runtime { onnxruntime } => answer(&runtime(onnxruntime)),
        Probe::Provider { name, onnxruntime } => answer(&provider(name, onnxruntime)),
        Probe::Model {
            name,
            models,
            onnxruntime,
        } => answer(&model(name, models, onnxruntime)),
        Probe::Trial {
            name,
            version,
            provider,
            models,
            onnxruntime,
            sim,
        } => {
            let tried = known(provider).and_then(|provider| {
                let (entry, runtime) = (entry(name, Some(*version), models)?, load(onnxruntime)?);
                let mut sims = SimProvider::ALL.into_iter();
                let sim = sims.find(|known| Some(known.name()) == sim.as_deref());
                Ok(inference::try_provider(&runtime, &entry, provider, sim))
            });
            answer(&tried.unwrap_or_else(|why| Trial::Failed { why }))
        }
        Probe::Vulkan => answer(&vulkan()),
        Probe::Identity { folder, tpm } => answer(&identity(&KeyPlace {
            folder: folder.clone(),
            tpm: tpm.clone(),
        })),
    }
}

fn answer<T: Serialize>(answer: &T) -> io::Result<()> {
    let mut text = serde_json::to_vec(answer)?;
    text.push(b'\n');
    io::stdout().write_all(&text)
}

fn runtime(library: &Path) -> Result<RuntimeFacts, String> {
    let _runtime = Runtime::load(library).map_err(|error| error.to_string())?;
    Ok(RuntimeFacts {
        version: version_of(library),
        build: ort::info().to_owned(),
    })
}

/// The version by which ONNX Runtime's linker script names its symbols, such as `VERS_1.32.0`
/// (microsoft/onnxruntime, `tools/ci_build/gen_def.py`).
fn version_of(library: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    let file = File::open(library).ok()?;
    file.take(VERSION_WITHIN_BYTES)
        .read_to_end(&mut bytes)
        .ok()?;
    find_version(&bytes)
}

fn find_version(library: &[u8]) -> Option<String> {
    const MARK: &[u8] = b"\0VERS_";
    library
        .windows(MARK.len())
        .enumerate()
        .filter(|(_, window)| *window == MARK)
        .find_map(|(at, _)| {
            let rest = library.get(at + MARK.len()..)?;
            let version = rest.get(..rest.iter().take(32).position(|byte| *byte == 0)?)?;
            let is_version = version.first().is_some_and(u8::is_ascii_digit)
                && version.iter().all(|b| b.is_ascii_digit() || *b == b'.');
            is_version.then(|| String::from_utf8_lossy(version).into_owned())
        })
}

/// What a provider may be off by.
const fn tolerance(provider: ExecutionProvider) -> f64 {
    match provider {
        ExecutionProvider::Cpu
        | ExecutionProvider::Xnnpack
        | ExecutionProvider::Acl
        | ExecutionProvider::Sim => TOLERANCE,
        ExecutionProvider::QnnGpu | ExecutionProvider::QnnHtp => TOLERANCE_FP16,
    }
}

/// The provider of this name in board files.
fn known(name: &str) -> Result<ExecutionProvider, String> {
    let mut all = ExecutionProvider::ALL.into_iter();
    all.find(|known| known.name() == name)
        .ok_or_else(|| format!("this program knows no provider {name:?}"))
}

fn provider(name: &str, library: &Path) -> SelfTest {
    let provider = match known(name) {
        Ok(provider) => provider,
        Err(why) => return SelfTest::Failed { why },
    };
    let failed = |error: &dyn std::fmt::Display| SelfTest::Failed {
        why: error.to_string(),
    };
    let runtime = match Runtime::load(library) {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    let (dispatch, available) = inference::dispatch(provider);
    let tolerance = tolerance(provider);
    match available {
        Ok(true) => {}
        Ok(false) => return SelfTest::Absent,
        Err(error) => return failed(&error),
    }
    match compute(&runtime, dispatch) {
        Ok((run_us, max_error)) => SelfTest::Ran {
            run_us,
            max_error,
            tolerance,
        },
        Err(error) => failed(&error),
    }
}

/// Median time of a run in microseconds, and the largest error of all runs.
fn compute(runtime: &Runtime, provider: ExecutionProviderDispatch) -> ort::Result<(f64, f64)> {
    // Without this the runtime would fall back to its CPU kernels and say nothing.
    let provider = provider.error_on_failure();
    let mut session = Session::builder(runtime.environment())?
        .with_execution_providers([provider])?
        .with_intra_threads(1)?
        .commit_from_memory(GRAPH)?;
    let mut times_us = Vec::with_capacity(RUNS);
    let mut max_error = 0.0;
    for run in 0..=RUNS {
        let input = Tensor::from_array(([1_i64, 8], INPUTS.to_vec()))?;
        let started = Instant::now();
        let outputs = session.run(ort::inputs!["x" => input])?;
        let took = started.elapsed();
        if run > 0 {
            times_us.push(took.as_secs_f64() * 1e6);
        }
        let values = match outputs.get("y") {
            Some(output) => output.try_extract_tensor::<f32>()?.1,
            None => &[],
        };
        max_error = worse(max_error, error_of(values));
    }
    times_us.sort_by(f64::total_cmp);
    let median = times_us.get(RUNS / 2).copied().unwrap_or_default();
    Ok((median, max_error))
}

/// Largest difference from the right outputs; the largest number for a wrong count and for values that are no numbers, which
/// JSON cannot say and no tolerance allows.
fn error_of(values: &[f32]) -> f64 {
    if values.len() != OUTPUTS.len() {
        return f64::MAX;
    }
    let errors = values.iter().zip(OUTPUTS).map(|(value, right)| {
        let error = (f64::from(*value) - right).abs();
        if error.is_finite() { error } else { f64::MAX }
    });
    errors.fold(0.0, worse)
}

fn worse(a: f64, b: f64) -> f64 {
    if b > a { b } else { a }
}

/// How long the model takes to load, in microseconds.
fn model(name: &Id, models: &Path, library: &Path) -> Result<u64, String> {
    let (entry, runtime) = (entry(name, None, models)?, load(library)?);
    let started = Instant::now();
    inference::try_model(&runtime, &entry)?;
    Ok(u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX))
}

fn load(library: &Path) -> Result<Runtime, String> {
    Runtime::load(library).map_err(|error| error.to_string())
}

/// A version of a model in the repository; absent: that which a request gets which names none.
fn entry(name: &Id, version: Option<u64>, models: &Path) -> Result<ModelEntry, String> {
    let scan = inference::scan(models).map_err(|error| error.to_string())?;
    let found = scan.into_iter().find(|(found, _)| found == name);
    let gone = || format!("the model {name} has gone from the repository");
    let (_, folder) = found.ok_or_else(gone)?;
    let folder = folder.map_err(|error| error.to_string())?;
    match version {
        None => Ok(folder.newest().ok_or(inference::NONE_GIVEN)?),
        Some(version) => folder.entry(version).ok_or_else(gone),
    }
}

/// The key's fingerprint. Only its owner may use a key, so root becomes its owner; others are refused as they should.
fn identity(place: &KeyPlace) -> Result<String, String> {
    let file = place.file();
    let owner =
        fs::metadata(&file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    if geteuid().is_root() && owner.uid() != 0 {
        setgid(Gid::from_raw(owner.gid()))
            .and_then(|()| setuid(Uid::from_raw(owner.uid())))
            .map_err(|error| format!("cannot become user {}: {error}", owner.uid()))?;
    }
    place
        .open()
        .map(|key| key.fingerprint().to_string())
        .map_err(|error| super::gather::chain(&error))
}

fn vulkan() -> Result<Vec<VulkanDevice>, String> {
    let library =
        VulkanLibrary::new().map_err(|error| format!("Vulkan's loader is missing: {error}"))?;
    let instance = Instance::new(
        library,
        InstanceCreateInfo {
            flags: InstanceCreateFlags::ENUMERATE_PORTABILITY,
            ..Default::default()
        },
    )
    .map_err(|error| format!("Vulkan does not start: {error}"))?;
    let devices = instance
        .enumerate_physical_devices()
        .map_err(|error| format!("Vulkan lists no devices: {error}"))?;
    Ok(devices
        .map(|device| {
            let properties = device.properties();
            let driver = properties.driver_name.as_ref().map(|name| {
                let version = properties.driver_info.as_deref().unwrap_or_default();
                format!("{name} {version}").trim().to_owned()
            });
            VulkanDevice {
                name: properties.device_name.clone(),
                driver,
                api_version: device.api_version().to_string(),
                is_cpu: properties.device_type == PhysicalDeviceType::Cpu,
            }
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weight(number: usize, modulus: usize, over: f64) -> f64 {
        let half = f64::from(u8::try_from(modulus / 2).unwrap());
        (f64::from(u8::try_from(number % modulus).unwrap()) - half) / over
    }

    /// Computed once more, from the formulas of the program that makes the graph.
    #[test]
    fn the_expected_outputs_are_those_of_the_formulas() {
        let hidden: Vec<f64> = (0..16)
            .map(|j| {
                let sum: f64 = (0..8)
                    .map(|i| f64::from(INPUTS[i]) * weight(i * 7 + j * 13, 17, 16.0))
                    .sum();
                (weight(j * 3, 7, 16.0) + sum).max(0.0)
            })
            .collect();
        let powers: Vec<f64> = (0..4)
            .map(|k| {
                let logit: f64 = (0..16)
                    .map(|j| hidden[j] * weight(j * 11 + k * 5, 19, 4.0))
                    .sum();
                logit.exp()
            })
            .collect();
        let sum: f64 = powers.iter().sum();
        for (i, input) in INPUTS.iter().enumerate() {
            assert_eq!(f64::from(*input), weight(i * 5, 11, 16.0));
        }
        for (power, output) in powers.iter().zip(OUTPUTS) {
            assert!((power / sum - output).abs() < 1e-12);
        }
    }

    #[test]
    fn errors_are_the_largest_difference() {
        let mut values = OUTPUTS.map(|v| {
            #[allow(clippy::cast_possible_truncation, reason = "rounded on purpose")]
            let value = v as f32;
            value
        });
        assert!(error_of(&values) < 1e-7);
        values[2] += 0.25;
        assert!((error_of(&values) - 0.25).abs() < 1e-6);
        values[1] = f32::NAN;
        assert_eq!(error_of(&values), f64::MAX);
        assert_eq!(error_of(&[]), f64::MAX);
    }

    #[test]
    fn a_library_names_its_version() {
        assert_eq!(
            find_version(b"x\0VERS_\0VERS_x\0VERS_1.32.0\0y").as_deref(),
            Some("1.32.0")
        );
        for bytes in [&b""[..], b"\0VERS_1.3", b"VERS_1.3\0"] {
            assert_eq!(find_version(bytes), None);
        }
        let long = [&b"\0VERS_"[..], &[b'1'; 100], b"\0"].concat();
        assert_eq!(find_version(&long), None);
    }
}
