//! The JSON Schema of board files, made of the types and their documentation.

use schemars::{JsonSchema, Schema, generate::SchemaSettings};

use super::Board;

/// What a file says of itself, beside what it says of the board.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is wanted")]
struct BoardFile {
    /// Board of the program, or in a file of one's own also a path relative to its folder, whose keys this file
    /// takes over where it does not state them itself.
    inherit: Option<String>,
    /// Whether the file is only there to be inherited.
    #[schemars(default)]
    r#abstract: bool,
    #[schemars(flatten)]
    board: Board,
}

/// The JSON Schema (draft 2020-12) of board files. It states keys and types; the rules between keys are in the
/// program alone.
#[must_use]
pub fn board_file_schema() -> Schema {
    SchemaSettings::draft2020_12()
        .into_generator()
        .into_root_schema_for::<BoardFile>()
}
