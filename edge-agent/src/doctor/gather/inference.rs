//! Facts about what runs models and what renders, each from a process of its own.

use std::{ffi::OsString, path::Path, time::Duration};

use super::super::verdict::work::{RuntimeFacts, SelfTest, VulkanDevice};
use crate::child;

fn probe<const N: usize>(words: [&str; N]) -> Vec<OsString> {
    let words = words.into_iter().map(OsString::from);
    std::iter::once(OsString::from("probe"))
        .chain(words)
        .collect()
}

fn with_path(mut arguments: Vec<OsString>, flag: &str, path: &Path) -> Vec<OsString> {
    arguments.extend([flag.into(), path.into()]);
    arguments
}

pub(in super::super) fn runtime(library: &Path, limit: Duration) -> Result<RuntimeFacts, String> {
    let arguments = with_path(probe(["runtime"]), "--onnxruntime", library);
    child::ask(arguments, limit)
        .unwrap_or_else(|error| Err(format!("{}: {}", library.display(), super::chain(&error))))
}

pub(in super::super) fn provider(
    name: &str,
    library: &Path,
    limit: Duration,
) -> Result<SelfTest, String> {
    let arguments = with_path(probe(["provider", name]), "--onnxruntime", library);
    child::ask(arguments, limit).map_err(|error| super::chain(&error))
}

/// How long a model takes to load, in microseconds.
pub(in super::super) fn model(
    name: &str,
    models: &Path,
    library: &Path,
    limit: Duration,
) -> Result<u64, String> {
    let arguments = with_path(probe(["model", name]), "--onnxruntime", library);
    let arguments = with_path(arguments, "--models", models);
    child::ask(arguments, limit).unwrap_or_else(|error| Err(super::chain(&error)))
}

pub(in super::super) fn vulkan(limit: Duration) -> Result<Vec<VulkanDevice>, String> {
    child::ask(probe(["vulkan"]), limit).unwrap_or_else(|error| Err(super::chain(&error)))
}
