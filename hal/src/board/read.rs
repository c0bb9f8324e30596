//! A tree of values read into the types of a board. Serde knows the types; this file makes each of its refusals a
//! problem with a place, and goes on after it, so that one run names all that is wrong.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize,
    de::{self, IntoDeserializer, Unexpected, value::StrDeserializer},
};

use super::{
    Board,
    problem::{hint, nearest},
    tree::{Entry, Node, Place, Step, TAGS, Value},
};

/// Problems of one board that are named at most.
pub(super) const MAX_PROBLEMS: usize = 20;

/// Reads the board, or says where the tree is none.
pub(super) fn board(root: &Node) -> Result<Board, Vec<(Place, String)>> {
    let error = match Board::deserialize(root) {
        Ok(board) => return Ok(board),
        Err(error) => error,
    };
    Err(all_problems(root, error))
}

/// Names the first problem, takes it out of the tree, and looks for the next.
fn all_problems(root: &Node, first: Refusal) -> Vec<(Place, String)> {
    let mut tree = root.clone();
    let mut problems = Vec::new();
    // Keys that were taken out: that they are missing now is no problem of the file's.
    let mut taken: Vec<(Place, String)> = Vec::new();
    let mut refusal = first;
    loop {
        let path: Vec<Step> = refusal.path.iter().rev().cloned().collect();
        let (holder, place) = tree.follow(&path);
        let remove = match &refusal.reason {
            Reason::UnknownKey { key, known } => {
                let key_path = [path.as_slice(), &[Step::from(key.as_str())]].concat();
                let place = tree.follow(&key_path).1;
                let within = within(&tree, &path);
                // Of the key that was meant, it need not be said that it is missing.
                if let Some(meant) = nearest(key, known) {
                    taken.push((holder.place, meant.to_owned()));
                }
                problems.push((
                    place,
                    format!("unknown key {key:?}{within}{}", hint(key, known)),
                ));
                key_path
            }
            Reason::MissingKey(key) => {
                let was_taken = taken
                    .iter()
                    .any(|(table, k)| *table == holder.place && k == key);
                if !was_taken {
                    let what = if path.is_empty() {
                        format!("key {key:?} is missing")
                    } else {
                        format!("key {key:?} is missing{}", within(&tree, &path))
                    };
                    problems.push((place, what));
                }
                path
            }
            Reason::Value { text, culprit } => {
                let path = culprit_path(holder, path, culprit.as_ref());
                let place = tree.follow(&path).1;
                let what = path.split_last().map_or_else(
                    || "the file".to_owned(),
                    |(last, parents)| match last {
                        Step::Key(key) => format!("{key}{}", within(&tree, parents)),
                        Step::Index(_) => described(&tree, &path),
                    },
                );
                problems.push((place, format!("{what} {text}")));
                path
            }
        };
        if let Some((Step::Key(key), parents)) = remove.split_last() {
            let table = tree.follow(parents).0;
            taken.push((table.place, key.clone()));
        }
        if problems.len() >= MAX_PROBLEMS || !tree.remove(&remove) {
            return problems;
        }
        match Board::deserialize(&tree) {
            Ok(_) => return problems,
            Err(next) => refusal = next,
        }
    }
}

/// Serde reads a table with a tag whole before it looks at the values, and then no longer knows which key one came
/// from: the value itself tells.
fn culprit_path(holder: &Node, path: Vec<Step>, culprit: Option<&Leaf>) -> Vec<Step> {
    let (Value::Table(table), Some(leaf)) = (&holder.value, culprit) else {
        return path;
    };
    let key = table
        .iter()
        .find(|(_, entry)| leaf.is(&entry.node))
        .map(|(key, _)| key.clone());
    path.into_iter().chain(key.map(Step::Key)).collect()
}

/// ` in thermal_zone "cpu"`; empty at the root.
pub(super) fn within(tree: &Node, path: &[Step]) -> String {
    if path.is_empty() {
        String::new()
    } else {
        format!(" in {}", described(tree, path))
    }
}

/// `source of thermal_zone "cpu"`.
fn described(tree: &Node, path: &[Step]) -> String {
    let mut parts: Vec<String> = Vec::new();
    for (depth, step) in path.iter().enumerate() {
        match step {
            Step::Key(key) => parts.push(key.clone()),
            Step::Index(index) => {
                let element = tree.follow(path.get(..=depth).unwrap_or(path)).0;
                let label = element.get("name").and_then(Node::as_str).map_or_else(
                    || format!("number {}", index + 1),
                    |name| format!("{name:?}"),
                );
                match parts.last_mut() {
                    Some(part) => *part = format!("{part} {label}"),
                    None => parts.push(label),
                }
            }
        }
    }
    parts.reverse();
    parts.join(" of ")
}

/// Why serde refuses a tree, and where: the path is built from its end on the way up.
#[derive(Debug)]
pub(super) struct Refusal {
    reason: Reason,
    path: Vec<Step>,
}

#[derive(Debug)]
enum Reason {
    UnknownKey {
        key: String,
        known: &'static [&'static str],
    },
    MissingKey(String),
    Value {
        text: String,
        culprit: Option<Leaf>,
    },
}

/// A value by which the key that holds it is found again.
#[derive(Debug)]
enum Leaf {
    String(String),
    Integer(i128),
    Boolean(bool),
    Float(f64),
    Array,
    Table,
}

impl Leaf {
    fn of(unexpected: &Unexpected<'_>) -> Option<Self> {
        Some(match unexpected {
            Unexpected::Str(text) => Self::String((*text).to_owned()),
            Unexpected::Signed(number) => Self::Integer((*number).into()),
            Unexpected::Unsigned(number) => Self::Integer((*number).into()),
            Unexpected::Bool(is) => Self::Boolean(*is),
            Unexpected::Float(number) => Self::Float(*number),
            Unexpected::Seq => Self::Array,
            Unexpected::Map => Self::Table,
            _ => return None,
        })
    }

    fn is(&self, node: &Node) -> bool {
        match (self, &node.value) {
            (Self::String(a), Value::String(b) | Value::Date(b)) => a == b,
            (Self::Integer(a), Value::Integer(b)) => *a == i128::from(*b),
            (Self::Boolean(a), Value::Boolean(b)) => a == b,
            (Self::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits(),
            (Self::Array, Value::Array(_)) | (Self::Table, Value::Table(_)) => true,
            _ => false,
        }
    }
}

impl Refusal {
    fn new(reason: Reason) -> Self {
        Self {
            reason,
            path: Vec::new(),
        }
    }

    fn below(mut self, step: impl Into<Step>) -> Self {
        self.path.push(step.into());
        self
    }

    fn value(text: String, culprit: Option<Leaf>) -> Self {
        Self::new(Reason::Value { text, culprit })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.reason)
    }
}

impl std::error::Error for Refusal {}

impl de::Error for Refusal {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self::value(format!("is wrong: {text}"), None)
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let text = format!("is {}, not {}", shown(&unexpected), wanted(expected));
        Self::value(text, Leaf::of(&unexpected))
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::invalid_type(unexpected, expected)
    }

    fn invalid_length(length: usize, expected: &dyn de::Expected) -> Self {
        let text = format!("has {length} elements, not {}", wanted(expected));
        Self::value(text, Some(Leaf::Array))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let text = format!(
            "is {variant:?}, which is unknown{}",
            hint(variant, expected)
        );
        Self::value(text, Some(Leaf::String(variant.to_owned())))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::new(Reason::UnknownKey {
            key: field.to_owned(),
            known: expected,
        })
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(Reason::MissingKey(field.to_owned()))
    }
}

fn shown(unexpected: &Unexpected<'_>) -> String {
    match unexpected {
        Unexpected::Str(text) => format!("{text:?}"),
        Unexpected::Signed(number) => number.to_string(),
        Unexpected::Unsigned(number) => number.to_string(),
        Unexpected::Float(number) => number.to_string(),
        Unexpected::Bool(is) => is.to_string(),
        Unexpected::Seq => "an array".to_owned(),
        Unexpected::Map => "a table".to_owned(),
        other => other.to_string(),
    }
}

/// What serde wants, in the words of TOML.
fn wanted(expected: &dyn de::Expected) -> String {
    let whole = |least: String, most: String| format!("a whole number from {least} to {most}");
    match expected.to_string().as_str() {
        "u8" => whole(u8::MIN.to_string(), u8::MAX.to_string()),
        "u16" => whole(u16::MIN.to_string(), u16::MAX.to_string()),
        "u32" => whole(u32::MIN.to_string(), u32::MAX.to_string()),
        "u64" => whole(u64::MIN.to_string(), i64::MAX.to_string()),
        "i32" => whole(i32::MIN.to_string(), i32::MAX.to_string()),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "an array".to_owned(),
        text if text.starts_with("struct ") || text.contains("tagged enum") => "a table".to_owned(),
        text if text.starts_with("an array of length") => {
            text.replace("an array of length", "an array of")
        }
        text if text.ends_with("identifier") || text.starts_with("enum ") => "a string".to_owned(),
        text => text.to_owned(),
    }
}

impl<'de> de::Deserializer<'de> for &'de Node {
    type Error = Refusal;

    fn deserialize_any<V: de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        match &self.value {
            Value::String(text) | Value::Date(text) => visitor.visit_str(text),
            Value::Integer(number) => visitor.visit_i64(*number),
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Boolean(is) => visitor.visit_bool(*is),
            Value::Array(array) => visitor.visit_seq(Elements {
                rest: array.iter().enumerate(),
            }),
            Value::Table(table) => visitor.visit_map(Keys {
                rest: table.iter(),
                value: None,
            }),
        }
    }

    /// Any value that is written is there.
    fn deserialize_option<V: de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        visitor.visit_some(self)
    }

    fn deserialize_enum<V: de::Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        match &self.value {
            Value::String(text) => {
                let text: StrDeserializer<'_, Refusal> = text.as_str().into_deserializer();
                text.deserialize_enum(name, variants, visitor)
            }
            _ => self.deserialize_any(visitor),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

struct Elements<'de> {
    rest: std::iter::Enumerate<std::slice::Iter<'de, Node>>,
}

impl<'de> de::SeqAccess<'de> for Elements<'de> {
    type Error = Refusal;

    fn next_element_seed<T: de::DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Refusal> {
        self.rest
            .next()
            .map(|(index, node)| seed.deserialize(node).map_err(|error| error.below(index)))
            .transpose()
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }
}

struct Keys<'de> {
    rest: std::collections::btree_map::Iter<'de, String, Entry>,
    value: Option<(&'de str, &'de Node)>,
}

impl<'de> de::MapAccess<'de> for Keys<'de> {
    type Error = Refusal;

    fn next_key_seed<K: de::DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Refusal> {
        let Some((key, entry)) = self.rest.next() else {
            return Ok(None);
        };
        self.value = Some((key, &entry.node));
        let key: StrDeserializer<'_, Refusal> = key.as_str().into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: de::DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, Refusal> {
        let Some((key, node)) = self.value.take() else {
            return Err(de::Error::custom("a value was asked for before its key"));
        };
        seed.deserialize(node).map_err(|error| error.below(key))
    }
}

/// Keys beside the tag in tables whose kind has none: serde lets them pass.
pub(super) fn keys_beside_tag(
    table: &BTreeMap<String, Entry>,
) -> impl Iterator<Item = (&str, Place)> {
    table
        .iter()
        .filter(|(key, _)| !TAGS.contains(&key.as_str()))
        .map(|(key, entry)| (key.as_str(), entry.place))
}
