//! The region's rules, on plain values: no broker, no clock.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking, in their helpers too"
)]

use edge_indexer::region::{Effect, EventKind, Limits, METRICS_PER_BOX_MAX, Region};
use edge_protocol::Id;
use edge_protocol::metric::{self, of_model};
use edge_protocol::sparkplug::{BD_SEQ, Metric, Payload, REBIRTH, Value};
use proptest::prelude::*;

const START_MS: u64 = 1_800_000_000_000;

struct World {
    region: Region,
    now_ms: u64,
    effects: Vec<Effect>,
}

fn id(text: &str) -> Id {
    Id::new(text).unwrap()
}

fn world() -> World {
    world_with(Limits::default())
}

fn world_with(limits: Limits) -> World {
    World {
        region: Region::new(id("home"), limits),
        now_ms: START_MS,
        effects: Vec::new(),
    }
}

impl World {
    fn raw(&mut self, topic: &str, bytes: &[u8]) -> Vec<Effect> {
        self.now_ms += 1;
        self.region
            .message(self.now_ms, topic, bytes, &mut self.effects);
        std::mem::take(&mut self.effects)
    }

    fn send(&mut self, kind: &str, name: &str, payload: &Payload) -> Vec<Effect> {
        self.raw(&format!("spBv1.0/home/{kind}/{name}"), &payload.to_bytes())
    }

    fn birth(&mut self, bd_seq: u64, instance: u64, more: &[(&str, Value)]) -> Vec<Effect> {
        let payload = birth(self.now_ms + 1, bd_seq, instance, more);
        self.send("NBIRTH", "b", &payload)
    }

    fn data(&mut self, seq: u64, metrics: &[(&str, Value)]) -> Vec<Effect> {
        let payload = payload(self.now_ms + 1, Some(seq), metrics);
        self.send("NDATA", "b", &payload)
    }

    fn death(&mut self, bd_seq: u64) -> Vec<Effect> {
        let payload = payload(self.now_ms + 1, None, &[(BD_SEQ, Value::UInt(bd_seq))]);
        self.send("NDEATH", "b", &payload)
    }

    fn online(&self) -> bool {
        self.region
            .get(&id("b"), self.now_ms)
            .is_some_and(|view| view.online)
    }

    fn value(&self, name: &str) -> Option<Value> {
        let b = id("b");
        self.region
            .get(&b, self.now_ms)
            .and_then(|view| view.metrics.get(name).cloned())
    }

    fn requests(&self) -> (u64, u64) {
        let totals = self.region.totals();
        (totals.requests, totals.requests_failed)
    }
}

fn payload(at_ms: u64, seq: Option<u64>, metrics: &[(&str, Value)]) -> Payload {
    Payload {
        timestamp: Some(at_ms),
        metrics: metrics
            .iter()
            .map(|(name, value)| Metric::new(*name, value.clone(), at_ms))
            .collect(),
        seq,
    }
}

fn birth(at_ms: u64, bd_seq: u64, instance: u64, more: &[(&str, Value)]) -> Payload {
    let mut metrics = vec![
        (BD_SEQ, Value::UInt(bd_seq)),
        (REBIRTH, Value::Bool(false)),
        (metric::BOARD, Value::Text("host-sim".into())),
        (metric::INSTANCE, Value::UInt(instance)),
    ];
    metrics.extend_from_slice(more);
    payload(at_ms, Some(0), &metrics)
}

fn kinds(effects: &[Effect]) -> Vec<EventKind> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Event(event) => Some(event.kind),
            _ => None,
        })
        .collect()
}

fn asks_rebirth(effects: &[Effect]) -> bool {
    effects.contains(&Effect::RequestRebirth(id("b")))
}

#[test]
fn a_life() {
    let mut world = world();
    let load = metric::CPU_LOAD_PERCENT;
    let effects = world.birth(1, 7, &[(load, Value::Double(1.5))]);
    assert_eq!(kinds(&effects), [EventKind::BoxOnline]);
    assert!(world.online());
    assert_eq!(
        world.value(metric::BOARD),
        Some(Value::Text("host-sim".into()))
    );
    assert_eq!(world.value(BD_SEQ), None, "bdSeq is no telemetry");

    let effects = world.data(1, &[(load, Value::Double(9.0))]);
    let Some(Effect::Store(sample)) = effects.first() else {
        panic!("data is kept: {effects:?}")
    };
    assert_eq!(
        (sample.at_ms, sample.box_ms),
        (world.now_ms, Some(world.now_ms))
    );
    assert_eq!(world.value(load), Some(Value::Double(9.0)));

    assert_eq!(kinds(&world.death(1)), [EventKind::BoxOffline]);
    assert!(!world.online());
    assert_eq!(world.value(load), Some(Value::Double(9.0)), "last known");
    let view = world.region.view();
    assert_eq!(
        (view.boxes_online, view.boxes_total, view.telemetry_messages),
        (0, 1, 3)
    );
}

#[test]
fn an_earlier_connections_death_is_ignored() {
    let mut world = world();
    world.birth(1, 7, &[]);
    world.birth(2, 7, &[]);
    assert!(kinds(&world.death(1)).is_empty());
    assert!(world.online());
    world.death(2);
    assert!(!world.online());
    assert!(kinds(&world.death(2)).is_empty(), "dead already");
    assert_eq!(world.region.view().boxes_online, 0);
}

#[test]
fn a_gap_asks_for_a_birth_once_in_a_while() {
    let mut world = world();
    world.birth(1, 7, &[]);
    for seq in 1..=255 {
        assert!(kinds(&world.data(seq, &[])).is_empty(), "no gap at {seq}");
    }
    assert!(kinds(&world.data(0, &[])).is_empty(), "the number wraps");
    let effects = world.data(2, &[]);
    assert!(asks_rebirth(&effects));
    assert_eq!(kinds(&effects), [EventKind::SequenceGap]);
    assert!(!asks_rebirth(&world.data(9, &[])), "asked a moment ago");
    world.now_ms += Limits::default().rebirth_every_ms;
    assert!(asks_rebirth(&world.data(3, &[])));
    assert!(world.online(), "a gap is no death");
    assert_eq!(world.region.view().rebirths_requested, 2);
}

#[test]
fn data_without_birth_asks_for_one() {
    let mut world = world();
    let effects = world.data(5, &[(metric::CPU_LOAD_PERCENT, Value::Double(1.0))]);
    assert!(asks_rebirth(&effects));
    assert_eq!(kinds(&effects), [EventKind::DataBeforeBirth]);
    assert!(!world.online());
    world.birth(1, 7, &[]);
    assert!(world.online());
}

#[test]
fn a_repeated_message_counts_once() {
    let mut world = world();
    world.birth(1, 7, &[]);
    let same = payload(START_MS, Some(1), &[("x", Value::UInt(1))]);
    assert!(!world.send("NDATA", "b", &same).is_empty());
    assert!(world.send("NDATA", "b", &same).is_empty());
    assert!(world.online());
}

#[test]
fn a_lost_broker_leaves_nobody_online() {
    let mut world = world();
    world.birth(1, 7, &[]);
    let mut effects = Vec::new();
    world.region.broker_lost(world.now_ms, "gone", &mut effects);
    assert_eq!(kinds(&effects), [EventKind::BrokerLost]);
    assert!(!world.online());
    assert!(asks_rebirth(&world.data(1, &[])));
    assert_eq!(kinds(&world.birth(1, 7, &[])), [EventKind::BoxOnline]);
    assert_eq!(world.region.view().boxes_online, 1);
}

#[test]
fn requests_are_counted_over_restarts_of_the_agent() {
    let mut world = world();
    let success = of_model("digits", metric::SUCCESS);
    let failure = of_model("digits", "failure/timeout");
    let counts = |ok, failed| {
        [
            (success.as_str(), Value::UInt(ok)),
            (failure.as_str(), Value::UInt(failed)),
        ]
    };
    world.birth(1, 7, &counts(10, 1));
    assert_eq!(world.requests(), (11, 1));
    world.data(1, &counts(15, 2));
    assert_eq!(world.requests(), (17, 2));
    world.birth(1, 7, &counts(15, 2)); // asked for: the same run
    assert_eq!(world.requests(), (17, 2));
    world.birth(2, 7, &counts(16, 2)); // reconnected: the same run
    assert_eq!(world.requests(), (18, 2));
    world.birth(3, 8, &counts(20, 0)); // another run, already ahead
    assert_eq!(world.requests(), (38, 2));
    world.data(1, &counts(u64::MAX, 0));
    world.data(2, &counts(0, u64::MAX));
    assert_eq!(world.requests(), (u64::MAX, u64::MAX), "no overflow");
}

#[test]
fn two_boxes_with_one_id_are_noticed_and_a_restart_is_not() {
    let mut world = world();
    world.birth(1, 7, &[]);
    world.death(1);
    assert_eq!(
        kinds(&world.birth(2, 8, &[])),
        [EventKind::BoxOnline],
        "a restart"
    );
    assert_eq!(
        kinds(&world.birth(3, 7, &[])),
        [EventKind::DuplicateBoxId],
        "7 still runs"
    );
    assert!(kinds(&world.birth(4, 8, &[])).is_empty(), "said once");
    let b = id("b");
    let warnings = |world: &World, at_ms| world.region.get(&b, at_ms).unwrap().warnings;
    assert_eq!(warnings(&world, world.now_ms), ["duplicate-box-id"]);
    assert!(warnings(&world, world.now_ms + 3_600_000).is_empty());
}

#[test]
fn a_wrong_clock_is_said_once() {
    let mut world = world();
    let at_ms = START_MS - 3_600_000;
    let effects = world.send("NBIRTH", "b", &birth(at_ms, 1, 7, &[]));
    assert_eq!(
        kinds(&effects),
        [EventKind::BoxOnline, EventKind::ClockWrong]
    );
    let data = payload(at_ms + 10, Some(1), &[("x", Value::UInt(1))]);
    let effects = world.send("NDATA", "b", &data);
    let [Effect::Store(sample)] = effects.as_slice() else {
        panic!("only the sample: {effects:?}")
    };
    assert_eq!(
        (sample.at_ms, sample.box_ms),
        (world.now_ms, Some(at_ms + 10))
    );
}

#[test]
fn late_values_go_to_the_history_only_and_to_their_time() {
    let mut world = world();
    world.birth(1, 7, &[("x", Value::UInt(1))]);
    let sent_ms = world.now_ms + 1 - 2_000; // the box's clock is 2 s behind
    let mut data = payload(sent_ms, Some(1), &[("x", Value::UInt(5))]);
    for metric in &mut data.metrics {
        metric.is_historical = Some(true);
        metric.timestamp = Some(sent_ms - 60_000);
    }
    let mut invented = data.metrics[0].clone();
    invented.name = Some("never/born".to_owned());
    data.metrics.push(invented);
    let effects = world.send("NDATA", "b", &data);
    let [Effect::Store(sample)] = effects.as_slice() else {
        panic!("one sample: {effects:?}")
    };
    assert_eq!(sample.values, [("x".into(), Value::UInt(5))]);
    assert_eq!(sample.at_ms, world.now_ms - 60_000);
    assert_eq!(sample.box_ms, Some(sent_ms - 60_000));
    assert_eq!(world.value("x"), Some(Value::UInt(1)));
}

#[test]
fn aliases_nulls_and_types_are_read_as_sparkplug_says() {
    let mut world = world();
    let at_ms = world.now_ms;
    let mut born = birth(
        at_ms,
        1,
        7,
        &[("temp", Value::Int(-5)), ("gone", Value::UInt(1))],
    );
    for (alias, metric) in born.metrics.iter_mut().enumerate() {
        metric.alias = Some(alias as u64);
    }
    world.send("NBIRTH", "b", &born);
    let mut data = payload(
        at_ms,
        Some(1),
        &[("temp", Value::Int(-7)), ("gone", Value::UInt(1))],
    );
    data.metrics[0].name = None;
    data.metrics[0].alias = Some(4);
    data.metrics[0].datatype = None;
    data.metrics[1].value = None;
    data.metrics[1].is_null = Some(true);
    world.send("NDATA", "b", &data);
    assert_eq!(world.value("temp"), Some(Value::Int(-7)));
    assert_eq!(world.value("gone"), None);
}

#[test]
fn what_is_no_telemetry_is_counted_and_told_once_in_a_while() {
    let mut world = world();
    let good = birth(START_MS, 1, 7, &[]).to_bytes();
    let no_sequence = payload(START_MS, None, &[]).to_bytes();
    let bad_sequence = payload(START_MS, Some(256), &[]).to_bytes();
    let cases: [(&str, &[u8]); 11] = [
        ("spBv1.0/home/NBIRTH/b", b"not protobuf"),
        ("spBv1.0/home/NBIRTH/b", &no_sequence),
        ("spBv1.0/home/NDATA/b", &bad_sequence),
        ("spBv1.0/home/NBIRTH/B", &good),
        ("spBv1.0/home/NBIRTH/", &good),
        ("spBv1.0/home/NBIRTH", &good),
        ("spBv1.0/home/DBIRTH/b/device", &good),
        ("spBv1.0/other/NBIRTH/b", &good),
        ("spBv1.0/home/NBIRTH/b/../c", &good),
        ("", &good),
        (
            "spBv1.0/home/NBIRTH/b",
            &vec![0; edge_protocol::limit::SPARKPLUG_MAX_BYTES + 1],
        ),
    ];
    let mut told = 0;
    for (topic, bytes) in cases {
        told += kinds(&world.raw(topic, bytes)).len();
    }
    let view = world.region.view();
    assert_eq!(view.hostile_messages, cases.len() as u64);
    assert_eq!((view.boxes_total, told), (0, 1));
    world.now_ms += 60_000;
    let effects = world.raw("spBv1.0/home/NBIRTH/b", b"x");
    assert!(matches!(&effects[..], [Effect::Event(event)] if event.detail.contains("and 10 more")));
}

#[test]
fn a_death_without_its_number_does_not_kill() {
    let mut world = world();
    world.birth(1, 7, &[]);
    let nameless = payload(START_MS, None, &[]);
    assert_eq!(
        kinds(&world.send("NDEATH", "b", &nameless)),
        [EventKind::HostilePayload]
    );
    assert!(world.online());
}

#[test]
fn boxes_and_metrics_are_bounded() {
    let mut world = world_with(Limits {
        boxes_max: 2,
        ..Limits::default()
    });
    for name in ["a", "b", "c", "d"] {
        world.send("NBIRTH", name, &birth(START_MS, 1, 7, &[]));
    }
    assert_eq!(world.region.view().boxes_total, 2);
    assert_eq!(world.region.view().hostile_messages, 2);

    let names: Vec<_> = (0..1_000).map(|n| format!("m/{n}")).collect();
    let long = "n".repeat(1_000);
    let mut many: Vec<_> = names
        .iter()
        .map(|name| (name.as_str(), Value::UInt(1)))
        .collect();
    many.push((&long, Value::UInt(1)));
    let effects = world.birth(2, 7, &many);
    assert_eq!(kinds(&effects), [EventKind::MetricsDropped]);
    let b = id("b");
    let view = world.region.get(&b, world.now_ms).unwrap();
    assert_eq!(view.metrics.len(), METRICS_PER_BOX_MAX);
}

#[test]
fn restored_boxes_are_offline_and_known() {
    let mut world = world();
    world.birth(
        1,
        7,
        &[(&of_model("digits", metric::SUCCESS), Value::UInt(5))],
    );
    let mut records = Vec::new();
    world.region.take_unsaved(world.now_ms, 10, &mut records);
    let [record] = <[_; 1]>::try_from(records).unwrap();

    let mut again = self::world();
    again.region.restore(record);
    assert!(!again.online());
    assert_eq!(
        again.value(metric::BOARD),
        Some(Value::Text("host-sim".into()))
    );
    assert_eq!(again.requests(), (5, 0));
    again.birth(
        1,
        7,
        &[(&of_model("digits", metric::SUCCESS), Value::UInt(6))],
    );
    assert_eq!(again.requests(), (6, 0), "the same run went on meanwhile");
}

#[test]
fn records_are_due_at_birth_and_death_and_else_after_a_while() {
    let mut world = world();
    let take = |world: &mut World| {
        let mut records = Vec::new();
        world.region.take_unsaved(world.now_ms, 10, &mut records);
        records.len()
    };
    world.birth(1, 7, &[]);
    assert_eq!((take(&mut world), take(&mut world)), (1, 0));
    world.data(1, &[]);
    assert_eq!(take(&mut world), 0);
    world.now_ms += Limits::default().save_every_ms;
    assert_eq!((take(&mut world), take(&mut world)), (1, 0));
    world.data(2, &[]);
    world.death(1);
    assert_eq!((take(&mut world), take(&mut world)), (1, 0));
}

#[derive(Debug, Clone)]
enum Step {
    Birth(u64, u64),
    Data(u64),
    Death(u64),
    BrokerLost,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..3_u64, 0..3_u64).prop_map(|(bd_seq, instance)| Step::Birth(bd_seq, instance)),
        (0..4_u64).prop_map(Step::Data),
        (0..3_u64).prop_map(Step::Death),
        Just(Step::BrokerLost),
    ]
}

proptest! {
    /// A box is online exactly when its last birth was followed neither by that birth's death nor by the loss of
    /// the broker; and the count agrees.
    #[test]
    fn online_is_what_the_last_birth_and_death_say(steps in prop::collection::vec(step(), 0..60)) {
        let mut world = world();
        let mut alive = None;
        for step in steps {
            match step {
                Step::Birth(bd_seq, instance) => {
                    world.birth(bd_seq, instance, &[]);
                    alive = Some(bd_seq);
                }
                Step::Data(seq) => drop(world.data(seq, &[("x", Value::UInt(seq))])),
                Step::Death(bd_seq) => {
                    world.death(bd_seq);
                    alive = alive.filter(|born| *born != bd_seq);
                }
                Step::BrokerLost => {
                    world.region.broker_lost(world.now_ms, "gone", &mut Vec::new());
                    alive = None;
                }
            }
            prop_assert_eq!(world.online(), alive.is_some());
            prop_assert_eq!(world.region.view().boxes_online, usize::from(alive.is_some()));
        }
    }

    /// Nothing that arrives is a panic, and what is kept stays bounded.
    #[test]
    fn no_bytes_are_a_panic(
        messages in prop::collection::vec(
            ("(spBv1.0/home/(NBIRTH|NDATA|NDEATH|NCMD)/[a-c])|\\PC{0,30}", prop::collection::vec(any::<u8>(), 0..300)),
            0..20,
        )
    ) {
        let mut world = world();
        for (topic, bytes) in messages {
            world.raw(&topic, &bytes);
        }
        prop_assert!(world.region.view().boxes_total <= 3);
    }

    /// Payloads that are protobuf but make no sense.
    #[test]
    fn no_payload_is_a_panic(
        messages in prop::collection::vec((0..3_usize, any_payload()), 0..20)
    ) {
        let mut world = world();
        for (kind, payload) in messages {
            world.send(["NBIRTH", "NDATA", "NDEATH"][kind], "b", &payload);
        }
        let b = id("b");
        let json = world.region.get(&b, world.now_ms).map(|view| serde_json::to_string(&view).unwrap());
        prop_assert!(json.is_none_or(|text| text.contains("\"id\":\"b\"")));
    }
}

fn any_payload() -> impl Strategy<Value = Payload> {
    let value = prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        any::<u64>().prop_map(Value::UInt),
        any::<i64>().prop_map(Value::Int),
        any::<f64>().prop_map(Value::Double),
        "\\PC{0,20}".prop_map(Value::Text),
    ];
    let name = prop_oneof![
        Just(BD_SEQ.to_owned()),
        Just(metric::INSTANCE.to_owned()),
        Just(of_model("m", metric::SUCCESS)),
        "\\PC{0,20}",
    ];
    let metric = (
        prop::option::of(name),
        value,
        prop::option::of(0..3_u64),
        prop::option::of(0..20_u32),
        prop::option::of(any::<u64>()),
        any::<bool>(),
    )
        .prop_map(|(name, value, alias, datatype, timestamp, late)| Metric {
            name,
            alias,
            datatype,
            timestamp,
            is_historical: late.then_some(true),
            ..Metric::new("", value, 0)
        });
    (
        prop::option::of(any::<u64>()),
        prop::option::of(prop_oneof![0..4_u64, any::<u64>()]),
        prop::collection::vec(metric, 0..8),
    )
        .prop_map(|(timestamp, seq, metrics)| Payload {
            timestamp,
            metrics,
            seq,
        })
}
