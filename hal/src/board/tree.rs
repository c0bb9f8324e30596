//! A board file as a tree in which every key and value knows the file and the line that wrote it, and the merging of
//! one such tree over another. It knows nothing of boards.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

/// Keys whose value decides which other keys a table has.
pub(super) const TAGS: [&str; 3] = ["kind", "mechanism", "method"];

/// A line of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Number of the file among those read.
    pub(super) file: usize,
    /// Line, counted from 1.
    pub(super) line: usize,
}

/// A step from a table or array to what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Key of a table.
    Key(String),
    /// Element of an array.
    Index(usize),
}

impl From<&str> for Step {
    fn from(key: &str) -> Self {
        Self::Key(key.to_owned())
    }
}

impl From<usize> for Step {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

/// A value and where it is written.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// A value.
#[derive(Debug, Clone)]
pub(super) enum Value {
    String(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    /// Kept for its message only: no key of a board is a date.
    Date(String),
    Array(Vec<Node>),
    Table(BTreeMap<String, Entry>),
}

/// A key of a table, and its value.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// Where the key is written.
    pub(super) place: Place,
    pub(super) node: Node,
}

/// Turns byte offsets of one file into places.
struct Lines {
    file: usize,
    /// Offset of each line's first byte.
    starts: Vec<usize>,
}

impl Lines {
    fn new(file: usize, text: &str) -> Self {
        let after_breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Self {
            file,
            starts: std::iter::once(0)
                .chain(after_breaks.map(|(offset, _)| offset + 1))
                .collect(),
        }
    }

    fn place(&self, offset: usize) -> Place {
        Place {
            file: self.file,
            line: self.starts.partition_point(|start| *start <= offset),
        }
    }
}

/// What is no TOML, and where.
pub(super) struct SyntaxError {
    pub(super) place: Place,
    pub(super) text: String,
}

impl Node {
    /// The tree that `text` writes, as file number `file`.
    pub(super) fn parse(text: &str, file: usize) -> Result<Self, SyntaxError> {
        let lines = Lines::new(file, text);
        let table = DeTable::parse(text).map_err(|error| SyntaxError {
            place: lines.place(error.span().map_or(0, |span| span.start)),
            text: error.message().trim_end().replace('\n', ", "),
        })?;
        let offset = table.span().start;
        Ok(Self {
            place: lines.place(offset),
            value: Value::Table(entries(table.get_ref(), &lines)?),
        })
    }

    /// The table's value of a key.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        match &self.value {
            Value::Table(table) => table.get(key).map(|entry| &entry.node),
            _ => None,
        }
    }

    /// The text, if it is one.
    pub(super) fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// Takes a key out of a table.
    pub(super) fn take(&mut self, key: &str) -> Option<Entry> {
        match &mut self.value {
            Value::Table(table) => table.remove(key),
            _ => None,
        }
    }

    /// What `path` leads to, and where its last step is written; the deepest part of the path that exists.
    pub(super) fn follow(&self, path: &[Step]) -> (&Self, Place) {
        let mut here = (self, self.place);
        for step in path {
            let next = match (&here.0.value, step) {
                (Value::Table(table), Step::Key(key)) => {
                    table.get(key).map(|entry| (&entry.node, entry.place))
                }
                (Value::Array(array), Step::Index(index)) => {
                    array.get(*index).map(|node| (node, node.place))
                }
                _ => None,
            };
            match next {
                Some(next) => here = next,
                None => break,
            }
        }
        here
    }

    /// Takes out what `path` leads to; false for the root, or when there is nothing.
    pub(super) fn remove(&mut self, path: &[Step]) -> bool {
        let Some((last, parents)) = path.split_last() else {
            return false;
        };
        let mut here = self;
        for step in parents {
            let next = match (&mut here.value, step) {
                (Value::Table(table), Step::Key(key)) => {
                    table.get_mut(key).map(|entry| &mut entry.node)
                }
                (Value::Array(array), Step::Index(index)) => array.get_mut(*index),
                _ => None,
            };
            match next {
                Some(next) => here = next,
                None => return false,
            }
        }
        match (&mut here.value, last) {
            (Value::Table(table), Step::Key(key)) => table.remove(key).is_some(),
            (Value::Array(array), Step::Index(index)) if *index < array.len() => {
                array.remove(*index);
                true
            }
            _ => false,
        }
    }

    /// This tree with `over` laid on it.
    pub(super) fn merge(&mut self, over: Self) {
        match (&mut self.value, over.value) {
            (Value::Table(below), Value::Table(above)) if !is_other_kind(below, &above) => {
                self.place = over.place;
                for (key, entry) in above {
                    match below.get_mut(&key) {
                        Some(known) => {
                            known.place = entry.place;
                            known.node.merge(entry.node);
                        }
                        None => {
                            below.insert(key, entry);
                        }
                    }
                }
            }
            (Value::Array(below), Value::Array(above)) if are_named(below) && are_named(&above) => {
                self.place = over.place;
                merge_by_name(below, above);
            }
            (_, above) => {
                *self = Self {
                    place: over.place,
                    value: above,
                };
            }
        }
    }
}

/// Whether the table above is of another kind than the one below, so that their keys do not belong together.
fn is_other_kind(below: &BTreeMap<String, Entry>, above: &BTreeMap<String, Entry>) -> bool {
    let tag = |table: &BTreeMap<String, Entry>, key: &str| {
        Some(table.get(key)?.node.as_str()?.to_owned())
    };
    TAGS.iter()
        .any(|key| tag(above, key).is_some_and(|above| tag(below, key) != Some(above)))
}

/// Whether an array is one of tables that each have a name.
fn are_named(array: &[Node]) -> bool {
    !array.is_empty()
        && array
            .iter()
            .all(|node| node.get("name").and_then(Node::as_str).is_some())
}

/// Lays each table of `above` on the one of its name below, or puts it behind them. Two of one name in `above` stay
/// two, so that the check for duplicates sees them.
fn merge_by_name(below: &mut Vec<Node>, above: Vec<Node>) {
    let name = |node: &Node| node.get("name").and_then(Node::as_str).map(str::to_owned);
    let mut free: BTreeMap<String, usize> = BTreeMap::new();
    for (index, node) in below.iter().enumerate() {
        if let Some(name) = name(node) {
            free.entry(name).or_insert(index);
        }
    }
    for node in above {
        let known = name(&node).and_then(|name| free.remove(&name));
        match known.and_then(|index| below.get_mut(index)) {
            Some(known) => known.merge(node),
            None => below.push(node),
        }
    }
}

fn entries(table: &DeTable<'_>, lines: &Lines) -> Result<BTreeMap<String, Entry>, SyntaxError> {
    let mut entries = BTreeMap::new();
    for (key, value) in table {
        let entry = Entry {
            place: lines.place(key.span().start),
            node: node(value.get_ref(), value.span().start, lines)?,
        };
        entries.insert(key.get_ref().to_string(), entry);
    }
    Ok(entries)
}

fn node(value: &DeValue<'_>, offset: usize, lines: &Lines) -> Result<Node, SyntaxError> {
    let place = lines.place(offset);
    let value = match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map(Value::Integer)
            .map_err(|_| SyntaxError {
                place,
                text: format!("{number} is out of the range of whole numbers"),
            })?,
        DeValue::Float(number) => {
            Value::Float(number.as_str().parse().map_err(|_| SyntaxError {
                place,
                text: format!("{number} is no number"),
            })?)
        }
        DeValue::Boolean(is) => Value::Boolean(*is),
        DeValue::Datetime(date) => Value::Date(date.to_string()),
        DeValue::Array(array) => Value::Array(
            array
                .iter()
                .map(|item| node(item.get_ref(), item.span().start, lines))
                .collect::<Result<_, _>>()?,
        ),
        DeValue::Table(table) => Value::Table(entries(table, lines)?),
    };
    Ok(Node { place, value })
}
