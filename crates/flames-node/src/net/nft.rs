//! Runs `nft` in the namespace of the calling thread. Whatever it is given is one transaction: all of it is
//! applied, or nothing.

use flames_vmm::{Error, ErrorKind, Result};
use serde_json::Value;
use std::io::Write;
use std::process::{Command, Output, Stdio};

/// Applies a ruleset in nft's own language.
pub(super) fn apply(ruleset: &str) -> Result<()> {
    let mut nft = Command::new("nft");
    nft.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = nft.spawn().map_err(|error| not_run("start", error))?;
    if let Some(mut input) = child.stdin.take() {
        // A ruleset that is refused half way closes the pipe; what nft says about it counts.
        let _ = input.write_all(ruleset.as_bytes());
    }
    judge("apply", child.wait_with_output()).map(drop)
}

/// A table with everything in it, as JSON.
pub(super) fn list_table(family: &str, name: &str) -> Result<Vec<u8>> {
    print(&["table", family, name])
}

fn print(what: &[&str]) -> Result<Vec<u8>> {
    let output = Command::new("nft").args(["-j", "list"]).args(what).stdin(Stdio::null()).output();
    judge("list", output).map(|output| output.stdout)
}

/// What `nft -j list ...` tells.
pub(super) fn list(what: &[&str]) -> Result<Vec<Value>> {
    let mut listed: Value = serde_json::from_slice(&print(what)?).map_err(|error| {
        Error::new(ErrorKind::Corrupt, "firewall", what.join(" ")).operation("list").source(error)
    })?;
    match listed["nftables"].take() {
        Value::Array(objects) => Ok(objects),
        _ => Ok(Vec::new()),
    }
}

/// Whether the namespace of the calling thread has a table.
pub(super) fn has_table(family: &str, name: &str) -> Result<bool> {
    let is_it = |object: &Value| object["table"]["family"] == family && object["table"]["name"] == name;
    Ok(list(&["tables"])?.iter().any(is_it))
}

fn judge(operation: &'static str, output: std::io::Result<Output>) -> Result<Output> {
    let output = output.map_err(|error| not_run(operation, error))?;
    if output.status.success() {
        return Ok(output);
    }
    let told = String::from_utf8_lossy(&output.stderr);
    Err(Error::new(ErrorKind::Unavailable, "firewall", "nft")
        .operation(operation)
        .detail(told.trim().to_owned()))
}

fn not_run(operation: &'static str, error: std::io::Error) -> Error {
    let detail = format!("nft does not run: {error}; `apt install nftables`");
    Error::new(ErrorKind::Unavailable, "firewall", "nft").operation(operation).detail(detail).source(error)
}
