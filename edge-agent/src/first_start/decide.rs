//! Which provisioning the box takes: what lies on the partition, else the last good one. A function of values.

use edge_protocol::provisioning::Provisioning;

use super::area::{Files, Found};

/// What the box does with what it found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decision {
    /// What it goes by; none where there is nothing good.
    pub(super) accepted: Option<Accepted>,
    /// Files that must be kept before they are used.
    pub(super) keep: Option<Files>,
    /// What is shown to the owner.
    pub(super) state: State,
}

/// A provisioning that was found good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Accepted {
    pub(super) provisioning: Provisioning,
    pub(super) update_root: Option<Vec<u8>>,
}

/// What is shown to the owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// By the partition.
    Provisioned,
    /// By the last good file, since the partition's cannot be used.
    Kept(Vec<String>),
    /// Nobody provisioned this box yet.
    NotProvisioned(String),
    /// Somebody did, and it cannot be used.
    Bad(Vec<String>),
}

impl State {
    /// Its name for programs.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Provisioned => "provisioned",
            Self::Kept(_) => "kept",
            Self::NotProvisioned(_) => "not-provisioned",
            Self::Bad(_) => "bad",
        }
    }

    /// What is wrong, a line each.
    pub(super) fn problems(&self) -> &[String] {
        match self {
            Self::Provisioned => &[],
            Self::Kept(problems) | Self::Bad(problems) => problems,
            Self::NotProvisioned(why) => std::slice::from_ref(why),
        }
    }
}

/// Decides between what was `found` and what was `kept` (none where nothing is, an error where it is damaged). `check`
/// tells what files mean, or all that is wrong with them.
pub(super) fn decide(
    found: Found,
    kept: Result<Option<Files>, String>,
    check: &dyn Fn(&Files) -> Result<Provisioning, Vec<String>>,
) -> Decision {
    let problems = match found {
        Found::Files(files) => match check(&files) {
            Ok(provisioning) => {
                let is_kept = kept
                    .as_ref()
                    .is_ok_and(|kept| kept.as_ref() == Some(&files));
                return Decision {
                    accepted: Some(Accepted {
                        provisioning,
                        update_root: files.update_root.clone(),
                    }),
                    keep: (!is_kept).then_some(files),
                    state: State::Provisioned,
                };
            }
            Err(problems) => problems,
        },
        Found::Unreadable(why) => vec![why],
        Found::Nothing(why) if matches!(kept, Ok(None)) => {
            return Decision {
                accepted: None,
                keep: None,
                state: State::NotProvisioned(why),
            };
        }
        Found::Nothing(why) => vec![why],
    };
    let last_good = kept.and_then(|kept| {
        kept.map(|files| {
            let provisioning = check(&files).map_err(|problems| {
                format!(
                    "the last good file is not understood any more: {}",
                    problems.join("; ")
                )
            })?;
            Ok(Accepted {
                provisioning,
                update_root: files.update_root,
            })
        })
        .transpose()
    });
    match last_good {
        Ok(Some(accepted)) => Decision {
            accepted: Some(accepted),
            keep: None,
            state: State::Kept(problems),
        },
        Ok(None) => Decision {
            accepted: None,
            keep: None,
            state: State::Bad(problems),
        },
        Err(why) => Decision {
            accepted: None,
            keep: None,
            state: State::Bad([problems, vec![why]].concat()),
        },
    }
}

#[cfg(test)]
mod tests {
    use edge_protocol::provisioning;

    use super::*;

    fn files(text: &str) -> Files {
        Files {
            provisioning: text.as_bytes().to_vec(),
            update_root: None,
        }
    }

    fn good(region: &str) -> Files {
        files(&format!(
            "version = 1\nregion = \"{region}\"\nbroker = \"mqtt://a\"\n"
        ))
    }

    fn check(files: &Files) -> Result<Provisioning, Vec<String>> {
        provisioning::parse(&files.provisioning, &|_| false)
            .map_err(|problems| problems.0.iter().map(ToString::to_string).collect())
    }

    fn decided(found: Found, kept: Result<Option<Files>, String>) -> (Option<String>, bool, State) {
        let decision = decide(found, kept, &check);
        let region = decision
            .accepted
            .map(|accepted| accepted.provisioning.region.to_string());
        (region, decision.keep.is_some(), decision.state)
    }

    #[test]
    fn what_is_taken() {
        let region = |name: &str| Some(name.to_owned());
        let bad = || Found::Files(files("version = 1\nregion = \"x\"\n"));
        let problem =
            || vec!["broker is missing; write broker = \"mqtts://broker.example\"".to_owned()];
        let away = || Found::Nothing("away".to_owned());
        let why = || vec!["away".to_owned()];
        for (found, kept, expected) in [
            (
                Found::Files(good("new")),
                Ok(None),
                (region("new"), true, State::Provisioned),
            ),
            (
                Found::Files(good("new")),
                Ok(Some(good("old"))),
                (region("new"), true, State::Provisioned),
            ),
            (
                Found::Files(good("new")),
                Ok(Some(good("new"))),
                (region("new"), false, State::Provisioned),
            ),
            (
                Found::Files(good("new")),
                Err("torn".to_owned()),
                (region("new"), true, State::Provisioned),
            ),
            (
                bad(),
                Ok(Some(good("old"))),
                (region("old"), false, State::Kept(problem())),
            ),
            (bad(), Ok(None), (None, false, State::Bad(problem()))),
            (
                away(),
                Ok(Some(good("old"))),
                (region("old"), false, State::Kept(why())),
            ),
            (
                away(),
                Ok(None),
                (None, false, State::NotProvisioned("away".to_owned())),
            ),
            (
                away(),
                Err("torn".to_owned()),
                (
                    None,
                    false,
                    State::Bad([why(), vec!["torn".to_owned()]].concat()),
                ),
            ),
            (
                Found::Unreadable("away".to_owned()),
                Ok(Some(good("old"))),
                (region("old"), false, State::Kept(why())),
            ),
        ] {
            assert_eq!(
                decided(found.clone(), kept.clone()),
                expected,
                "{found:?} {kept:?}"
            );
        }
        let (accepted, _, state) = decided(away(), Ok(Some(files("?"))));
        assert_eq!(accepted, None);
        assert!(
            state.problems()[1].contains("not understood any more"),
            "{state:?}"
        );
    }
}
