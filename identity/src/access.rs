//! The access list: what each role may publish and subscribe to on the broker. What no rule allows is refused.
//!
//! Pure data and one function. The embedded broker asks the function; [`crate::broker_files`] writes the same rules
//! for other brokers.

use edge_protocol::topic::SHARE_GROUP;

use crate::{
    limits::Limits,
    subject::{Role, Subject},
};

/// What a client wants to do with a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Publish to the topic, also as a will.
    Publish,
    /// Subscribe with the topic as filter.
    Subscribe,
}

/// Something that a role may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// What.
    pub action: Action,
    /// With which topics: a filter, in which `{region}` and `{self}` stand for the client's own, and `{model}` for a
    /// model that its limits allow.
    pub topics: &'static str,
    /// Only as a member of this shared subscription.
    pub share: Option<&'static str>,
}

const fn publish(topics: &'static str) -> Rule {
    Rule {
        action: Action::Publish,
        topics,
        share: None,
    }
}

const fn subscribe(topics: &'static str) -> Rule {
    Rule {
        action: Action::Subscribe,
        topics,
        share: None,
    }
}

const OWN_REPLIES: Rule = subscribe("edge/v1/{region}/reply/{self}/#");
const ASK_ANY: Rule = publish("edge/v1/{region}/any/infer/{model}/{self}");
const ASK_BOX: Rule = publish("edge/v1/{region}/box/+/infer/{model}/{self}");
const ASK_MATCH: Rule = publish("edge/v1/{region}/match/{self}");

const BOX: &[Rule] = &[
    // Its own requests, jobs, operations, proofs and wakes.
    subscribe("edge/v1/{region}/box/{self}/#"),
    // Requests to any box: only its share of them, so that no box reads what the others answer.
    Rule {
        action: Action::Subscribe,
        topics: "edge/v1/{region}/any/infer/+/+",
        share: Some(SHARE_GROUP),
    },
    publish("edge/v1/{region}/reply/+/#"),
    publish("spBv1.0/{region}/NBIRTH/{self}"),
    publish("spBv1.0/{region}/NDATA/{self}"),
    publish("spBv1.0/{region}/NDEATH/{self}"),
    subscribe("spBv1.0/{region}/NCMD/{self}"),
    subscribe("spBv1.0/STATE/+"),
];

const SENSOR: &[Rule] = &[ASK_ANY, ASK_BOX, ASK_MATCH, OWN_REPLIES];

const APP: &[Rule] = &[
    ASK_ANY,
    ASK_BOX,
    ASK_MATCH,
    OWN_REPLIES,
    publish("edge/v1/{region}/box/+/render/{self}"),
    publish("edge/v1/{region}/box/+/op/server-live/{self}"),
    publish("edge/v1/{region}/box/+/op/server-ready/{self}"),
    publish("edge/v1/{region}/box/+/op/server-metadata/{self}"),
    publish("edge/v1/{region}/box/+/op/model-ready/{self}"),
    publish("edge/v1/{region}/box/+/op/model-metadata/{self}"),
];

const CHECKER: &[Rule] = &[
    subscribe("edge/v1/{region}/checker/{self}/+"),
    publish("edge/v1/{region}/verdict/{self}/+"),
];

const ADMIN: &[Rule] = &[
    publish("edge/v1/{region}/box/+/op/+/{self}"),
    OWN_REPLIES,
    subscribe("spBv1.0/{region}/#"),
    subscribe("spBv1.0/STATE/+"),
];

const INDEXER: &[Rule] = &[
    subscribe("spBv1.0/{region}/#"),
    publish("spBv1.0/{region}/NCMD/+"),
    subscribe("spBv1.0/STATE/{self}"),
    publish("spBv1.0/STATE/{self}"),
    subscribe("edge/v1/{region}/match/+"),
    publish("edge/v1/{region}/reply/+/#"),
    OWN_REPLIES,
    publish("edge/v1/{region}/box/+/proof/+"),
    publish("edge/v1/{region}/box/+/wake"),
    publish("edge/v1/{region}/checker/+/+"),
    subscribe("edge/v1/{region}/verdict/+/+"),
];

/// What `role` may do.
#[must_use]
pub fn rules(role: Role) -> &'static [Rule] {
    match role {
        Role::Box => BOX,
        Role::Sensor => SENSOR,
        Role::App => APP,
        Role::Checker => CHECKER,
        Role::Admin => ADMIN,
        Role::Indexer => INDEXER,
        Role::Broker => &[],
    }
}

/// Whether `who` may do `action` with `topic` within its limits: a topic to publish to, or a filter to subscribe with.
#[must_use]
pub fn may(who: &Subject, limits: &Limits, action: Action, topic: &str) -> bool {
    let (share, topic) = match action {
        Action::Publish if topic.contains(['+', '#']) || topic.starts_with('$') => return false,
        Action::Publish => (None, topic),
        Action::Subscribe => match topic.strip_prefix("$share/") {
            None => (None, topic),
            Some(rest) => match rest.split_once('/') {
                Some((group, filter)) => (Some(group), filter),
                None => return false,
            },
        },
    };
    let allows = |rule: &&Rule| {
        rule.action == action
            && (rule.share.is_none() || rule.share == share)
            && covers(rule.topics, topic, who, limits)
    };
    rules(who.role).iter().any(|rule| allows(&rule))
}

/// Whether everything that `filter` can match is matched by `topics` too.
fn covers(topics: &str, filter: &str, who: &Subject, limits: &Limits) -> bool {
    let mut asked = filter.split('/');
    for level in topics.split('/') {
        let Some(asked) = asked.next() else {
            return false;
        };
        let is_allowed = match level {
            // Whatever lies below.
            "#" => return true,
            "+" => asked != "#",
            "{region}" => asked == who.region.as_str(),
            "{self}" => asked == who.name.as_str(),
            "{model}" => !matches!(asked, "+" | "#") && limits.allow_model(asked),
            literal => asked == literal,
        };
        if !is_allowed {
            return false;
        }
    }
    asked.next().is_none()
}

#[cfg(test)]
mod tests {
    use edge_protocol::Id;
    use proptest::prelude::*;

    use super::*;

    fn who(role: Role, name: &str) -> Subject {
        Subject {
            region: Id::new("lab").unwrap(),
            role,
            name: Id::new(name).unwrap(),
        }
    }

    #[test]
    fn a_filter_reaches_no_further_than_the_rule() {
        let box_1 = who(Role::Box, "box-1");
        for (filter, allowed) in [
            ("edge/v1/lab/box/box-1/infer/+/+", true),
            ("edge/v1/lab/box/box-1/#", true),
            ("edge/v1/lab/box/box-1", false),
            ("edge/v1/lab/box/+/infer/+/+", false),
            ("edge/v1/lab/box/#", false),
            ("edge/v1/lab/box/box-2/infer/+/+", false),
            ("edge/v1/+/box/box-1/infer/+/+", false),
            ("#", false),
            ("+/+/+/+/+", false),
            ("$share/boxes/edge/v1/lab/any/infer/digits/+", true),
            ("$share/boxes/edge/v1/lab/any/infer/+/+", true),
            ("$share/boxes/edge/v1/lab/any/infer/#", false),
            ("$share/mine/edge/v1/lab/any/infer/digits/+", false),
            ("edge/v1/lab/any/infer/digits/+", false),
            ("$share/boxes/edge/v1/lab/box/box-1/infer/+/+", true),
            ("$share/boxes/edge/v1/lab/box/box-2/infer/+/+", false),
            ("$share/boxes", false),
            ("$SYS/#", false),
            ("", false),
        ] {
            let may = may(&box_1, &Limits::default(), Action::Subscribe, filter);
            assert_eq!(may, allowed, "{filter}");
        }
    }

    #[test]
    fn a_topic_is_published_to_only_under_the_own_name() {
        let sensor = who(Role::Sensor, "cam-1");
        for (topic, allowed) in [
            ("edge/v1/lab/any/infer/digits/cam-1", true),
            ("edge/v1/lab/box/box-1/infer/digits/cam-1", true),
            ("edge/v1/lab/any/infer/digits/cam-2", false),
            ("edge/v1/lab/any/infer/+/cam-1", false),
            ("edge/v1/lab/any/infer/digits/cam-1/x", false),
            ("edge/v1/lab/reply/cam-1/r", false),
            ("spBv1.0/lab/NBIRTH/cam-1", false),
            ("edge/v1/other/any/infer/digits/cam-1", false),
            ("$share/boxes/edge/v1/lab/any/infer/digits/cam-1", false),
        ] {
            let may = may(&sensor, &Limits::default(), Action::Publish, topic);
            assert_eq!(may, allowed, "{topic}");
        }
    }

    #[test]
    fn limits_bind_a_sensor_to_its_models() {
        let limits = Limits {
            models: vec![Id::new("digits").unwrap()],
            per_minute: None,
        };
        for (topic, allowed) in [
            ("edge/v1/lab/any/infer/digits/cam-1", true),
            ("edge/v1/lab/any/infer/other/cam-1", false),
            ("edge/v1/lab/box/box-1/infer/other/cam-1", false),
            ("edge/v1/lab/any/infer//cam-1", false),
            ("edge/v1/lab/match/cam-1", true),
        ] {
            let who = who(Role::Sensor, "cam-1");
            let may = may(&who, &limits, Action::Publish, topic);
            assert_eq!(may, allowed, "{topic}");
        }
    }

    /// Matching as brokers do (MQTT 5, section 4.7).
    fn matches(filter: &[&str], topic: &[&str]) -> bool {
        match (filter.split_first(), topic.split_first()) {
            (Some((&"#", _)), _) | (None, None) => true,
            (Some((level, filter)), Some((name, topic))) => {
                (*level == "+" || level == name) && matches(filter, topic)
            }
            _ => false,
        }
    }

    proptest! {
        /// What a granted filter matches, the rule matches.
        #[test]
        fn nothing_is_read_that_a_rule_does_not_match(
            filter in proptest::collection::vec(
                proptest::sample::select(vec![
                    "edge", "v1", "lab", "box", "box-1", "box-2", "infer", "any", "+", "#", "spBv1.0", "NCMD", "reply",
                ]),
                1..7,
            ),
            topic in proptest::collection::vec(
                proptest::sample::select(vec![
                    "edge", "v1", "lab", "box", "box-1", "box-2", "infer", "any", "spBv1.0", "NCMD", "reply",
                ]),
                1..7,
            ),
        ) {
            let box_1 = who(Role::Box, "box-1");
            let may = may(&box_1, &Limits::default(), Action::Subscribe, &filter.join("/"));
            if may && matches(&filter, &topic) {
                let is_readable = rules(Role::Box).iter().any(|rule| {
                    let own: Vec<String> = rule
                        .topics
                        .split('/')
                        .map(|level| level.replace("{region}", "lab").replace("{self}", "box-1"))
                        .collect();
                    let own: Vec<&str> = own.iter().map(String::as_str).collect();
                    rule.action == Action::Subscribe && rule.share.is_none() && matches(&own, &topic)
                });
                prop_assert!(is_readable, "{filter:?} reads {topic:?}");
            }
        }
    }
}
