//! The rules, each a pure function: what is broken, and how to mend it.

use crate::house::{Crate, House};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;

/// A rule that a crate does not keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    /// The crate, or the file.
    pub(crate) who: String,
    /// What is wrong with it.
    pub(crate) what: String,
    /// What to do about it.
    pub(crate) mend: &'static str,
}

/// From what is used by all to what uses all. A crate may use those of lower layers only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Layer {
    /// Decisions as pure functions over values: needs nothing of this house.
    Decision,
    Provider,
    /// To infrastructure, and to the VMM.
    Interface,
    /// The protocol with the agent, and the agent.
    Guest,
    Adapter,
    /// What is counted, and when that is a reason for an alert: values and text.
    Metrics,
    Node,
    Core,
    Api,
    Binary,
    /// Servers for tests: a dev-dependency, of nobody's program.
    Testkit,
}

/// Every crate below `crates/`. An adapter is what lies below `adapters/`.
const LAYERS: [(&str, Layer); 17] = [
    ("flames-egress", Layer::Decision),
    ("flames-pool", Layer::Decision),
    ("flames-provider", Layer::Provider),
    ("flames-state", Layer::Interface),
    ("flames-blob", Layer::Interface),
    ("flames-cache", Layer::Interface),
    ("flames-queue", Layer::Interface),
    ("flames-ingress", Layer::Interface),
    ("flames-vmm", Layer::Interface),
    ("flames-guest", Layer::Guest),
    ("flames-metrics", Layer::Metrics),
    ("flames-node", Layer::Node),
    ("flames-core", Layer::Core),
    ("flames-api", Layer::Api),
    ("flames-e2b", Layer::Api),
    ("flames", Layer::Binary),
    ("flames-testkit", Layer::Testkit),
];

/// Clients of databases, queues, caches, object stores and the web: what an adapter is for.
const CLIENTS: [&str; 26] = [
    "async-nats",
    "aws-config",
    "aws-sdk-s3",
    "curl",
    "deadpool-postgres",
    "diesel",
    "etcd-client",
    "fred",
    "isahc",
    "kube",
    "lapin",
    "libsqlite3-sys",
    "memcache",
    "mongodb",
    "object_store",
    "opendal",
    "postgres",
    "rdkafka",
    "redis",
    "reqwest",
    "rusqlite",
    "rust-s3",
    "sqlx",
    "sqlx-core",
    "tokio-postgres",
    "ureq",
];

/// Crates that may have `unsafe`, item by item, each with its `// SAFETY:`.
const MAY_BE_UNSAFE: [&str; 2] = ["flames-node", "flames-guest"];

/// Lines beyond which a file is split.
const MAX_LINES: usize = 600;

/// Files that may be longer, each with its reason. It is best empty.
const LONG_FILES: [(&str, &str); 0] = [];

pub(crate) fn every_crate_has_a_layer(house: &House) -> Vec<Broken> {
    let homeless = house.crates.iter().filter(|one| layer_of(one).is_none());
    let mend = "add it to LAYERS in crates/flames/tests/architecture/rules.rs and to the code map of ARCHITECTURE.md, \
         or move it to adapters/";
    homeless.map(|one| one.broken("has no layer", mend)).collect()
}

pub(crate) fn imports_point_one_way(house: &House) -> Vec<Broken> {
    let mend = "move what is shared down, or hand it in as a value: \
         flames -> flames-api -> flames-core -> flames-node -> interfaces -> flames-provider";
    let against = house.in_house_edges().filter(|(user, used)| match (layer_of(user), layer_of(used)) {
        (Some(user), Some(used)) => used >= user,
        _ => false, // every_crate_has_a_layer tells
    });
    against.map(|(user, used)| user.broken(format!("depends on {}", used.name), mend)).collect()
}

pub(crate) fn an_adapter_depends_on_its_interface_alone(house: &House) -> Vec<Broken> {
    let mend = "an adapter has one in-house dependency, the interface that its name starts with; interfaces re-export \
         what an adapter needs of flames-provider; what only its tests need is a dev-dependency";
    let is_its_interface = |one: &Crate, used: &Crate| {
        layer_of(used) == Some(Layer::Interface) && one.name.starts_with(&format!("{}-", used.name))
    };
    let adapters = house.crates.iter().filter(|one| one.is_adapter());
    let broken = adapters.filter(|one| match house.in_house(one).as_slice() {
        [only] => !is_its_interface(one, only),
        _ => true,
    });
    broken.map(|one| one.broken(format!("depends on {}", names(&house.in_house(one))), mend)).collect()
}

pub(crate) fn an_interface_depends_on_flames_provider_alone(house: &House) -> Vec<Broken> {
    let mend = "an interface knows values and errors: what needs another interface belongs into flames-core";
    let interfaces = house.crates.iter().filter(|one| layer_of(one) == Some(Layer::Interface));
    let broken = interfaces.filter(|one| names(&house.in_house(one)) != "flames-provider");
    broken.map(|one| one.broken(format!("depends on {}", names(&house.in_house(one))), mend)).collect()
}

pub(crate) fn only_the_binary_names_adapters(house: &House) -> Vec<Broken> {
    let mend = "take the interface's trait object; crates/flames/src/providers.rs chooses the adapter";
    let named = house.in_house_edges().filter(|(_, used)| used.is_adapter());
    let broken = named.filter(|(user, _)| layer_of(user) != Some(Layer::Binary));
    broken.map(|(user, used)| user.broken(format!("names the adapter {}", used.name), mend)).collect()
}

pub(crate) fn only_the_node_speaks_the_guest_protocol(house: &House) -> Vec<Broken> {
    let mend = "ask flames-node: its GuestClient is the one way to the agent";
    let named = house.in_house_edges().filter(|(_, used)| layer_of(used) == Some(Layer::Guest));
    let broken = named.filter(|(user, _)| layer_of(user) != Some(Layer::Node));
    broken.map(|(user, used)| user.broken(format!("depends on {}", used.name), mend)).collect()
}

pub(crate) fn core_api_and_node_reach_no_client_of_infrastructure(house: &House) -> Vec<Broken> {
    let mend = "infrastructure is reached through an interface; the client belongs into an adapter";
    let is_inner = |one: &&Crate| matches!(layer_of(one), Some(Layer::Node | Layer::Core | Layer::Api));
    let reached = house.crates.iter().filter(is_inner).flat_map(|one| {
        let ways = ways_from(house, &one.name);
        CLIENTS.into_iter().filter_map(move |client| Some((one, ways.get(client)?.join(" -> "))))
    });
    reached.map(|(one, way)| one.broken(format!("reaches a client: {way}"), mend)).collect()
}

pub(crate) fn every_crate_takes_its_manifest_from_the_workspace(house: &House) -> Vec<Broken> {
    let mend = "write `KEY.workspace = true` (lints: a table `[lints]` with `workspace = true`)";
    let broken = house.crates.iter().filter(|one| !one.own_keys.is_empty());
    broken
        .map(|one| one.broken(format!("sets by itself or leaves out: {}", one.own_keys.join(", ")), mend))
        .collect()
}

pub(crate) fn every_crate_says_what_it_is(house: &House) -> Vec<Broken> {
    let silent = house.crates.iter().filter(|one| one.description.trim().is_empty());
    silent.map(|one| one.broken("has no description", "add `description = \"...\"`, one sentence")).collect()
}

pub(crate) fn unsafe_code_is_forbidden_outside_node_and_guest(house: &House) -> Vec<Broken> {
    let bound = house.crates.iter().filter(|one| !MAY_BE_UNSAFE.contains(&one.name.as_str()));
    let roots = bound.flat_map(|one| &one.roots).filter(|root| !root.forbids_unsafe);
    let broken = roots.map(|root| Broken {
        who: root.path.clone(),
        what: "does not forbid unsafe code".to_owned(),
        mend: "add `#![forbid(unsafe_code)]` below its module doc; what needs `unsafe` belongs into flames-node",
    });
    broken.collect()
}

pub(crate) fn no_source_file_is_too_long(house: &House) -> Vec<Broken> {
    long_files(house, &LONG_FILES)
}

/// Files beyond the limit without an exception, and exceptions that nothing needs any more.
pub(crate) fn long_files(house: &House, exceptions: &[(&str, &str)]) -> Vec<Broken> {
    let excepted = |path: &str| exceptions.iter().any(|(file, _)| *file == path);
    let long: Vec<_> = house.files.iter().filter(|file| file.lines > MAX_LINES).collect();
    let too_long = long.iter().filter(|file| !excepted(&file.path)).map(|file| Broken {
        who: file.path.clone(),
        what: format!("has {} lines, more than {MAX_LINES}", file.lines),
        mend: "split it along its sections: a file has one subject",
    });
    let stale = exceptions.iter().filter(|(path, _)| !long.iter().any(|file| file.path == *path));
    let stale = stale.map(|(path, _)| Broken {
        who: (*path).to_owned(),
        what: "is excepted from the longest length and is not long".to_owned(),
        mend: "remove it from LONG_FILES",
    });
    too_long.chain(stale).collect()
}

fn layer_of(one: &Crate) -> Option<Layer> {
    if one.is_adapter() {
        return Some(Layer::Adapter);
    }
    LAYERS.iter().find(|(name, _)| *name == one.name).map(|(_, layer)| *layer)
}

fn names(crates: &[&Crate]) -> String {
    match crates {
        [] => "nothing in this house".to_owned(),
        some => some.iter().map(|one| one.name.as_str()).collect::<Vec<_>>().join(", "),
    }
}

/// For every package that `start` needs, at whatever distance: a shortest way to it.
fn ways_from<'a>(house: &'a House, start: &'a str) -> BTreeMap<&'a str, Vec<&'a str>> {
    let mut ways = BTreeMap::from([(start, vec![start])]);
    let mut queue = VecDeque::from([start]);
    while let Some(name) = queue.pop_front() {
        for used in house.uses.get(name).into_iter().flatten() {
            if !ways.contains_key(used.as_str()) {
                let way = ways[name].iter().copied().chain([used.as_str()]).collect();
                ways.insert(used, way);
                queue.push_back(used);
            }
        }
    }
    ways
}

impl Crate {
    fn broken(&self, what: impl Into<String>, mend: &'static str) -> Broken {
        Broken { who: self.name.clone(), what: what.into(), mend }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}\n    mend: {}", self.who, self.what, self.mend)
    }
}
