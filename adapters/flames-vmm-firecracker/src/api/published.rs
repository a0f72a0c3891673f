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
const UNUSED: [(&str, &str); 13] = [
    ("ArmRegisterModifier", "custom CPU templates: the named ones are what is supported"),
    ("CpuConfig", "custom CPU templates"),
    ("CpuidLeafModifier", "custom CPU templates"),
    ("CpuidRegisterModifier", "custom CPU templates"),
    ("FullVmConfiguration", "the driver knows what it configured"),
    ("MemoryHotplugConfig", "the balloon gives memory back; sandboxes do not grow"),
    ("MemoryHotplugSizeUpdate", "as above"),
    ("MemoryHotplugStatus", "as above"),
    ("MsrModifier", "custom CPU templates"),
    ("PartialPmem", "drives are block devices"),
    ("Pmem", "drives are block devices"),
    ("VcpuFeatures", "custom CPU templates"),
    ("Vsock", "the agent is reached over TCP inside the VM's network namespace"),
];

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

fn definitions() -> Value {
    serde_json::from_str::<Value>(FACTS).unwrap()["definitions"].take()
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
