//! Holds the typed values against Firecracker's published API description.
//!
//! `api/facts.json` is made by `scripts/firecracker-api.py` from the description of one release. A new release
//! is taken over by making it anew: what changed is what fails here.

use super::values;
use schemars::{JsonSchema, Schema, schema_for};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const FACTS: &str = include_str!("../../api/facts.json");

/// Definitions that Flames does not use, and why.
const UNUSED: [(&str, &str); 10] = [
    ("ArmRegisterModifier", "custom CPU templates: the named ones are what is supported"),
    ("CpuConfig", "custom CPU templates"),
    ("CpuidLeafModifier", "custom CPU templates"),
    ("CpuidRegisterModifier", "custom CPU templates"),
    ("FullVmConfiguration", "read in part: what can be changed while a guest runs (`live::InForce`)"),
    ("MsrModifier", "custom CPU templates"),
    ("PartialPmem", "drives are block devices"),
    ("Pmem", "drives are block devices"),
    ("VcpuFeatures", "custom CPU templates"),
    ("Vsock", "the agent is reached over TCP inside the VM's network namespace"),
];

/// What the driver does with each request of the description.
#[derive(Clone, Copy, Debug)]
enum Request {
    /// It sends it.
    Sent,
    /// It does not, for this reason; what it carries and answers is typed.
    Typed(&'static str),
    /// Nor is that typed.
    LeftOut(&'static str),
}

use Request::{LeftOut, Sent, Typed};

const TARGET: &str = "a guest reports free pages by itself, and nobody has to guess how many there are";
const HOTPLUG: &str = "sandboxes do not grow";
const OPTION: &str = "said on the command line, so that nothing is lost that comes before the API serves";
const PMEM: &str = "drives are block devices";

const REQUESTS: [(&str, Request); 38] = [
    ("GET /", Sent),
    ("GET /balloon", Typed("`GET /vm/config` says the same")),
    ("GET /balloon/hinting/status", Typed(TARGET)),
    ("GET /balloon/statistics", Typed("the agent tells what a guest uses")),
    ("GET /hotplug/memory", Typed(HOTPLUG)),
    ("GET /machine-config", Typed("the driver knows what it configured")),
    ("GET /mmds", Typed("the driver knows what it configured")),
    ("GET /version", Typed("the program says it before it is started")),
    ("GET /vm/config", Sent),
    ("PATCH /balloon", Typed(TARGET)),
    ("PATCH /balloon/hinting/start", Typed(TARGET)),
    ("PATCH /balloon/hinting/stop", Typed(TARGET)),
    ("PATCH /balloon/statistics", Typed("the agent tells what a guest uses")),
    ("PATCH /drives/{drive_id}", Sent),
    ("PATCH /hotplug/memory", Typed(HOTPLUG)),
    ("PATCH /machine-config", Typed("before a boot alone, where `PUT` says all of it")),
    ("PATCH /mmds", Typed("`PUT` says all of it")),
    ("PATCH /network-interfaces/{iface_id}", Sent),
    ("PATCH /pmem/{id}", LeftOut(PMEM)),
    ("PATCH /vm", Sent),
    ("PUT /actions", Sent),
    ("PUT /balloon", Sent),
    ("PUT /boot-source", Sent),
    ("PUT /cpu-config", LeftOut("custom CPU templates: the named ones are what is supported")),
    ("PUT /drives/{drive_id}", Sent),
    ("PUT /entropy", Sent),
    ("PUT /hotplug/memory", Typed(HOTPLUG)),
    ("PUT /logger", Typed(OPTION)),
    ("PUT /machine-config", Sent),
    ("PUT /metrics", Typed(OPTION)),
    ("PUT /mmds", Sent),
    ("PUT /mmds/config", Sent),
    ("PUT /network-interfaces/{iface_id}", Sent),
    ("PUT /pmem/{id}", LeftOut(PMEM)),
    ("PUT /serial", Sent),
    ("PUT /snapshot/create", Sent),
    ("PUT /snapshot/load", Sent),
    ("PUT /vsock", LeftOut("the agent is reached over TCP inside the VM's network namespace")),
];

#[test]
fn every_request_is_sent_or_typed_or_left_out_with_a_reason() {
    let published = facts()["requests"].take();
    let published: BTreeSet<&str> = published.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(REQUESTS.iter().map(|(request, _)| *request).collect::<BTreeSet<_>>(), published);
}

#[test]
fn what_a_request_carries_is_typed_unless_the_request_is_left_out() {
    let typed: BTreeSet<&str> = typed().into_iter().map(|(name, _)| name).collect();
    for (request, use_of_it) in REQUESTS {
        let bodies = facts()["requests"].take();
        let Some(body) = bodies[request].as_str() else { continue };
        match use_of_it {
            Sent => assert!(typed.contains(body), "{request} carries {body}"),
            Typed(why) => assert!(typed.contains(body) && !why.is_empty(), "{request} carries {body}"),
            LeftOut(why) => assert!(!typed.contains(body) && !why.is_empty(), "{request} carries {body}"),
        }
    }
}

#[test]
fn every_definition_is_typed_or_left_out_with_a_reason() {
    let checked: BTreeSet<String> = typed().into_iter().map(|(name, _)| name.to_owned()).collect();
    let left_out = UNUSED.iter().map(|(name, _)| (*name).to_owned());
    let known: BTreeSet<String> = checked.into_iter().chain(left_out).collect();
    let published: BTreeSet<String> = definitions().as_object().unwrap().keys().cloned().collect();
    assert_eq!(known, published);
}

#[test]
fn fields_types_requirements_and_words_are_the_published_ones() {
    for (name, schema) in typed() {
        assert_eq!(facts_of(&schema), definitions()[name], "{name}");
    }
}

#[test]
fn a_value_that_differs_is_noticed() {
    let mut facts = definitions()["Drive"].clone();
    assert_eq!(facts_of(&schema_for!(values::Drive)), facts);
    facts["fields"]["added_by_a_release"] = json!({"type": "string"});
    assert_ne!(facts_of(&schema_for!(values::Drive)), facts);
}

fn facts() -> Value {
    serde_json::from_str(FACTS).unwrap()
}

fn definitions() -> Value {
    facts()["definitions"].take()
}

macro_rules! schemas {
    ($($name:ident),* $(,)?) => { vec![$((stringify!($name), schema::<values::$name>())),*] };
}

fn typed() -> Vec<(&'static str, Schema)> {
    schemas![
        Balloon,
        BalloonHintingStatus,
        BalloonStartCmd,
        BalloonStats,
        BalloonStatsUpdate,
        BalloonUpdate,
        BootSource,
        CpuTemplate,
        Drive,
        EntropyDevice,
        Error,
        FirecrackerVersion,
        InstanceActionInfo,
        InstanceInfo,
        Logger,
        MachineConfiguration,
        MemoryBackend,
        MemoryHotplugConfig,
        MemoryHotplugSizeUpdate,
        MemoryHotplugStatus,
        Metrics,
        MmdsConfig,
        MmdsContentsObject,
        NetworkInterface,
        NetworkOverride,
        PartialDrive,
        PartialNetworkInterface,
        RateLimiter,
        SerialDevice,
        SnapshotCreateParams,
        SnapshotLoadParams,
        TokenBucket,
        Vm,
        VsockOverride,
    ]
}

fn schema<T: JsonSchema>() -> Schema {
    schema_for!(T)
}

/// The same facts in the same form, from what the Rust type says of itself.
fn facts_of(schema: &Schema) -> Value {
    let root = schema.as_value();
    if let Some(words) = words(root) {
        return json!({ "enum": words });
    }
    let nothing = serde_json::Map::new();
    let properties = root["properties"].as_object().unwrap_or(&nothing);
    let fields: serde_json::Map<_, _> =
        properties.iter().map(|(name, part)| (name.clone(), field(part, root))).collect();
    let mut required: Vec<&str> =
        root["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    required.sort_unstable();
    json!({ "fields": fields, "required": required })
}

fn field(part: &Value, root: &Value) -> Value {
    let part = without_null(part);
    let Some(name) = reference(part) else { return json!({ "type": kind(part) }) };
    // A named definition of the description, or words that stand in a field's place there.
    match words(&root["$defs"][name]) {
        Some(words) if definitions().get(name).is_none() => json!({ "type": "string", "enum": words }),
        _ => json!({ "type": name }),
    }
}

fn kind(part: &Value) -> Value {
    let part = without_null(part);
    if let Some(name) = reference(part) {
        return name.into();
    }
    let of = match &part["type"] {
        Value::Array(either) => either.iter().find(|name| *name != "null").cloned().unwrap_or_default(),
        one => one.clone(),
    };
    if of == "array" { json!([kind(&part["items"])]) } else { of }
}

fn without_null(part: &Value) -> &Value {
    let choices = part["anyOf"].as_array().into_iter().flatten();
    choices.clone().find(|choice| choice["type"] != "null").unwrap_or(part)
}

fn reference(part: &Value) -> Option<&str> {
    part["$ref"].as_str()?.rsplit('/').next()
}

fn words(part: &Value) -> Option<Vec<String>> {
    let plain = part["enum"].as_array().into_iter().flatten();
    let documented = part["oneOf"].as_array().into_iter().flatten().map(|one| &one["const"]);
    let mut words: Vec<String> =
        plain.chain(documented).filter_map(|word| word.as_str().map(str::to_owned)).collect();
    words.sort_unstable();
    (!words.is_empty()).then_some(words)
}
