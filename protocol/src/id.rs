//! Names of regions, boxes, models and clients.

use core::{fmt, str::FromStr};

/// A name that can stand as one topic level: `[a-z0-9][a-z0-9-]{0,62}`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(heapless::String<63>);

/// Why a text is not an [`Id`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// No characters.
    #[error("a name needs at least one character")]
    Empty,
    /// More than 63 characters.
    #[error("a name has at most 63 characters")]
    TooLong,
    /// A character that a name may not have, or `-` at the start.
    #[error("a name has only a-z, 0-9 and '-' and does not start with '-', but this has {0:?}")]
    Character(char),
}

impl Id {
    /// Checks and copies `text`.
    ///
    /// # Errors
    /// [`IdError`] when `text` is not of the form `[a-z0-9][a-z0-9-]{0,62}`.
    pub fn new(text: &str) -> Result<Self, IdError> {
        check(text)?;
        let name = heapless::String::try_from(text).map_err(|_| IdError::TooLong)?;
        Ok(Self(name))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Checks that `text` is a name without copying it.
pub(crate) fn check(text: &str) -> Result<(), IdError> {
    let first = text.chars().next().ok_or(IdError::Empty)?;
    if first == '-' {
        return Err(IdError::Character(first));
    }
    if let Some(bad) = text
        .chars()
        .find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-'))
    {
        return Err(IdError::Character(bad));
    }
    if text.len() > 63 {
        return Err(IdError::TooLong);
    }
    Ok(())
}

impl FromStr for Id {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::new(text)
    }
}

impl AsRef<str> for Id {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(feature = "std")]
impl serde::Serialize for Id {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(feature = "std")]
impl<'de> serde::Deserialize<'de> for Id {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}
