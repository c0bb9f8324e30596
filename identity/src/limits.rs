//! What one holder may do less than its role: a sensor asks certain models, and so often. The registry keeps it beside
//! the key, so that a change counts at once; certificates know nothing of it.

use std::{fmt, num::NonZeroU32};

use edge_protocol::Id;

/// Models that a holder can be bound to at most.
pub const MODELS_MAX: usize = 32;

/// The limits of one holder. The default is what its role allows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// The models that it may ask; none for any.
    pub models: Vec<Id>,
    /// How often it may publish in a minute; none for as often as boxes answer.
    pub per_minute: Option<NonZeroU32>,
}

/// A text that is no list of models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("models are at most {MODELS_MAX} names (a-z, 0-9 and '-'), with ',' between them")]
pub struct ModelsError;

impl Limits {
    /// Whether it may ask this model.
    #[must_use]
    pub fn allow_model(&self, model: &str) -> bool {
        self.models.is_empty() || self.models.iter().any(|allowed| allowed.as_str() == model)
    }

    /// Nothing less than its role.
    #[must_use]
    pub fn are_none(&self) -> bool {
        self.models.is_empty() && self.per_minute.is_none()
    }

    /// The models in one text, as the registry keeps them.
    pub(crate) fn models_text(&self) -> Option<String> {
        let names: Vec<&str> = self.models.iter().map(Id::as_str).collect();
        (!names.is_empty()).then(|| names.join(","))
    }

    /// Reads [`Self::models_text`].
    ///
    /// # Errors
    /// [`ModelsError`].
    pub fn read_models(text: &str) -> Result<Vec<Id>, ModelsError> {
        let models: Vec<Id> = text
            .split(',')
            .map(|name| Id::new(name).map_err(|_| ModelsError))
            .collect::<Result<_, _>>()?;
        if models.len() > MODELS_MAX {
            return Err(ModelsError);
        }
        Ok(models)
    }
}

/// For people: `digits,squeezenet, 60 a minute`; empty without limits.
impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let models = self.models_text();
        f.write_str(models.as_deref().unwrap_or_default())?;
        if let Some(per_minute) = self.per_minute {
            let comma = if models.is_some() { ", " } else { "" };
            write!(f, "{comma}{per_minute} a minute")?;
        }
        Ok(())
    }
}

/// How much of a quota is left: a bucket that fills evenly over a minute and holds a minute's worth, so that a sensor
/// that was quiet may send some at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Thousandths of a publish.
    left: u64,
    at_ms: u64,
}

const MINUTE_MS: u64 = 60_000;

impl Quota {
    /// A full bucket at `now_ms`, of any clock that does not go back.
    #[must_use]
    pub fn full(per_minute: NonZeroU32, now_ms: u64) -> Self {
        Self {
            left: u64::from(per_minute.get()) * 1_000,
            at_ms: now_ms,
        }
    }

    /// Takes one publish out of it; false when there is none.
    pub fn take(&mut self, per_minute: NonZeroU32, now_ms: u64) -> bool {
        let most = u64::from(per_minute.get()) * 1_000;
        let passed_ms = now_ms.saturating_sub(self.at_ms).min(MINUTE_MS);
        // What does not make a whole thousandth counts next time.
        let filled = passed_ms * most / MINUTE_MS;
        if filled > 0 {
            self.left = most.min(self.left.saturating_add(filled));
            self.at_ms = now_ms;
        }
        match self.left.checked_sub(1_000) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limits(models: &[&str], per_minute: u32) -> Limits {
        Limits {
            models: models.iter().map(|name| Id::new(name).unwrap()).collect(),
            per_minute: NonZeroU32::new(per_minute),
        }
    }

    #[test]
    fn no_list_is_any_model_and_a_list_is_these() {
        assert!(Limits::default().allow_model("digits"));
        let one = limits(&["digits"], 0);
        assert!(one.allow_model("digits") && !one.allow_model("digits2"));
    }

    #[test]
    fn what_is_kept_is_read_and_shown() {
        let both = limits(&["digits", "squeezenet"], 60);
        let text = both.models_text().unwrap();
        assert_eq!(Limits::read_models(&text), Ok(both.models.clone()));
        assert_eq!(both.to_string(), "digits,squeezenet, 60 a minute");
        assert_eq!(limits(&[], 5).to_string(), "5 a minute");
        assert_eq!(Limits::default().to_string(), "");
        let many = vec!["a"; MODELS_MAX + 1].join(",");
        for wrong in ["", "a,,b", "A", "a b", &many] {
            assert_eq!(Limits::read_models(wrong), Err(ModelsError), "{wrong}");
        }
    }

    #[test]
    fn a_quota_is_a_minutes_worth_and_fills_again() {
        let two = NonZeroU32::new(2).unwrap();
        let mut quota = Quota::full(two, 0);
        let takes = [
            0, 0, 0, 29_999, 30_030, 30_031, 90_030, 90_030, 90_030, 600_000,
        ];
        let taken: Vec<bool> = takes.iter().map(|now| quota.take(two, *now)).collect();
        assert_eq!(
            taken,
            [
                true, true, false, false, true, false, true, true, false, true
            ]
        );
    }

    proptest! {
        /// However the publishes fall, no span of time sees more than its share and one bucket.
        #[test]
        fn nobody_gets_more_than_the_share(per_minute in 1_u32..2_000, pauses in proptest::collection::vec(0_u64..5_000, 1..200)) {
            let per_minute = NonZeroU32::new(per_minute).unwrap();
            let mut quota = Quota::full(per_minute, 0);
            let (mut now_ms, mut taken) = (0, 0);
            for pause in pauses {
                now_ms += pause;
                taken += u64::from(quota.take(per_minute, now_ms));
                let share = u64::from(per_minute.get()) * now_ms / MINUTE_MS;
                prop_assert!(taken <= share + u64::from(per_minute.get()));
            }
        }
    }
}
