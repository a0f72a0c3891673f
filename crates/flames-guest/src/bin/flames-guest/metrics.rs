//! `/metrics` and `/envs`. (First version: to be completed.)

use crate::agent::Agent;
use crate::http::{Answer, Failure, json};
use serde::Serialize;

#[derive(Serialize)]
struct Metrics {
    ts: i64,
}

pub(crate) fn answer() -> Result<Answer, Failure> {
    Ok(json(&Metrics { ts: crate::system::now_unix_nanos() / 1_000_000_000 }))
}

/// The sandbox's environment.
pub(crate) fn environment(agent: &Agent) -> Answer {
    json(&agent.settings().env)
}
