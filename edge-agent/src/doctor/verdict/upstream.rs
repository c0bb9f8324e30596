//! Verdicts on what the region's indexer says of this box, beside what the box itself knows.

use std::collections::BTreeMap;

use edge_protocol::metric;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::finding::{Check, Finding};
use super::span_s;

/// Temperatures that differ more than this between box and region are not just of different seconds.
const TEMPERATURE_DIFFERENCE_MILLIKELVIN: i64 = 20_000;

/// What the indexer answered.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) enum Answer {
    /// No indexer is set.
    NotSet,
    /// Without region and name there is nothing to ask for.
    Nameless,
    /// It is not reached, or does not answer as an indexer does.
    Unreachable(String),
    /// It answered for its region; the box, unless it has never heard of it.
    Reached(RegionSeen, Option<BoxSeen>),
}

/// The region, by `GET /api/v1/region`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(in super::super) struct RegionSeen {
    pub(in super::super) region: String,
    /// Whether the indexer has its broker.
    pub(in super::super) broker_connected: bool,
    /// The indexer's clock.
    pub(in super::super) now_ms: u64,
}

/// This box, by `GET /api/v1/boxes/{id}`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(in super::super) struct BoxSeen {
    pub(in super::super) online: bool,
    pub(in super::super) board: Option<String>,
    pub(in super::super) agent_version: Option<String>,
    pub(in super::super) last_seen_ms: u64,
    #[serde(default)]
    pub(in super::super) warnings: Vec<String>,
    #[serde(default)]
    pub(in super::super) metrics: BTreeMap<String, Value>,
}

/// What the box knows of itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in super::super) struct Local {
    pub(in super::super) region: Option<String>,
    pub(in super::super) box_id: Option<String>,
    /// Whether the agent runs here; `None` where that is not known.
    pub(in super::super) agent_runs: Option<bool>,
    pub(in super::super) agent_version: String,
    pub(in super::super) board: Option<String>,
    /// Whether temperatures are made up, by each process its own.
    pub(in super::super) is_simulated: bool,
    /// Models of the repository with their versions.
    pub(in super::super) models: Vec<(String, u64)>,
    /// Zones with their temperatures, in thousandths of a degree Celsius.
    pub(in super::super) temperatures: Vec<(String, i32)>,
}

pub(in super::super) fn indexer(url: &str, answer: &Answer, local: &Local) -> Vec<Finding> {
    let (region, seen) = match answer {
        Answer::NotSet => {
            return vec![Finding::warning(
                Check::Indexer,
                "not asked, since none is set",
                "give --indexer http://HOST:PORT, or write indexer = \"...\" into the settings file, to see what the \
                 region says of this box",
            )];
        }
        Answer::Nameless => {
            return vec![Finding::warning(
                Check::Indexer,
                "not asked, since this box has no region or no name",
                "see settings above",
            )];
        }
        Answer::Unreachable(why) => {
            let finding = Finding::bad(
                Check::Indexer,
                format!("{url} is not reached: {why}"),
                "the box may work all the same: correct --indexer, or ask whether the region's indexer runs",
            );
            return vec![finding.detail("url", url)];
        }
        Answer::Reached(region, seen) => (region, seen),
    };
    let mut findings = vec![
        presence(region, seen.as_ref(), local)
            .detail("url", url)
            .detail("region", region.region.clone()),
    ];
    if let Some(seen) = seen {
        findings.extend(seen.warnings.iter().map(|warning| region_warning(warning)));
        // An offline box's metrics are old: they differ from the box's without meaning anything.
        if seen.online {
            findings.extend(differences(seen, local));
        }
    }
    findings
}

/// Whether the region sees the box, and whether it should.
fn presence(region: &RegionSeen, seen: Option<&BoxSeen>, local: &Local) -> Finding {
    let name = local.box_id.as_deref().unwrap_or_default();
    let runs = local.agent_runs;
    if local
        .region
        .as_ref()
        .is_some_and(|own| *own != region.region)
    {
        return Finding::bad(
            Check::Indexer,
            format!(
                "it is the indexer of region {}, and this box is set to region {}",
                region.region,
                local.region.as_deref().unwrap_or_default()
            ),
            "correct --region or --indexer: a box is seen only in its own region",
        );
    }
    let Some(seen) = seen else {
        let value = format!("{name} was never seen in region {}", region.region);
        return if runs == Some(false) {
            Finding::warning(Check::Indexer, value, "start the agent")
        } else if region.broker_connected {
            Finding::bad(
                Check::Indexer,
                value,
                "the agent and the indexer use different brokers, or the region uses another name for this box: \
                 compare --broker and --box-id with the region's",
            )
        } else {
            indexer_lost_its_broker(&value)
        };
    };
    let age_s = region.now_ms.saturating_sub(seen.last_seen_ms) / 1_000;
    let heard = format!("last heard {} ago", span_s(age_s));
    let finding = match (seen.online, runs) {
        (true, Some(false)) => Finding::warning(
            Check::Indexer,
            format!(
                "the region sees {name} online ({heard}), but no agent runs on this data folder"
            ),
            "if the agent has just ended, wait a minute; else another box uses this name, or the agent runs with \
             another --data",
        ),
        (true, _) => Finding::good(
            Check::Indexer,
            format!("the region sees {name} online ({heard})"),
        ),
        (false, Some(false)) => Finding::warning(
            Check::Indexer,
            format!("the region sees {name} offline ({heard}), and no agent runs here"),
            "start the agent",
        ),
        (false, _) if !region.broker_connected => {
            indexer_lost_its_broker(&format!("the region sees {name} offline ({heard})"))
        }
        (false, Some(true)) => Finding::bad(
            Check::Indexer,
            format!("the agent runs here, but the region sees {name} offline ({heard})"),
            "if broker above is good, the agent and the indexer use different brokers or regions, or another box \
             pushes this one out: read the agent's log (journalctl -u edge-agent), then restart it",
        ),
        (false, None) => Finding::bad(
            Check::Indexer,
            format!("the region sees {name} offline ({heard})"),
            "see agent and broker above",
        ),
    };
    let text = |name: &str| seen.metrics.get(name).cloned().unwrap_or(Value::Null);
    finding
        .detail("online", seen.online)
        .detail("last_seen_s", age_s)
        .detail("board", seen.board.clone())
        .detail("agent_version", seen.agent_version.clone())
        .detail(
            "models",
            local
                .models
                .iter()
                .map(|(model, _)| {
                    let state = text(&metric::of_model(model, metric::MODEL_STATE));
                    (model.clone(), state)
                })
                .collect::<serde_json::Map<_, _>>(),
        )
        .detail(
            "temperatures_millicelsius",
            local
                .temperatures
                .iter()
                .map(|(zone, here)| {
                    let there = text(&format!("{}{zone}", metric::TEMPERATURE_PREFIX));
                    (zone.clone(), json!({ "box": here, "region": there }))
                })
                .collect::<serde_json::Map<_, _>>(),
        )
}

fn indexer_lost_its_broker(value: &str) -> Finding {
    Finding::bad(
        Check::Indexer,
        format!("{value}, but the indexer itself has lost its broker"),
        "nothing is to do at this box: tell the region's operator",
    )
}

fn region_warning(warning: &str) -> Finding {
    let advice = match warning {
        "duplicate-box-id" => "another box uses this name: give one of them another --box-id",
        "clock-wrong" => "this box's clock differs from the region's: see clock above",
        _ => "ask the region's operator what it means",
    };
    Finding::warning(
        Check::Indexer,
        format!("the region warns of {warning}"),
        advice,
    )
    .part(warning)
}

/// Where the region's picture of a box that is online differs from the box.
fn differences(seen: &BoxSeen, local: &Local) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut differ = |part: String, region: &str, own: &str, advice: &str| {
        let value = format!("the region has {region}, the box {own}");
        findings.push(Finding::warning(Check::Indexer, value, advice).part(part));
    };
    if seen
        .agent_version
        .as_ref()
        .is_some_and(|version| *version != local.agent_version)
    {
        differ(
            "agent-version".into(),
            seen.agent_version.as_deref().unwrap_or_default(),
            &local.agent_version,
            "the agent that runs is not the one that is installed: restart it",
        );
    }
    if let (Some(there), Some(here)) = (&seen.board, &local.board)
        && there != here
    {
        differ(
            "board".into(),
            there,
            here,
            "give doctor the agent's --config; if it had it, restart the agent",
        );
    }
    for (model, version) in &local.models {
        let metric_of = |name| seen.metrics.get(&metric::of_model(model, name));
        let state = metric_of(metric::MODEL_STATE).and_then(Value::as_str);
        let part = format!("model-{model}");
        match state {
            Some("ready") => {
                let there = metric_of(metric::MODEL_VERSION).and_then(Value::as_u64);
                if there.is_some_and(|there| there != *version) {
                    differ(
                        part,
                        &format!("version {}", there.unwrap_or_default()),
                        &format!("version {version}"),
                        "the agent looks at the repository when it starts: restart it to serve the new version",
                    );
                }
            }
            Some("loading") => differ(
                part,
                "it loading",
                &format!("version {version}"),
                "wait until it has loaded",
            ),
            Some(failed) => differ(
                part,
                &format!("it {failed}"),
                &format!("version {version}"),
                "the agent does not serve it: see model above, correct it, restart the agent",
            ),
            None => differ(
                part,
                "no such model",
                &format!("version {version}"),
                "the agent looks at the repository when it starts: restart it to serve the new model",
            ),
        }
    }
    for (zone, here) in &local.temperatures {
        let there = seen
            .metrics
            .get(&format!("{}{zone}", metric::TEMPERATURE_PREFIX))
            .and_then(Value::as_i64);
        let is_far = |there: i64| {
            there.abs_diff(i64::from(*here)) > TEMPERATURE_DIFFERENCE_MILLIKELVIN.unsigned_abs()
        };
        if let Some(there) = there.filter(|there| !local.is_simulated && is_far(*there)) {
            differ(
                format!("temperature-{zone}"),
                &format!("{} °C", there / 1_000),
                &format!("{} °C", here / 1_000),
                "the region's value is old or of another box: check the name, and that telemetry flows",
            );
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::{super::super::finding::Verdict, *};
    use Verdict::{Bad, Good, Warning};

    fn local() -> Local {
        Local {
            region: Some("lab".into()),
            box_id: Some("box-1".into()),
            agent_runs: Some(true),
            agent_version: "0.1.0".into(),
            board: Some("aethir-edge".into()),
            is_simulated: false,
            models: vec![("digits".into(), 2)],
            temperatures: vec![("cpu".into(), 50_000)],
        }
    }

    fn region() -> RegionSeen {
        RegionSeen {
            region: "lab".into(),
            broker_connected: true,
            now_ms: 1_000_000,
        }
    }

    fn seen() -> BoxSeen {
        BoxSeen {
            online: true,
            board: Some("aethir-edge".into()),
            agent_version: Some("0.1.0".into()),
            last_seen_ms: 988_000,
            warnings: vec![],
            metrics: [
                ("inference/digits/state", json!("ready")),
                ("inference/digits/version", json!(2)),
                ("temperature_millicelsius/cpu", json!(52_000)),
            ]
            .map(|(name, value)| (name.to_owned(), value))
            .into(),
        }
    }

    fn ask(region: RegionSeen, seen: Option<BoxSeen>, local: &Local) -> Vec<Finding> {
        let found = indexer("http://i/", &Answer::Reached(region, seen), local);
        for finding in &found {
            assert_eq!(finding.advice.is_some(), finding.verdict != Good);
        }
        found
    }

    #[test]
    fn a_box_that_is_seen_as_it_is() {
        let found = ask(region(), Some(seen()), &local());
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].verdict, Good);
        assert_eq!(
            found[0].value,
            "the region sees box-1 online (last heard 12 s ago)"
        );
        assert_eq!(found[0].details["models"], json!({"digits": "ready"}));
    }

    /// Who runs and who is seen decide together; the region's own trouble comes first.
    #[test]
    fn presence_here_and_there() {
        for (runs, online, connected, verdict, says) in [
            (Some(true), Some(true), true, Good, "sees box-1 online"),
            (None, Some(true), true, Good, "sees box-1 online"),
            (
                Some(false),
                Some(true),
                true,
                Warning,
                "no agent runs on this data folder",
            ),
            (
                Some(true),
                Some(false),
                true,
                Bad,
                "the agent runs here, but the region sees box-1 offline",
            ),
            (
                Some(true),
                Some(false),
                false,
                Bad,
                "the indexer itself has lost its broker",
            ),
            (
                Some(false),
                Some(false),
                true,
                Warning,
                "no agent runs here",
            ),
            (
                Some(false),
                Some(false),
                false,
                Warning,
                "no agent runs here",
            ),
            (None, Some(false), true, Bad, "sees box-1 offline"),
            (Some(true), None, true, Bad, "was never seen in region lab"),
            (
                Some(true),
                None,
                false,
                Bad,
                "the indexer itself has lost its broker",
            ),
            (Some(false), None, true, Warning, "was never seen"),
        ] {
            let local = Local {
                agent_runs: runs,
                ..local()
            };
            let region = RegionSeen {
                broker_connected: connected,
                ..region()
            };
            let seen = online.map(|online| BoxSeen { online, ..seen() });
            let found = ask(region, seen, &local);
            assert_eq!(found[0].verdict, verdict, "{says}");
            assert!(found[0].value.contains(says), "{says}: {}", found[0].value);
        }
    }

    #[test]
    fn another_region() {
        let region = RegionSeen {
            region: "home".into(),
            ..region()
        };
        let found = ask(region, None, &local());
        assert_eq!(found[0].verdict, Bad);
        assert!(found[0].value.contains("region home"), "{}", found[0].value);
    }

    #[test]
    fn differences_have_a_line_each() {
        let mut there = BoxSeen {
            board: Some("host-sim".into()),
            agent_version: Some("0.0.9".into()),
            warnings: vec!["clock-wrong".into(), "duplicate-box-id".into()],
            ..seen()
        };
        there
            .metrics
            .insert("inference/digits/version".into(), json!(1));
        there
            .metrics
            .insert("inference/broken/state".into(), json!("failed: no graph"));
        there
            .metrics
            .insert("temperature_millicelsius/cpu".into(), json!(70_001));
        let mut here = local();
        here.models.push(("broken".into(), 1));
        here.models.push(("new".into(), 1));
        let names = |found: &[Finding]| -> Vec<String> {
            found.iter().map(|f| f.subject.to_string()).collect()
        };
        let found = ask(region(), Some(there.clone()), &here);
        assert_eq!(
            names(&found),
            [
                "indexer",
                "indexer/clock-wrong",
                "indexer/duplicate-box-id",
                "indexer/agent-version",
                "indexer/board",
                "indexer/model-digits",
                "indexer/model-broken",
                "indexer/model-new",
                "indexer/temperature-cpu",
            ]
        );
        assert_eq!(
            found[6].value,
            "the region has it failed: no graph, the box version 1"
        );
        assert!(found[1..].iter().all(|finding| finding.verdict == Warning));
        // What an offline box last said is old.
        there.online = false;
        assert_eq!(ask(region(), Some(there), &here).len(), 3);
        // Made-up temperatures differ between processes.
        let mut warm = seen();
        warm.metrics
            .insert("temperature_millicelsius/cpu".into(), json!(90_000));
        here = local();
        here.is_simulated = true;
        assert_eq!(ask(region(), Some(warm), &here).len(), 1);
    }

    #[test]
    fn hostile_metrics_are_taken_as_they_come() {
        let mut there = seen();
        there
            .metrics
            .insert("temperature_millicelsius/cpu".into(), json!(i64::MIN));
        there
            .metrics
            .insert("inference/digits/state".into(), json!(7));
        assert_eq!(ask(region(), Some(there), &local()).len(), 3);
    }

    #[test]
    fn no_answer() {
        for (answer, verdict) in [
            (Answer::NotSet, Warning),
            (Answer::Nameless, Warning),
            (Answer::Unreachable("refused".into()), Bad),
        ] {
            let found = indexer("http://i/", &answer, &local());
            assert_eq!((found.len(), found[0].verdict), (1, verdict));
        }
    }
}
