//! The firewall inside every namespace, applied in one atomic call from a thread that is in it.

use flames_vmm::{Error, ErrorKind, Result};
use nftables::helper::{self, NftablesError};
use serde_json::{Value, json};

/// The table's name; nothing else in the namespace has one.
pub(super) const TABLE: &str = "flames";

/// Applies the rules in the namespace of the calling thread.
pub(super) fn apply() -> Result<()> {
    let rules = ruleset().to_string();
    helper::apply_ruleset_raw(&rules, helper::DEFAULT_NFT, helper::DEFAULT_ARGS).map(drop).map_err(nft_error)
}

/// Whether the namespace of the calling thread has the rules.
pub(super) fn is_applied() -> Result<bool> {
    let listed = helper::get_current_ruleset_raw(helper::DEFAULT_NFT, ["list", "tables"].iter());
    let listed: Value = serde_json::from_str(&listed.map_err(nft_error)?).unwrap_or_default();
    let tables = listed["nftables"].as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(tables.iter().any(|object| object["table"]["name"] == TABLE))
}

/// From the guest only replies come in; nothing is forwarded; out goes only what is for the guest.
fn ruleset() -> Value {
    let replies = json!([
        { "match": { "op": "in", "left": { "ct": { "key": "state" } }, "right": ["established", "related"] } },
        { "accept": null }
    ]);
    let to_guest = json!([
        { "match": { "op": "==", "left": { "meta": { "key": "oifname" } }, "right": super::TAP } },
        { "match": {
            "op": "==",
            "left": { "payload": { "protocol": "ip", "field": "daddr" } },
            "right": super::GUEST_IP.to_string(),
        } },
        { "accept": null }
    ]);
    json!({ "nftables": [
        { "add": { "table": { "family": "inet", "name": TABLE } } },
        chain("input"),
        chain("forward"),
        chain("output"),
        rule("input", &replies),
        rule("output", &to_guest),
    ] })
}

fn chain(hook: &str) -> Value {
    json!({ "add": { "chain": {
        "family": "inet", "table": TABLE, "name": hook,
        "type": "filter", "hook": hook, "prio": 0, "policy": "drop",
    } } })
}

fn rule(chain: &str, expressions: &Value) -> Value {
    json!({ "add": { "rule": { "family": "inet", "table": TABLE, "chain": chain, "expr": expressions } } })
}

fn nft_error(error: NftablesError) -> Error {
    let detail = match &error {
        NftablesError::NftFailed { stderr, .. } => stderr.trim().to_owned(),
        other => other.to_string(),
    };
    Error::new(ErrorKind::Unavailable, "firewall", TABLE).operation("nft").detail(detail).source(error)
}
