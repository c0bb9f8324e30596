//! What copies of a model cost in memory: the agent with one and with four copies of the wide model.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Serialize;

use super::super::BenchError;
use super::{Agent, Plan, say};
use crate::shell;

/// Copies beside the first.
const MORE: u64 = 3;

/// Resident memory of the agent, in KiB.
#[derive(Debug, Serialize)]
pub(super) struct Copies {
    weights_kib: u64,
    one_kib: u64,
    four_kib: u64,
}

/// Measures.
pub(super) fn measure(plan: &Plan, port: u16, folder: &Path) -> Result<Copies, BenchError> {
    say("memory of copies of a model");
    let models = folder.join("wide-models");
    let graph = models.join("wide/1/model.onnx");
    let script = crate::repository().join("cross/models/make_wide.py");
    shell::output(Command::new(&plan.python).arg(script).arg(&graph))?;
    let failed = |error| BenchError::System("prepare the wide model", error);
    let resident = |box_id, instances: u64| {
        let settings = format!("instances = {instances}\n");
        fs::write(models.join("wide/model.toml"), settings).map_err(failed)?;
        let agent = Agent::start_as(plan, box_id, port, &models, folder)?;
        agent.after("serving model", 1)?.resident_kib()
    };
    Ok(Copies {
        weights_kib: fs::metadata(&graph).map_err(failed)?.len() / 1024,
        one_kib: resident("one-copy", 1)?,
        four_kib: resident("four-copies", 1 + MORE)?,
    })
}

impl Copies {
    /// For people.
    pub(super) fn table(&self) -> String {
        #[allow(clippy::cast_precision_loss, reason = "memory in KiB fits 2^52")]
        let mib = |kib: u64| kib as f64 / 1024.0;
        let more = self.four_kib.saturating_sub(self.one_kib) / MORE;
        format!(
            "Memory of the agent with copies of a model of {:.0} MiB: {:.0} MiB with one, {:.0} MiB with four, {:.0} MiB for each more\n",
            mib(self.weights_kib),
            mib(self.one_kib),
            mib(self.four_kib),
            mib(more)
        )
    }
}
