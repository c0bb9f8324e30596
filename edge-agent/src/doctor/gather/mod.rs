//! Facts for the verdicts: thin hands that read, ask and write, and decide nothing.

pub(super) mod broker;
pub(super) mod http;
pub(super) mod inference;
pub(super) mod machine;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use edge_hal::{Board, board::Choice};

use super::verdict::machine::SettingsFacts;
pub(super) use crate::chain::chain;
use crate::settings::Options;

/// What every check may need to know.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) options: Options,
    pub(super) settings: SettingsFacts,
    pub(super) board: Result<Board, String>,
    /// How the board was chosen, in words.
    pub(super) chosen_by: String,
    pub(super) data: PathBuf,
    pub(super) models: PathBuf,
    pub(super) onnxruntime: PathBuf,
    /// How long one thing that may hang is waited for.
    pub(super) limit: Duration,
}

impl Context {
    pub(super) fn new(options: Options, mut settings: SettingsFacts, limit: Duration) -> Self {
        let (board, chosen_by) = choose_board(options.board.as_deref());
        let text = |id: &Option<edge_protocol::Id>| id.as_ref().map(ToString::to_string);
        settings.region = text(&options.region);
        settings.box_id = text(&options.box_id);
        settings.has_broker = options.broker.is_some();
        Self {
            settings,
            board,
            chosen_by,
            data: options.data_dir(),
            models: options.models_dir(),
            onnxruntime: options.onnxruntime_library(),
            limit,
            options,
        }
    }
}

/// The board as the agent would choose it.
fn choose_board(asked: Option<&str>) -> (Result<Board, String>, String) {
    match Choice::new(asked, Path::new("/")) {
        Ok(choice) => (Ok(choice.board), choice.how),
        Err(error) => (Err(chain(&error)), String::new()),
    }
}
