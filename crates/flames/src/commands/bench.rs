//! `flames bench`: what this machine can do, measured from outside through the API; and what a pool would do,
//! simulated.

mod arrivals;
mod boot;
mod compare;
mod create;
mod latency;
mod life;
mod pool;
mod report;

use super::Context;
use crate::cli::Bench;
use std::process::ExitCode;
use std::time::Instant;

pub(crate) async fn run(context: &Context, command: Bench) -> anyhow::Result<ExitCode> {
    match command {
        Bench::Boot(command) => boot::run(context, &command).await,
        Bench::Create(command) => create::run(context, *command).await,
        Bench::Compare(command) => compare::run(&command, context.global.json),
        Bench::Pool(command) => pool::run(&command, context.global.json).await,
    }
}

fn ms_since(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1000.0
}
