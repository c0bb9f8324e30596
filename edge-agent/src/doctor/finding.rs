//! What a check found: a verdict, a value, and what to do.

use std::{collections::BTreeMap, fmt};

use clap::ValueEnum;
use serde::{Serialize, Serializer};
use serde_json::Value;

/// A kind of check. Its name is what `--only` and `--skip` take and what the JSON says; it never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Check {
    /// Region, name and broker are set; the settings file is understood
    Settings,
    /// Which board, and how it was found
    Board,
    /// Parts that the board file names and the machine lacks
    Parts,
    /// The time of day
    Clock,
    /// The box's key
    Identity,
    /// Whether the agent runs
    Agent,
    /// What was done about stuck parts, resets of the box included
    Watchdog,
    /// Room on the storage
    Storage,
    /// Whether the data folder takes and keeps what is written
    Data,
    /// Each thermal zone
    Temperature,
    /// Main memory
    Memory,
    /// ONNX Runtime's library
    Onnxruntime,
    /// A computation on each of the board's execution providers
    Provider,
    /// Each model of the repository
    Model,
    /// The device that renders
    Vulkan,
    /// The region's broker
    Broker,
    /// What the region's indexer says of this box
    Indexer,
    /// Where updates come from
    UpdateServer,
}

/// Under which heading checks are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Group {
    Box,
    Hardware,
    Work,
    Region,
}

impl Group {
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Box => "Box",
            Self::Hardware => "Hardware",
            Self::Work => "Work",
            Self::Region => "Region",
        }
    }
}

impl Check {
    /// The name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Settings => "settings",
            Self::Board => "board",
            Self::Parts => "parts",
            Self::Clock => "clock",
            Self::Identity => "identity",
            Self::Agent => "agent",
            Self::Watchdog => "watchdog",
            Self::Storage => "storage",
            Self::Data => "data",
            Self::Temperature => "temperature",
            Self::Memory => "memory",
            Self::Onnxruntime => "onnxruntime",
            Self::Provider => "provider",
            Self::Model => "model",
            Self::Vulkan => "vulkan",
            Self::Broker => "broker",
            Self::Indexer => "indexer",
            Self::UpdateServer => "update-server",
        }
    }

    pub(super) const fn group(self) -> Group {
        match self {
            Self::Settings
            | Self::Board
            | Self::Parts
            | Self::Clock
            | Self::Identity
            | Self::Agent
            | Self::Watchdog => Group::Box,
            Self::Storage | Self::Data | Self::Temperature | Self::Memory => Group::Hardware,
            Self::Onnxruntime | Self::Provider | Self::Model | Self::Vulkan => Group::Work,
            Self::Broker | Self::Indexer | Self::UpdateServer => Group::Region,
        }
    }
}

/// How it looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// The box works, but somebody should look.
    Warning,
    /// The box does not do a part of its work.
    Bad,
}

impl Verdict {
    /// The word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Warning => "warning",
            Self::Bad => "bad",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// The check, followed by `/` and the part where it has several: `temperature/cpu`.
    #[serde(rename = "check", serialize_with = "as_text")]
    pub subject: Subject,
    /// How it looks.
    pub verdict: Verdict,
    /// What was found, for people.
    pub value: String,
    /// What to do; never with [`Verdict::Good`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    /// Numbers and texts behind the value, for programs.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<&'static str, Value>,
}

/// What a finding is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subject {
    /// The check.
    pub check: Check,
    /// One of its parts, such as a thermal zone.
    pub part: Option<String>,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.part {
            Some(part) => f.pad(&format!("{}/{part}", self.check.name())),
            None => f.pad(self.check.name()),
        }
    }
}

fn as_text<S: Serializer>(subject: &Subject, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(subject)
}

impl Finding {
    pub(super) fn good(check: Check, value: impl Into<String>) -> Self {
        Self {
            subject: Subject { check, part: None },
            verdict: Verdict::Good,
            value: value.into(),
            advice: None,
            details: BTreeMap::new(),
        }
    }

    pub(super) fn warning(
        check: Check,
        value: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self {
            verdict: Verdict::Warning,
            advice: Some(advice.into()),
            ..Self::good(check, value)
        }
    }

    pub(super) fn bad(check: Check, value: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Bad,
            ..Self::warning(check, value, advice)
        }
    }

    /// The same about one part of the check.
    pub(super) fn part(mut self, part: impl Into<String>) -> Self {
        self.subject.part = Some(part.into());
        self
    }

    pub(super) fn detail(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.details.insert(name, value.into());
        self
    }
}
