//! The last known metrics of a box, small in memory: sorted names, each name's text shared by all boxes.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use edge_protocol::sparkplug::Value;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Metrics kept of one box; a box of the agent in this repository has about 20 and 10 more per model.
pub const METRICS_PER_BOX_MAX: usize = 512;
/// Longest metric name that is kept.
pub const METRIC_NAME_MAX_BYTES: usize = 160;
/// Longest text value; a longer one is cut and ends in `…`.
pub const TEXT_MAX_BYTES: usize = 512;

/// Metric names, each text once. A name that no box uses any more is forgotten, so a box that invents names pays
/// with its own bound and not with everybody's.
#[derive(Debug, Default)]
pub struct Names {
    known: HashSet<Arc<str>>,
    sweep_at: usize,
}

impl Names {
    /// Fewer names than this are never swept.
    const SWEEP_MIN: usize = 4_096;

    /// The shared text of `name`.
    pub fn intern(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.known.get(name) {
            return Arc::clone(known);
        }
        if self.known.len() >= self.sweep_at.max(Self::SWEEP_MIN) {
            self.known.retain(|name| Arc::strong_count(name) > 1);
            self.sweep_at = self.known.len() * 2;
        }
        let name: Arc<str> = Arc::from(name);
        self.known.insert(Arc::clone(&name));
        name
    }
}

/// Metrics by name, sorted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MetricSet {
    entries: Vec<(Arc<str>, Value)>,
}

/// A metric that is not kept because the box has too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl MetricSet {
    /// The value of `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        let at = self.find(name).ok()?;
        self.entries.get(at).map(|(_, value)| value)
    }

    /// The text of `name`, if it is one.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.get(name) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// Sets a metric and returns its value before.
    ///
    /// # Errors
    /// [`Full`] for a new name when [`METRICS_PER_BOX_MAX`] are there.
    pub fn set(&mut self, name: Arc<str>, value: Value) -> Result<Option<Value>, Full> {
        match self.find(&name) {
            Ok(at) => Ok(self
                .entries
                .get_mut(at)
                .map(|(_, old)| std::mem::replace(old, value))),
            Err(_) if self.entries.len() >= METRICS_PER_BOX_MAX => Err(Full),
            Err(at) => {
                self.entries.insert(at, (name, value));
                Ok(None)
            }
        }
    }

    /// Forgets a metric.
    pub fn remove(&mut self, name: &str) {
        if let Ok(at) = self.find(name) {
            self.entries.remove(at);
        }
    }

    /// Gives back memory that is not needed.
    pub fn shrink(&mut self) {
        self.entries.shrink_to_fit();
    }

    /// How many metrics there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Shares the names' texts with the other boxes, after reading from the store.
    pub fn share_names(&mut self, names: &mut Names) {
        for (name, _) in &mut self.entries {
            *name = names.intern(name);
        }
    }

    /// Names and values in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Value)> {
        self.entries.iter().map(|(name, value)| (name, value))
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        self.entries
            .binary_search_by(|(known, _)| known.as_ref().cmp(name))
    }
}

/// Makes a value fit to be kept: no text longer than [`TEXT_MAX_BYTES`], no NaN or infinity (JSON has neither).
#[must_use]
pub(super) fn fit(value: Value) -> Option<Value> {
    match value {
        Value::Double(v) if !v.is_finite() => None,
        Value::Text(mut text) if text.len() > TEXT_MAX_BYTES => {
            let end = text.floor_char_boundary(TEXT_MAX_BYTES - '…'.len_utf8());
            text.truncate(end);
            text.push('…');
            text.shrink_to_fit();
            Some(Value::Text(text))
        }
        other => Some(other),
    }
}

impl Serialize for MetricSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(
            self.entries
                .iter()
                .map(|(name, value)| (name.as_ref(), value)),
        )
    }
}

impl<'de> Deserialize<'de> for MetricSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = MetricSet;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of metric names and values")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<MetricSet, A::Error> {
                let mut set = MetricSet::default();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if set.set(Arc::from(name), value).is_err() {
                        break;
                    }
                }
                set.shrink();
                Ok(set)
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_bounded_and_survives_json() {
        let mut names = Names::default();
        let mut set = MetricSet::default();
        for n in 0..METRICS_PER_BOX_MAX {
            set.set(names.intern(&format!("m/{n}")), Value::UInt(n as u64))
                .unwrap();
        }
        assert_eq!(
            set.set(names.intern("one/more"), Value::Bool(true)),
            Err(Full)
        );
        assert_eq!(
            set.set(names.intern("m/7"), Value::Double(5.0)),
            Ok(Some(Value::UInt(7)))
        );
        let json = serde_json::to_string(&set).unwrap();
        assert_eq!(serde_json::from_str::<MetricSet>(&json).unwrap(), set);
    }

    #[test]
    fn unused_names_are_forgotten() {
        let mut names = Names::default();
        let kept = names.intern("kept");
        for n in 0..3 * Names::SWEEP_MIN {
            names.intern(&format!("lost/{n}"));
        }
        assert!(names.known.len() <= Names::SWEEP_MIN + 1);
        assert!(Arc::ptr_eq(&kept, &names.intern("kept")));
    }

    #[test]
    fn values_are_made_to_fit() {
        assert_eq!(fit(Value::Double(f64::NAN)), None);
        assert_eq!(fit(Value::Double(f64::INFINITY)), None);
        let Some(Value::Text(text)) = fit(Value::Text("ä".repeat(TEXT_MAX_BYTES))) else {
            panic!("text stays text")
        };
        assert!(text.len() <= TEXT_MAX_BYTES && text.ends_with('…'));
    }
}
