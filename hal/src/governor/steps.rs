//! A share that changes seldom: it follows what is wanted in steps that are worth it, as often as it may.

/// Changes that may come one right after the other.
const MOST_AT_ONCE: f64 = 3.0;
/// Time in which one more becomes possible, in seconds: with those at once at most 5 in any minute, and 6 with a cut
/// that does not wait. After one, the next that does not wait comes only after a change that does.
const EACH_S: f64 = 20.0;
/// Smallest change while all are left.
const LEAST: f64 = 0.03;
/// Smallest change where only one is left.
const LEAST_OF_LAST: f64 = 0.10;

/// A share that follows another.
#[derive(Debug, Clone)]
pub(super) struct Steps {
    /// `None` before the first step.
    level: Option<f64>,
    /// Changes that are left; below 0 after cuts that did not wait.
    left: f64,
}

impl Default for Steps {
    fn default() -> Self {
        Self {
            level: None,
            left: MOST_AT_ONCE,
        }
    }
}

impl Steps {
    /// The share from now on. Cut, it is 0 at once.
    pub(super) fn step(&mut self, seconds: f64, wanted: f64, is_cut: bool) -> f64 {
        let wanted = if is_cut { 0.0 } else { wanted.clamp(0.0, 1.0) };
        self.left = (self.left + seconds / EACH_S).min(MOST_AT_ONCE);
        let Some(level) = self.level else {
            self.level = Some(wanted);
            return wanted;
        };
        let spare = (self.left - 1.0) / (MOST_AT_ONCE - 1.0);
        let least = LEAST_OF_LAST + (LEAST - LEAST_OF_LAST) * spare;
        let change = (wanted - level).abs();
        // The ends are worth a change of any size: nothing is limited, or nobody computes.
        let is_worth_it = change >= least || (change > 0.0 && (wanted <= 0.0 || wanted >= 1.0));
        if (spare >= 0.0 && is_worth_it) || (is_cut && level > 0.0) {
            self.left -= 1.0;
            self.level = Some(wanted);
            return wanted;
        }
        level
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Most changes in any minute.
    fn most_a_minute(shares: &[f64]) -> usize {
        let pairs = shares.iter().zip(shares.iter().skip(1)).enumerate();
        let changes: Vec<usize> = pairs
            .filter(|(_, (before, after))| before != after)
            .map(|(second, _)| second)
            .collect();
        let within = |from: usize| {
            let in_minute = |at: &&usize| (from..from + 60).contains(*at);
            changes.iter().filter(in_minute).count()
        };
        changes.iter().map(|from| within(*from)).max().unwrap_or(0)
    }

    proptest! {
        #[test]
        fn whatever_is_wanted_it_changes_at_most_five_times_a_minute(
            wanted in prop::collection::vec(-0.5..1.5_f64, 600),
        ) {
            let mut steps = Steps::default();
            let shares: Vec<f64> = wanted.iter().map(|w| steps.step(1.0, *w, false)).collect();
            prop_assert!(most_a_minute(&shares) <= 5);
            for share in shares {
                prop_assert!((0.0..=1.0).contains(&share));
            }
        }
    }

    #[test]
    fn a_cut_waits_for_nothing_and_its_end_does() {
        let mut steps = Steps::default();
        for wanted in [1.0, 0.5, 0.9, 0.4] {
            assert_eq!(steps.step(0.0, wanted, false), wanted);
        }
        assert_eq!(steps.step(1.0, 0.9, false), 0.4, "none is left");
        assert_eq!(steps.step(1.0, 0.9, true), 0.0);
        let mut waited = 0;
        while steps.step(1.0, 1.0, false) < 1.0 {
            waited += 1;
        }
        assert!((30..40).contains(&waited), "{waited}");
    }
}
