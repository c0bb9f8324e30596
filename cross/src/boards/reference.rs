//! The list of all keys of a board file, made of the JSON Schema that the types give, and kept in `docs/boards.md`
//! between two markers.

use std::{fs, io, path::PathBuf};

use edge_hal::board::board_file_schema;
use serde_json::Value;

/// Before the generated part.
pub const BEGIN: &str = "<!-- keys: begin, written by `cargo xtask boards --write-docs` -->";
/// After it.
pub const END: &str = "<!-- keys: end -->";

/// Keys by which a table says its kind.
const TAGS: [&str; 3] = ["kind", "mechanism", "method"];

/// The page could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum ReferenceError {
    /// Reading or writing it.
    #[error("cannot read or write {}", path.display())]
    File {
        /// The page.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The place for the keys is gone.
    #[error("{} has no lines {BEGIN:?} and {END:?} in this order; put them back", path.display())]
    Markers {
        /// The page.
        path: PathBuf,
    },
}

/// The page as it is, and as it should be.
#[derive(Debug)]
pub struct Page {
    path: PathBuf,
    /// What the file has.
    pub current: String,
    /// What it would have after [`Page::write`].
    pub wanted: String,
}

impl Page {
    /// Reads `docs/boards.md` and makes its keys anew.
    ///
    /// # Errors
    /// [`ReferenceError`] when the file or its markers are not there.
    pub fn read() -> Result<Self, ReferenceError> {
        let path = crate::repository().join("docs/boards.md");
        let current = fs::read_to_string(&path).map_err(|source| ReferenceError::File {
            path: path.clone(),
            source,
        })?;
        let parts = current.split_once(BEGIN).and_then(|(before, rest)| {
            let (_, after) = rest.split_once(END)?;
            Some((before, after))
        });
        let Some((before, after)) = parts else {
            return Err(ReferenceError::Markers { path });
        };
        let wanted = format!("{before}{BEGIN}\n{}{END}{after}", keys());
        Ok(Self {
            path,
            current,
            wanted,
        })
    }

    /// Writes the page as it should be.
    ///
    /// # Errors
    /// [`ReferenceError::File`].
    pub fn write(&self) -> Result<(), ReferenceError> {
        fs::write(&self.path, &self.wanted).map_err(|source| ReferenceError::File {
            path: self.path.clone(),
            source,
        })
    }
}

/// All keys, as Markdown.
#[must_use]
pub fn keys() -> String {
    let schema = board_file_schema().to_value();
    let mut pages = Keys {
        definitions: schema.get("$defs").cloned().unwrap_or_default(),
        text: String::new(),
        waiting: Vec::new(),
    };
    pages.text += "\n### At the top\n\n";
    pages.table("", &schema);
    while !pages.waiting.is_empty() {
        let (path, schema, is_array) = pages.waiting.remove(0);
        let heading = if is_array {
            format!("[[{path}]]")
        } else {
            format!("[{path}]")
        };
        pages.text += &format!("\n### `{heading}`\n\n{}\n\n", described(&schema));
        pages.table(&path, &schema);
    }
    pages.text.push('\n');
    pages.text
}

struct Keys {
    definitions: Value,
    text: String,
    /// Sections still to write: path, schema, and whether there may be several.
    waiting: Vec<(String, Value, bool)>,
}

impl Keys {
    /// The keys of a table: those that must be there first.
    fn table(&mut self, path: &str, schema: &Value) {
        let mut below = Vec::new();
        if schema.get("properties").is_some() {
            self.rows(path, schema, &mut below);
        }
        for variant in list(schema, "oneOf") {
            let tag = TAGS.iter().find_map(|tag| {
                let kind = variant
                    .get("properties")?
                    .get(tag)?
                    .get("const")?
                    .as_str()?;
                Some(format!("`{tag} = \"{kind}\"`"))
            });
            let Some(tag) = tag else { continue };
            self.text += &format!("{tag}: {}\n\n", described(&variant));
            self.rows(path, &variant, &mut below);
            self.text.truncate(self.text.trim_end().len());
            self.text += "\n\n";
        }
        self.text.truncate(self.text.trim_end().len());
        self.text.push('\n');
        // Right behind their own section.
        self.waiting.splice(0..0, below);
    }

    fn rows(&mut self, path: &str, schema: &Value, below: &mut Vec<(String, Value, bool)>) {
        let required: Vec<String> = list(schema, "required")
            .iter()
            .filter_map(|key| key.as_str().map(str::to_owned))
            .collect();
        let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
            return;
        };
        let mut keys: Vec<(&String, &Value)> = properties
            .iter()
            .filter(|(_, property)| property.get("const").is_none())
            .collect();
        keys.sort_by_key(|(key, _)| !required.contains(key));
        if keys.is_empty() {
            return;
        }
        self.text += "| key | type | default | meaning |\n| --- | --- | --- | --- |\n";
        for (key, property) in keys {
            let default = match property.get("default") {
                _ if required.contains(key) => "must be there".to_owned(),
                Some(default) if !default.is_null() => format!("`{default}`"),
                _ => "none".to_owned(),
            };
            let full = if path.is_empty() {
                key.clone()
            } else {
                format!("{path}.{key}")
            };
            let (kind, meaning) = self.kind(property, &full, below);
            let meaning = format!("{} {meaning}", described(property));
            self.text += &format!("| `{key}` | {kind} | {default} | {} |\n", meaning.trim());
        }
    }

    /// A key's type in words, and what belongs to its meaning: the values it may have.
    fn kind(
        &self,
        property: &Value,
        path: &str,
        below: &mut Vec<(String, Value, bool)>,
    ) -> (String, String) {
        if let Some(schema) = self.definition(property) {
            if let Some(values) = values(&schema) {
                return ("text".to_owned(), values);
            }
            below.push((path.to_owned(), schema, false));
            return ("table".to_owned(), "See below.".to_owned());
        }
        if let Some(items) = property.get("items") {
            if let Some(schema) = self.definition(items) {
                if let Some(values) = values(&schema) {
                    return ("array of texts".to_owned(), values);
                }
                below.push((path.to_owned(), schema, true));
                return ("array of tables".to_owned(), "See below.".to_owned());
            }
            return (format!("array of {}s", scalar(items)), String::new());
        }
        (scalar(property).to_owned(), String::new())
    }

    /// The definition that a schema refers to, alone or beside null.
    fn definition(&self, schema: &Value) -> Option<Value> {
        let reference = |schema: &Value| schema.get("$ref")?.as_str().map(str::to_owned);
        let name =
            reference(schema).or_else(|| list(schema, "anyOf").iter().find_map(reference))?;
        self.definitions
            .get(name.strip_prefix("#/$defs/")?)
            .cloned()
    }
}

/// The texts that a key may be, each with its meaning; none if it is no choice of texts.
fn values(schema: &Value) -> Option<String> {
    let choices = list(schema, "oneOf");
    let values: Option<Vec<String>> = choices
        .iter()
        .map(|choice| {
            let value = choice.get("const")?.as_str()?;
            Some(format!("`{value}`: {}", described(choice)))
        })
        .collect();
    values
        .filter(|values| !values.is_empty())
        .map(|values| values.join(" "))
}

fn scalar(schema: &Value) -> &'static str {
    let kinds: Vec<String> = match schema.get("type") {
        Some(Value::String(kind)) => vec![kind.clone()],
        Some(Value::Array(kinds)) => kinds
            .iter()
            .filter_map(|kind| kind.as_str().map(str::to_owned))
            .collect(),
        _ => Vec::new(),
    };
    match kinds
        .iter()
        .find(|kind| *kind != "null")
        .map(String::as_str)
    {
        Some("integer") => "whole number",
        Some("boolean") => "true or false",
        _ => "text",
    }
}

fn list(schema: &Value, key: &str) -> Vec<Value> {
    schema
        .get(key)
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default()
}

/// The documentation, in one line, without links that only Rust knows.
fn described(schema: &Value) -> String {
    let text = schema
        .get("description")
        .and_then(Value::as_str)
        .unwrap_or_default();
    text.replace('\n', " ")
        .replace("[`crate::sim`]", "the simulation")
        .replace('|', "\\|")
}
