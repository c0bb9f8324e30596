//! What must hold between the keys of a board file. Each broken rule is a problem at the line of the key that breaks
//! it; a file is checked once it has all keys with the right types.

mod hardware;
mod layout;

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Board, ExecutionProvider,
    problem::hint,
    read::{MAX_PROBLEMS, keys_beside_tag, within},
    tree::{Node, Place, Step, TAGS, Value},
};

/// Longest name of a board, zone, cluster or rail, in bytes.
const NAME_MAX_BYTES: usize = 63;

/// All broken rules, each with its place.
pub(super) fn all(board: &Board, tree: &Node) -> Vec<(Place, String)> {
    let mut check = Check {
        tree,
        problems: Vec::new(),
    };
    check.top(board);
    check.hardware(board);
    check.layout(board);
    check.work(board);
    check.problems.truncate(MAX_PROBLEMS);
    check.problems
}

struct Check<'a> {
    tree: &'a Node,
    problems: Vec<(Place, String)>,
}

/// A path through the file: `steps!["fan", "curve", 2]`.
macro_rules! steps {
    ($($step:expr),+ $(,)?) => {
        &[$($crate::board::tree::Step::from($step)),+]
    };
}
use steps;

impl Check<'_> {
    /// A problem at the key or element that `path` leads to.
    fn wrong(&mut self, path: &[Step], problem: impl Into<String>) {
        self.problems
            .push((self.tree.follow(path).1, problem.into()));
    }

    fn rule(&mut self, holds: bool, path: &[Step], problem: impl FnOnce() -> String) {
        if !holds {
            self.wrong(path, problem());
        }
    }

    /// Names end in metric names and topics, so they are as narrow as topic levels.
    fn name(&mut self, name: &str, path: &[Step]) {
        let is_plain = name
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        let is_name = !name.is_empty() && name.len() <= NAME_MAX_BYTES && is_plain;
        self.rule(is_name && !name.starts_with('-'), path, || {
            format!(
                "{name:?} is no name: 1 to {NAME_MAX_BYTES} characters of a-z, 0-9 and '-', not starting with '-'"
            )
        });
    }

    /// No two elements of the array `key` have the same value of their key `by`.
    fn distinct<'n>(&mut self, key: &str, by: &str, values: impl Iterator<Item = &'n str>) {
        let mut seen = BTreeSet::new();
        for (index, value) in values.enumerate() {
            if !seen.insert(value) {
                let problem = format!("two of {key} have the {by} {value:?}");
                self.wrong(steps![key, index, by], problem);
            }
        }
    }

    /// A table whose kind has no other keys.
    fn only_tag(&mut self, path: &[Step]) {
        let Value::Table(table) = &self.tree.follow(path).0.value else {
            return;
        };
        let tag = TAGS
            .into_iter()
            .find_map(|tag| Some((tag, table.get(tag)?.node.as_str()?)))
            .unwrap_or_default();
        let within = within(self.tree, path);
        for (key, place) in keys_beside_tag(table) {
            let problem = format!(
                "unknown key {key:?}{within}; {} {:?} has no other key",
                tag.0, tag.1
            );
            self.problems.push((place, problem));
        }
    }

    fn top(&mut self, board: &Board) {
        self.name(&board.name, steps!["name"]);
        let is_line = !board.description.is_empty() && !board.description.contains('\n');
        self.rule(is_line, steps!["description"], || {
            "description is not one line of text".to_owned()
        });
        let mut seen = BTreeSet::new();
        for (index, name) in board.compatible.iter().enumerate() {
            // "manufacturer,model": Devicetree Specification 0.4, section 2.3.1.
            let is_compatible = name.split_once(',').is_some_and(|(maker, model)| {
                !maker.is_empty() && !model.is_empty() && name.bytes().all(|b| b.is_ascii_graphic())
            });
            self.rule(is_compatible, steps!["compatible", index], || {
                format!("compatible {name:?} is not of the form \"manufacturer,model\"")
            });
            self.rule(seen.insert(name), steps!["compatible", index], || {
                format!("compatible {name:?} is there twice")
            });
        }
        for (index, name) in board.unconfirmed.iter().enumerate() {
            self.rule(
                exists(self.tree, name) && name != "unconfirmed",
                steps!["unconfirmed", index],
                || format!("unconfirmed {name:?}: the board has no such key"),
            );
        }
    }

    fn work(&mut self, board: &Board) {
        let work = &board.accelerators;
        let providers = steps!["accelerators", "execution_providers"];
        self.rule(!work.execution_providers.is_empty(), providers, || {
            "execution_providers is empty; every board has \"cpu\"".to_owned()
        });
        let has_cpu = work.execution_providers.contains(&ExecutionProvider::Cpu);
        self.rule(
            has_cpu || work.execution_providers.is_empty(),
            providers,
            || "execution_providers lacks \"cpu\", which every board has".to_owned(),
        );
        let distinct: BTreeSet<_> = work.execution_providers.iter().map(|p| p.name()).collect();
        self.rule(
            distinct.len() == work.execution_providers.len(),
            providers,
            || "execution_providers names one provider twice".to_owned(),
        );
        let has_sim = work.execution_providers.contains(&ExecutionProvider::Sim);
        self.rule(has_sim == work.sim.is_some(), providers, || {
            "execution_providers names \"sim\" exactly where the key sim says what it does"
                .to_owned()
        });
        self.rule(!has_sim || board.compatible.is_empty(), providers, || {
            "execution_providers names \"sim\", which only a simulated board has".to_owned()
        });
        let clusters: Vec<&str> = board.cpu_clusters.iter().map(|c| c.name.as_str()).collect();
        for (index, name) in work.inference_clusters.iter().enumerate() {
            let place = steps!["accelerators", "inference_clusters", index];
            self.rule(clusters.contains(&name.as_str()), place, || {
                format!(
                    "inference_clusters names {name:?}, but there is no such cpu_cluster{}",
                    hint(name, &clusters)
                )
            });
        }
        if let Some(rendering) = &board.rendering {
            let place = steps!["rendering", "subgroup_sizes"];
            let are_sizes = rendering
                .subgroup_sizes
                .iter()
                .all(|size| size.is_power_of_two());
            self.rule(
                are_sizes && !rendering.subgroup_sizes.is_empty(),
                place,
                || "subgroup_sizes is empty or has a size that is no power of two".to_owned(),
            );
            // Vulkan 1.3, table "Required Limits": maxComputeWorkGroupInvocations is at least 128.
            let most = rendering.max_workgroup_invocations;
            self.rule(
                most >= 128,
                steps!["rendering", "max_workgroup_invocations"],
                || format!("max_workgroup_invocations is {most}; Vulkan promises at least 128"),
            );
            self.rule(
                rendering.max_memory_bytes > 0,
                steps!["rendering", "max_memory_bytes"],
                || "max_memory_bytes is 0".to_owned(),
            );
            self.rule(
                !rendering.vulkan_device.is_empty(),
                steps!["rendering", "vulkan_device"],
                || "vulkan_device is empty and would match every device".to_owned(),
            );
        }
    }
}

/// Whether the dotted path leads somewhere. An element of an array goes by its name, kind or method.
fn exists(tree: &Node, dotted: &str) -> bool {
    let mut here = tree;
    for part in dotted.split('.') {
        let next = match &here.value {
            Value::Table(table) => table.get(part).map(|entry| &entry.node),
            Value::Array(array) => array.iter().find(|node| is_called(node, part)),
            _ => None,
        };
        match next {
            Some(next) => here = next,
            None => return false,
        }
    }
    true
}

fn is_called(node: &Node, name: &str) -> bool {
    std::iter::once("name")
        .chain(TAGS)
        .any(|key| node.get(key).and_then(Node::as_str) == Some(name))
}

/// First index of each value, and those that come again.
fn repeated<T: Ord + Copy>(values: impl Iterator<Item = T>) -> Vec<(usize, usize, T)> {
    let mut first = BTreeMap::new();
    let mut again = Vec::new();
    for (index, value) in values.enumerate() {
        match first.get(&value) {
            Some(earlier) => again.push((*earlier, index, value)),
            None => {
                first.insert(value, index);
            }
        }
    }
    again
}
