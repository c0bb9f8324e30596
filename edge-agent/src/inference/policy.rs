//! Which versions of a model are loaded and which are given up. Pure.

use std::collections::BTreeSet;

use super::model_config::{VERSIONS_MAX, VersionPolicy};

/// Versions to serve.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Versions that may serve, the best first.
    pub(super) candidates: Vec<u64>,
    /// So many of them shall. One that cannot be loaded leaves its place to the next.
    pub(super) count: usize,
}

/// What to serve of the versions that lie in a model's folder.
pub(super) fn plan(policy: &VersionPolicy, available: &BTreeSet<u64>) -> Plan {
    let newest_first = available.iter().rev().copied();
    let all = usize::try_from(VERSIONS_MAX).unwrap_or(usize::MAX);
    let (candidates, count) = match policy {
        VersionPolicy::Latest(count) => (newest_first.collect(), *count),
        VersionPolicy::All => (newest_first.collect(), all),
        VersionPolicy::Given(given) => (newest_first.filter(|v| given.contains(v)).collect(), all),
    };
    Plan { candidates, count }
}

/// Versions to give up, of those that serve: what is not chosen goes when something is chosen, or when its files have
/// gone. So a new version that cannot be loaded leaves the old one serving.
pub(super) fn given_up(
    serving: &BTreeSet<u64>,
    chosen: &BTreeSet<u64>,
    available: &BTreeSet<u64>,
) -> Vec<u64> {
    let is_replaced = !chosen.is_empty();
    serving
        .difference(chosen)
        .filter(|version| is_replaced || !available.contains(version))
        .copied()
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(versions: &[u64]) -> BTreeSet<u64> {
        versions.iter().copied().collect()
    }

    #[test]
    fn policies_choose_the_newest_first() {
        let available = set(&[1, 2, 9, 10]);
        let of = |policy| plan(&policy, &available);
        let latest = of(VersionPolicy::Latest(2));
        assert_eq!((latest.candidates, latest.count), (vec![10, 9, 2, 1], 2));
        assert_eq!(of(VersionPolicy::All).candidates, [10, 9, 2, 1]);
        assert_eq!(of(VersionPolicy::Given(vec![1, 9, 11])).candidates, [9, 1]);
    }

    #[test]
    fn the_old_version_goes_only_when_another_serves_or_its_files_have_gone() {
        let (old, new, none) = (set(&[1]), set(&[2]), set(&[]));
        let both = set(&[1, 2]);
        assert_eq!(given_up(&old, &new, &both), [1]);
        assert_eq!(given_up(&old, &none, &both), [0; 0], "2 cannot be loaded");
        assert_eq!(given_up(&old, &none, &new), [1], "its files have gone");
        assert_eq!(given_up(&both, &both, &both), [0; 0]);
    }

    proptest! {
        #[test]
        fn something_goes_on_serving_while_its_files_are_there(
            serving in prop::collection::btree_set(0..6_u64, 1..4),
            chosen in prop::collection::btree_set(0..6_u64, 0..4),
            available in prop::collection::btree_set(0..6_u64, 0..6),
        ) {
            let chosen = &chosen & &available;
            let gone: BTreeSet<u64> = given_up(&serving, &chosen, &available).into_iter().collect();
            let left = &(&serving - &gone) | &chosen;
            prop_assert!(!left.is_empty() || (&serving & &available).is_empty());
            prop_assert!(gone.is_disjoint(&chosen));
        }
    }
}
