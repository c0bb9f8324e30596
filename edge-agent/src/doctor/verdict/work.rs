//! Verdicts on what does the work: ONNX Runtime, its execution providers, the models, the Vulkan device.

use edge_hal::board::RenderingConfig;
use serde::{Deserialize, Serialize};

use super::super::finding::{Check, Finding};

/// ONNX Runtime, as it says itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct RuntimeFacts {
    /// Version of the library; `None` where its file does not state it.
    pub(in super::super) version: Option<String>,
    /// How it was built.
    pub(in super::super) build: String,
}

pub(in super::super) fn runtime(facts: &Result<RuntimeFacts, String>) -> Finding {
    match facts {
        Ok(facts) => {
            let version = facts.version.as_deref().unwrap_or("of unknown version");
            Finding::good(Check::Onnxruntime, format!("ONNX Runtime {version}"))
                .detail("version", facts.version.clone())
                .detail("build", facts.build.clone())
        }
        Err(why) => Finding::bad(
            Check::Onnxruntime,
            why,
            "no model runs without it: take libonnxruntime.so out of PyPI's onnxruntime and name it with --onnxruntime",
        ),
    }
}

/// What came of the computation on an execution provider.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub(in super::super) enum SelfTest {
    /// The library has it, and it ran.
    Ran {
        /// Median time of a run, in microseconds.
        run_us: f64,
        /// Largest difference from the outputs that the graph must give.
        max_error: f64,
        /// Largest difference that is allowed.
        tolerance: f64,
    },
    /// The library was built without it.
    Absent,
    /// It was refused, or failed.
    Failed {
        /// What the runtime says.
        why: String,
    },
}

/// A provider's self-test in words, and whether models could run on it.
enum Tried {
    Works(Finding),
    Wrong(Finding),
    Unusable(String),
}

/// The board's execution providers, first choice first, each with its self-test or why that did not end.
pub(in super::super) fn providers(tests: &[(String, Result<SelfTest, String>)]) -> Vec<Finding> {
    let tried: Vec<(&str, Tried)> = tests
        .iter()
        .map(|(name, test)| (name.as_str(), try_provider(test)))
        .collect();
    let fallback = tried
        .iter()
        .find(|(_, tried)| matches!(tried, Tried::Works(_)))
        .map(|(name, _)| (*name).to_owned());
    tried
        .into_iter()
        .map(|(name, tried)| {
            let finding = match (tried, &fallback) {
                (Tried::Works(finding) | Tried::Wrong(finding), _) => finding,
                (Tried::Unusable(why), Some(other)) => Finding::warning(
                    Check::Provider,
                    why,
                    format!("models run on {other} instead; to use {name}, install a library that has it"),
                ),
                (Tried::Unusable(why), None) => Finding::bad(
                    Check::Provider,
                    why,
                    "no provider of this board works, so no model runs: install another ONNX Runtime",
                ),
            };
            finding.part(name)
        })
        .collect()
}

fn try_provider(test: &Result<SelfTest, String>) -> Tried {
    match test {
        // Also NaN, which is not less than anything.
        Ok(SelfTest::Ran {
            run_us,
            max_error,
            tolerance,
        }) => {
            let detail = |finding: Finding| {
                finding
                    .detail("run_us", *run_us)
                    .detail("max_error", *max_error)
                    .detail("tolerance", *tolerance)
            };
            if max_error <= tolerance {
                Tried::Works(detail(Finding::good(
                    Check::Provider,
                    format!(
                        "computes right: {run_us:.0} µs a run, off by {max_error:.0e} ({tolerance:.0e} allowed)"
                    ),
                )))
            } else {
                Tried::Wrong(detail(Finding::bad(
                    Check::Provider,
                    format!("computes wrong: off by {max_error:.0e} ({tolerance:.0e} allowed)"),
                    "do not use it: take it out of the board file's execution_providers, and tell its maker",
                )))
            }
        }
        Ok(SelfTest::Absent) => Tried::Unusable("the library does not have it".to_owned()),
        Ok(SelfTest::Failed { why }) => Tried::Unusable(format!("fails: {why}")),
        Err(why) => Tried::Unusable(why.clone()),
    }
}

/// A provider or model that could not be tried, since the runtime itself does not work.
pub(in super::super) fn not_tried(check: Check, part: &str) -> Finding {
    Finding::warning(
        check,
        "not tried, since ONNX Runtime does not work",
        "see onnxruntime above",
    )
    .part(part)
}

/// The repository as a whole, where it has no models to speak of.
pub(in super::super) fn repository(folder: &str, models: Result<usize, &str>) -> Option<Finding> {
    match models {
        Err(why) => Some(Finding::bad(
            Check::Model,
            why,
            "the agent serves no model: make the folder, or name another one with --models",
        )),
        Ok(0) => Some(Finding::warning(
            Check::Model,
            format!("no models in {folder}"),
            format!("put one there as {folder}/NAME/1/model.onnx and start the agent again"),
        )),
        Ok(_) => None,
    }
}

/// One model: its version and how many microseconds it took to load, or why it does not.
pub(in super::super) fn model(name: &str, loaded: &Result<(u64, u64), String>) -> Finding {
    match loaded {
        Ok((version, load_us)) => Finding::good(
            Check::Model,
            format!("version {version} loads in {} ms", load_us / 1_000),
        )
        .detail("version", *version)
        .detail("load_us", *load_us),
        Err(why) => Finding::bad(
            Check::Model,
            why,
            "this model is not served: correct its files, or take it out of the repository",
        ),
    }
    .part(name)
}

/// A Vulkan device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct VulkanDevice {
    pub(in super::super) name: String,
    /// Driver and its version.
    pub(in super::super) driver: Option<String>,
    /// Version of Vulkan that it speaks.
    pub(in super::super) api_version: String,
    /// Whether it is the processor in disguise.
    pub(in super::super) is_cpu: bool,
}

/// The devices that Vulkan lists, or why it lists none.
pub(in super::super) fn vulkan(
    devices: &Result<Vec<VulkanDevice>, String>,
    rendering: Option<&RenderingConfig>,
    is_simulated: bool,
) -> Finding {
    const INSTALL: &str = "install the driver (Debian: mesa-vulkan-drivers libvulkan1) and see that its user may open \
                           /dev/dri or /dev/kgsl-3d0";
    let wanted = rendering.map(|rendering| rendering.vulkan_device.as_str());
    let devices = match devices {
        Ok(devices) => devices.as_slice(),
        Err(why) if rendering.is_some() => {
            return Finding::bad(Check::Vulkan, why, INSTALL);
        }
        Err(_) => &[],
    };
    let named = |device: &&VulkanDevice| wanted.is_some_and(|wanted| device.name.contains(wanted));
    let device = devices
        .iter()
        .find(named)
        .or_else(|| devices.iter().find(|device| !device.is_cpu))
        .or_else(|| devices.first());
    let Some(device) = device else {
        return if rendering.is_some() {
            Finding::bad(Check::Vulkan, "no device", INSTALL)
        } else {
            Finding::good(Check::Vulkan, "no device, and this board does not render")
        };
    };
    let driver = device.driver.as_deref().unwrap_or("unnamed driver");
    let value = format!(
        "{} with {driver}, Vulkan {}",
        device.name, device.api_version
    );
    let finding = match wanted {
        Some(wanted) if !device.name.contains(wanted) => Finding::bad(
            Check::Vulkan,
            format!("no device called {wanted:?}; there is {value}"),
            INSTALL,
        ),
        _ if device.is_cpu && !is_simulated => Finding::warning(
            Check::Vulkan,
            value,
            format!("the processor pretends to be a GPU, which is slow; {INSTALL}"),
        ),
        _ => Finding::good(Check::Vulkan, value),
    };
    finding
        .detail("device", device.name.clone())
        .detail("driver", device.driver.clone())
        .detail("api_version", device.api_version.clone())
        .detail("cpu", device.is_cpu)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            super::finding::Verdict::{self, Bad, Good, Warning},
            verdicts,
        },
        *,
    };

    fn ran(max_error: f64) -> Result<SelfTest, String> {
        Ok(SelfTest::Ran {
            run_us: 7.4,
            max_error,
            tolerance: 1e-4,
        })
    }

    fn judged(tests: &[Result<SelfTest, String>]) -> Vec<Verdict> {
        let names = ["qnn-gpu", "xnnpack", "cpu"];
        let tests: Vec<_> = names
            .iter()
            .map(|name| (*name).to_owned())
            .zip(tests.iter().cloned())
            .collect();
        verdicts(providers(&tests))
    }

    #[test]
    fn a_provider_that_fails_is_a_warning_where_another_works() {
        let failed = || {
            Ok(SelfTest::Failed {
                why: "no back end".into(),
            })
        };
        let crashed = || Err("crashed (signal 11)".to_owned());
        let absent = || Ok(SelfTest::Absent);
        assert_eq!(
            judged(&[absent(), crashed(), ran(1e-7)]),
            [Warning, Warning, Good]
        );
        assert_eq!(
            judged(&[failed(), ran(1e-7), ran(0.0)]),
            [Warning, Good, Good]
        );
        assert_eq!(judged(&[absent(), failed(), crashed()]), [Bad, Bad, Bad]);
    }

    #[test]
    fn wrong_results_are_bad_even_beside_right_ones() {
        assert_eq!(
            judged(&[ran(2e-4), ran(f64::NAN), ran(1e-4)]),
            [Bad, Bad, Good]
        );
        // And they are no fallback.
        assert_eq!(judged(&[Ok(SelfTest::Absent), ran(f64::NAN)]), [Bad, Bad]);
    }

    #[test]
    fn a_provider_says_how_it_did() {
        let found = providers(&[("cpu".to_owned(), ran(3e-8))]);
        assert_eq!(
            found[0].value,
            "computes right: 7 µs a run, off by 3e-8 (1e-4 allowed)"
        );
        assert_eq!(found[0].subject.to_string(), "provider/cpu");
    }

    #[test]
    fn runtimes_and_models() {
        let facts = RuntimeFacts {
            version: Some("1.32.0".into()),
            build: String::new(),
        };
        let good = runtime(&Ok(facts));
        assert_eq!(good.value, "ONNX Runtime 1.32.0");
        assert_eq!(
            verdicts([good, runtime(&Err("missing".into()))]),
            [Good, Bad]
        );
        let found = [
            model("digits", &Ok((3, 12_345))),
            model("faces", &Err("no version".into())),
        ];
        assert_eq!(found[0].value, "version 3 loads in 12 ms");
        assert_eq!(verdicts(found), [Good, Bad]);
        assert_eq!(repository("/m", Ok(1)), None);
        let found = [
            repository("/m", Ok(0)),
            repository("/m", Err("cannot read")),
        ];
        assert_eq!(verdicts(found.into_iter().flatten()), [Warning, Bad]);
    }

    #[test]
    fn vulkan_devices() {
        let device = |name: &str, is_cpu| VulkanDevice {
            name: name.to_owned(),
            driver: Some("Mesa".to_owned()),
            api_version: "1.3.230".to_owned(),
            is_cpu,
        };
        let lavapipe = || device("llvmpipe (LLVM 15.0.6, 256 bits)", true);
        let adreno = || device("Adreno (TM) 650", false);
        let rendering = |vulkan_device: &str| RenderingConfig {
            vulkan_device: vulkan_device.to_owned(),
            subgroup_sizes: vec![64],
            max_workgroup_invocations: 1_024,
            max_memory_bytes: 1 << 30,
            ray_query: false,
        };
        let renders = rendering("Adreno");
        let none = || Err("no loader".to_owned());
        let both = Ok(vec![lavapipe(), adreno()]);
        let picked = vulkan(&both, Some(&renders), false);
        assert!(
            picked
                .value
                .starts_with("Adreno (TM) 650 with Mesa, Vulkan 1.3")
        );
        assert!(vulkan(&both, None, false).value.starts_with("Adreno"));
        let llvmpipe = rendering("llvmpipe");
        let found = [
            picked,
            vulkan(&both, Some(&llvmpipe), true),
            vulkan(&both, Some(&llvmpipe), false),
            vulkan(&Ok(vec![lavapipe()]), Some(&renders), false),
            vulkan(&Ok(vec![lavapipe()]), None, true),
            vulkan(&Ok(vec![lavapipe()]), None, false),
            vulkan(&none(), Some(&renders), false),
            vulkan(&none(), None, false),
            vulkan(&Ok(vec![]), Some(&renders), true),
            vulkan(&Ok(vec![]), None, true),
        ];
        assert_eq!(
            verdicts(found),
            [
                Good, Good, Warning, Bad, Good, Warning, Bad, Good, Bad, Good
            ]
        );
    }
}
