//! A simulated accelerator: runs the model on the CPU, and does to it what it was told to.

use std::{sync::Arc, thread, time::Duration};

use edge_hal::board::SimProvider;
use edge_protocol::oip::Tensor;
use nix::sys::signal::{Signal, raise};

use crate::inference::{
    graph::{Graph, Prepared},
    model::ModelError,
    worker::{Run, Stop},
};

/// What a slow one takes more for a run.
const SLOW: Duration = Duration::from_millis(20);

/// A model on a simulated accelerator.
pub(crate) struct SimModel<R> {
    model: R,
    does: SimProvider,
    /// Of a fast one.
    last: Option<Last>,
}

/// What was asked last and its answer: for each request its tensors.
struct Last {
    asked: Vec<Vec<Tensor>>,
    answers: Vec<Vec<Tensor>>,
}

impl<R> SimModel<R> {
    pub(crate) const fn new(model: R, does: SimProvider) -> Self {
        Self {
            model,
            does,
            last: None,
        }
    }
}

impl<R: Run> Run for SimModel<R> {
    fn graph(&self) -> Arc<Graph> {
        self.model.graph()
    }

    fn run(&mut self, requests: &[Prepared]) -> Result<Vec<Vec<Tensor>>, ModelError> {
        match self.does {
            SimProvider::Crash => {
                // Not taken while a debugger holds the process; then it answers as the CPU does.
                let _refused = raise(Signal::SIGSEGV);
                self.model.run(requests)
            }
            SimProvider::Differ => {
                let mut outputs = self.model.run(requests)?;
                outputs.iter_mut().flatten().for_each(spoil);
                Ok(outputs)
            }
            SimProvider::Slow => {
                thread::sleep(SLOW);
                self.model.run(requests)
            }
            SimProvider::Fast => self.recall(requests),
        }
    }

    fn stopper(&self) -> Arc<dyn Stop> {
        self.model.stopper()
    }
}

impl<R: Run> SimModel<R> {
    /// Answers what it was asked last without computing it again.
    fn recall(&mut self, requests: &[Prepared]) -> Result<Vec<Vec<Tensor>>, ModelError> {
        let inputs = requests.iter().map(|request| &request.inputs);
        if let Some(Last { asked, answers }) = &self.last
            && asked.iter().eq(inputs.clone())
        {
            return Ok(answers.clone());
        }
        let answers = self.model.run(requests)?;
        self.last = Some(Last {
            asked: inputs.cloned().collect(),
            answers: answers.clone(),
        });
        Ok(answers)
    }
}

/// Turns a bit of the last byte of an output, where a number has its exponent or highest digit.
fn spoil(tensor: &mut Tensor) {
    let mut data = tensor.data.to_vec();
    if let Some(last) = data.last_mut() {
        *last ^= 0x40;
    }
    tensor.data = data.into();
}
