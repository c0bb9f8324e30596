//! ONNX Runtime's arena and spinning, each with and without, in processes of their own.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use serde::Serialize;

use super::super::{BenchError, session::Session};
use super::{Plan, say};
use crate::shell;

/// All of this part.
#[derive(Debug, Serialize)]
pub(super) struct Sessions(Vec<Row>);

#[derive(Debug, Serialize)]
struct Row {
    model: &'static str,
    threads: usize,
    arena: bool,
    spinning: bool,
    session: Session,
}

/// Measures.
pub(super) fn measure(plan: &Plan, all: &Path) -> Result<Sessions, BenchError> {
    let mut rows = Vec::new();
    for (model, threads, arena, spinning) in [
        ("squeezenet", 1, true, false),
        ("squeezenet", 1, false, false),
        ("squeezenet", 2, true, false),
        ("squeezenet", 2, true, true),
    ] {
        say(&format!(
            "{model} with {threads} threads, arena {arena}, spinning {spinning}"
        ));
        let mut command = Command::new(&plan.this_program);
        command.args(["bench", "session"]).arg(&plan.onnxruntime);
        command.arg(all.join(model).join("1/model.onnx"));
        command.args([threads.to_string(), arena.to_string(), spinning.to_string()]);
        let session = serde_json::from_str(&shell::output(&mut command)?)?;
        rows.push(Row {
            model,
            threads,
            arena,
            spinning,
            session,
        });
    }
    Ok(Sessions(rows))
}

impl Sessions {
    /// For people.
    pub(super) fn table(&self) -> String {
        let mut text = String::from(
            "ONNX Runtime's settings, a run each 20 ms, in a process of its own\n\
             model       threads  arena  spinning   run p50 us   processor us   memory MiB\n",
        );
        for row in &self.0 {
            let word = |is_on| if is_on { "on" } else { "off" };
            #[allow(clippy::cast_precision_loss, reason = "memory in KiB fits 2^52")]
            let mib = row.session.grown_kib as f64 / 1024.0;
            let _infallible = writeln!(
                text,
                "{:<11} {:>7}  {:>5}  {:>8}   {:>10.0}   {:>12.0}   {mib:>10.1}",
                row.model,
                row.threads,
                word(row.arena),
                word(row.spinning),
                row.session.run_us,
                row.session.processor_us
            );
        }
        text.push_str("The agent runs with the arena and without spinning.\n");
        text
    }
}
