//! Who may do what: role × topic × action, written by hand from the design's table of topics, not taken from the
//! code. Each broker is held against it.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file is a crate and uses its part"
)]

use edge_identity::access::Action::{self, Publish, Subscribe};
use edge_identity::subject::Role::{self, Admin, App, Box, Checker, Indexer, Sensor};

/// A thing to try. In `topic`, `SELF` is the name of who tries it; `other` is somebody else's.
pub struct Case {
    pub action: Action,
    pub topic: &'static str,
    /// Who may.
    pub roles: &'static [Role],
}

const fn case(action: Action, topic: &'static str, roles: &'static [Role]) -> Case {
    Case {
        action,
        topic,
        roles,
    }
}

pub const CASES: &[Case] = &[
    // Inference.
    case(
        Publish,
        "edge/v1/home/any/infer/digits/SELF",
        &[Sensor, App],
    ),
    case(Publish, "edge/v1/home/any/infer/digits/other", &[]),
    case(
        Publish,
        "edge/v1/home/box/other/infer/digits/SELF",
        &[Sensor, App],
    ),
    case(Publish, "edge/v1/home/box/other/infer/digits/other", &[]),
    case(Publish, "edge/v1/other/any/infer/digits/SELF", &[]),
    case(
        Subscribe,
        "$share/boxes/edge/v1/home/any/infer/digits/+",
        &[Box],
    ),
    case(
        Subscribe,
        "$share/spies/edge/v1/home/any/infer/digits/+",
        &[],
    ),
    case(Subscribe, "edge/v1/home/any/infer/digits/+", &[]),
    case(Subscribe, "edge/v1/home/any/infer/digits/SELF", &[]),
    case(Subscribe, "edge/v1/home/box/SELF/infer/+/+", &[Box]),
    case(Subscribe, "edge/v1/home/box/other/infer/+/+", &[]),
    case(Subscribe, "edge/v1/home/box/+/infer/+/+", &[]),
    // Rendering and operations.
    case(Publish, "edge/v1/home/box/other/render/SELF", &[App]),
    case(Publish, "edge/v1/home/box/other/render/other", &[]),
    case(
        Publish,
        "edge/v1/home/box/other/op/model-metadata/SELF",
        &[App, Admin],
    ),
    case(
        Publish,
        "edge/v1/home/box/other/op/server-ready/SELF",
        &[App, Admin],
    ),
    case(
        Publish,
        "edge/v1/home/box/other/op/repository-model-load/SELF",
        &[Admin],
    ),
    case(Publish, "edge/v1/home/box/other/op/reboot/SELF", &[Admin]),
    case(Publish, "edge/v1/home/box/other/op/reboot/other", &[]),
    case(Subscribe, "edge/v1/home/box/SELF/op/+/+", &[Box]),
    case(Subscribe, "edge/v1/home/box/other/op/+/+", &[]),
    // Answers.
    case(Publish, "edge/v1/home/reply/other/r", &[Box, Indexer]),
    case(
        Subscribe,
        "edge/v1/home/reply/SELF/#",
        &[Sensor, App, Admin, Indexer],
    ),
    case(Subscribe, "edge/v1/home/reply/other/#", &[]),
    case(Subscribe, "edge/v1/home/reply/+/r", &[]),
    // Leases, proofs, checkers, wakes.
    case(Publish, "edge/v1/home/match/SELF", &[Sensor, App]),
    case(Publish, "edge/v1/home/match/other", &[]),
    case(Subscribe, "edge/v1/home/match/+", &[Indexer]),
    case(
        Publish,
        "edge/v1/home/box/other/proof/challenge",
        &[Indexer],
    ),
    case(Subscribe, "edge/v1/home/box/SELF/proof/+", &[Box]),
    case(Publish, "edge/v1/home/box/other/wake", &[Indexer]),
    case(Subscribe, "edge/v1/home/box/SELF/wake", &[Box]),
    case(Publish, "edge/v1/home/checker/other/draw", &[Indexer]),
    case(Subscribe, "edge/v1/home/checker/SELF/+", &[Checker]),
    case(Subscribe, "edge/v1/home/checker/other/+", &[]),
    case(Publish, "edge/v1/home/verdict/SELF/draw", &[Checker]),
    case(Publish, "edge/v1/home/verdict/other/draw", &[]),
    case(Subscribe, "edge/v1/home/verdict/+/+", &[Indexer]),
    // Telemetry.
    case(Publish, "spBv1.0/home/NBIRTH/SELF", &[Box]),
    case(Publish, "spBv1.0/home/NDATA/SELF", &[Box]),
    case(Publish, "spBv1.0/home/NDEATH/SELF", &[Box]),
    case(Publish, "spBv1.0/home/NDATA/other", &[]),
    case(Publish, "spBv1.0/home/NCMD/other", &[Indexer]),
    case(Subscribe, "spBv1.0/home/NCMD/SELF", &[Box, Admin, Indexer]),
    case(Subscribe, "spBv1.0/home/NCMD/other", &[Admin, Indexer]),
    case(Subscribe, "spBv1.0/home/#", &[Admin, Indexer]),
    case(Publish, "spBv1.0/STATE/SELF", &[Indexer]),
    case(Publish, "spBv1.0/STATE/other", &[]),
    case(Subscribe, "spBv1.0/STATE/SELF", &[Box, Admin, Indexer]),
    // Everything else.
    case(Subscribe, "#", &[]),
    case(Subscribe, "$SYS/#", &[]),
    case(Subscribe, "edge/#", &[]),
    case(Publish, "anything", &[]),
];

pub fn topic_for(case: &Case, name: &str) -> String {
    case.topic.replace("SELF", name)
}
