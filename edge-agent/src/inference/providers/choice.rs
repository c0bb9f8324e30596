//! Which execution provider runs a model, from what came of trying each that the board has. Pure.

use edge_hal::board::ExecutionProvider;
use serde::{Deserialize, Serialize};

/// What came of trying a model on a provider, beside the CPU and on the same inputs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub(crate) enum Trial {
    /// The library does not have this provider.
    Absent,
    /// It gives no answer, with the reason.
    Failed {
        /// In words.
        why: String,
    },
    /// It answers.
    Ran {
        /// Median time of a run, in microseconds.
        run_us: f64,
        /// The same on the CPU, in turn with it.
        cpu_us: f64,
        /// Largest difference from the CPU's answers, relative to the largest value of an output; none where they
        /// differ in more than rounding.
        difference: Option<f64>,
        /// Largest difference that passes.
        tolerance: f64,
    },
}

/// What runs a model, and why the board's other providers do not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice {
    /// It runs the model.
    pub(crate) provider: ExecutionProvider,
    /// Those that do not, in the board's order, each with the reason.
    pub(crate) refused: Vec<(ExecutionProvider, String)>,
}

impl Choice {
    /// The CPU, with nothing to choose from.
    pub(crate) const CPU: Self = Self {
        provider: ExecutionProvider::Cpu,
        refused: Vec::new(),
    };
}

/// The fastest of the board's providers whose answers are right; of equal ones the board's first choice. The CPU, which
/// every board has, is what the others are measured by.
pub(crate) fn choose(
    chain: &[ExecutionProvider],
    mut trial: impl FnMut(ExecutionProvider) -> Trial,
) -> Choice {
    let judged: Vec<_> = chain
        .iter()
        .map(|provider| match provider {
            ExecutionProvider::Cpu => (*provider, Ok(1.0)),
            _ => (*provider, judge(trial(*provider))),
        })
        .collect();
    let right = judged
        .iter()
        .filter_map(|(provider, time)| Some((*provider, *time.as_ref().ok()?)));
    let fastest = right.reduce(|best, next| if next.1 < best.1 { next } else { best });
    let Some((provider, best)) = fastest else {
        return Choice::CPU;
    };
    let slower = |time: &f64| {
        let times = time / best;
        format!("slower: a run takes {times:.2} times as long as on {provider}")
    };
    let refused = judged.iter().filter(|(other, _)| *other != provider);
    let refused =
        refused.map(|(other, time)| (*other, time.as_ref().map_or_else(Clone::clone, slower)));
    Choice {
        provider,
        refused: refused.collect(),
    }
}

/// Time of a run as a part of the CPU's in the same trial, since trials at different times do not compare.
///
/// # Errors
/// Why it must not run the model.
fn judge(trial: Trial) -> Result<f64, String> {
    match trial {
        Trial::Absent => Err("ONNX Runtime's library does not have it".to_owned()),
        Trial::Failed { why } => Err(why),
        Trial::Ran {
            run_us,
            cpu_us,
            difference: Some(difference),
            tolerance,
        } if difference <= tolerance => Ok(run_us / cpu_us),
        Trial::Ran {
            difference: Some(difference),
            tolerance,
            ..
        } => Err(format!(
            "its answers differ from the CPU's by {difference:.1e} of the largest value, more than {tolerance:.0e}"
        )),
        Trial::Ran {
            difference: None, ..
        } => Err("its answers differ from the CPU's in more than rounding".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use ExecutionProvider::{Acl, Cpu, QnnGpu, Xnnpack};

    fn ran(run_us: f64, difference: f64) -> Trial {
        Trial::Ran {
            run_us,
            cpu_us: 100.0,
            difference: Some(difference),
            tolerance: 1e-3,
        }
    }

    #[test]
    fn the_fastest_that_is_right_runs_the_model_and_the_others_are_told_why_not() {
        let choice = choose(&[QnnGpu, Xnnpack, Acl, Cpu], |provider| match provider {
            QnnGpu => ran(10.0, 0.5),
            Xnnpack => ran(50.0, 1e-4),
            _ => Trial::Failed {
                why: "crashes (SIGSEGV)".into(),
            },
        });
        assert_eq!(choice.provider, Xnnpack);
        let refused: Vec<_> = choice
            .refused
            .iter()
            .map(|(p, why)| format!("{p}: {why}"))
            .collect();
        assert_eq!(
            refused,
            [
                "qnn-gpu: its answers differ from the CPU's by 5.0e-1 of the largest value, more than 1e-3",
                "acl: crashes (SIGSEGV)",
                "cpu: slower: a run takes 2.00 times as long as on xnnpack",
            ]
        );
    }

    #[test]
    fn the_cpu_runs_what_nothing_runs_better() {
        let choice = choose(&[QnnGpu, Xnnpack, Cpu], |provider| match provider {
            QnnGpu => Trial::Absent,
            _ => ran(250.0, 0.0),
        });
        assert_eq!(choice.provider, Cpu);
        assert_eq!(
            choice.refused,
            [
                (QnnGpu, "ONNX Runtime's library does not have it".to_owned()),
                (
                    Xnnpack,
                    "slower: a run takes 2.50 times as long as on cpu".to_owned()
                ),
            ]
        );
        assert_eq!(choose(&[Cpu], |_| Trial::Absent), Choice::CPU);
    }

    fn trial() -> impl Strategy<Value = Trial> {
        prop_oneof![
            Just(Trial::Absent),
            Just(Trial::Failed {
                why: "fails".into()
            }),
            (1.0..1e6, prop::option::of(0.0..2e-3)).prop_map(|(run_us, difference)| Trial::Ran {
                run_us,
                cpu_us: 1_000.0,
                difference,
                tolerance: 1e-3,
            }),
        ]
    }

    proptest! {
        #[test]
        fn whatever_is_tried_one_runs_and_each_other_has_a_reason(trials in prop::collection::vec(trial(), 3)) {
            let chain = [QnnGpu, Xnnpack, Acl, Cpu];
            let of = |provider| {
                let at = chain.iter().position(|other| *other == provider).unwrap();
                trials[at].clone()
            };
            let choice = choose(&chain, of);
            prop_assert_eq!(choice.refused.len(), 3);
            prop_assert!(choice.refused.iter().all(|(other, why)| *other != choice.provider && !why.is_empty()));
            if choice.provider != Cpu {
                let is_right = matches!(
                    of(choice.provider),
                    Trial::Ran { run_us, difference: Some(difference), .. } if difference <= 1e-3 && run_us <= 1_000.0
                );
                prop_assert!(is_right);
            }
        }
    }
}
