//! The committed digits model is as good as promised, and training it again gives as good a one.
#![allow(clippy::expect_used, reason = "tests fail by panicking")]

use std::path::Path;
use std::process::Command;

use cross::cache::Cache;
use cross::shell;
use serde_json::Value;

/// What the model must reach on images that it never saw.
const WANTED_ACCURACY: f64 = 0.97;

/// Runs `train_digits.py --json` in the Python environment that set-up made.
fn train_digits(arguments: &[&str]) -> Value {
    let python = Cache::from_env().expect("a cache folder").python();
    assert!(
        python.exists(),
        "{} is missing: run `cargo xtask setup`",
        python.display()
    );
    let script = cross::repository().join("cross/models/train_digits.py");
    let mut command = Command::new(python);
    command.arg(script).arg("--json").args(arguments);
    let printed = shell::output(&mut command).expect("train_digits.py");
    serde_json::from_str(&printed).expect("one JSON object")
}

fn accuracy(result: &Value) -> f64 {
    result["accuracy"].as_f64().expect("an accuracy")
}

#[test]
fn committed_model_reads_at_least_97_percent_of_unseen_digits() {
    let result = train_digits(&["evaluate"]);
    assert_eq!(result["images"], 360);
    assert!(accuracy(&result) >= WANTED_ACCURACY, "{result}");
    assert!(
        result["model_bytes"].as_u64().expect("a size") < 64 * 1024,
        "{result}"
    );
}

#[test]
fn a_retrained_model_is_as_good_and_sees_the_same_split() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let retrained = train_digits(&["train", "--out", folder.path().to_str().expect("UTF-8")]);
    let committed = train_digits(&["evaluate"]);
    let difference = (accuracy(&retrained) - accuracy(&committed)).abs();
    assert!(
        difference <= 0.005,
        "retrained {retrained}, committed {committed}"
    );

    let read = |path: &Path| std::fs::read_to_string(path).expect("held-out images");
    let split_again = read(&folder.path().join("digits-heldout.csv"));
    assert_eq!(
        split_again,
        read(&cross::heldout_images()),
        "the held-out images changed"
    );
}
