//! `flames bench boot`: from the create's request to the first output of a command, stage by stage.

use super::ms_since;
use crate::cli::BenchBoot;
use crate::client::Client;
use crate::commands::exec::as_failure;
use crate::commands::{AnyDaemon, Context};
use crate::output;
use anyhow::{anyhow, bail};
use flames_api::model::{CreateRequest, ExecEvent, ExecRequest, SandboxView};
use futures::StreamExt;
use indicatif::ProgressBar;
use serde::Serialize;
use std::process::ExitCode;
use std::time::Instant;

pub(crate) async fn run(context: &Context, command: &BenchBoot) -> anyhow::Result<ExitCode> {
    let daemon = AnyDaemon::find_or_start(context).await?;
    let outcome = measure(&daemon.client, command).await;
    daemon.stop().await.map_err(as_failure)?;
    let report = Report::of(command, outcome?);
    if context.global.json {
        output::json(&report)?;
    } else {
        report.print()?;
    }
    Ok(if report.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One create: its stages by name, in milliseconds.
type Sample = Vec<(&'static str, f64)>;

async fn measure(client: &Client, command: &BenchBoot) -> anyhow::Result<Vec<anyhow::Result<Sample>>> {
    let bar = ProgressBar::new(command.count.into());
    let creates = (0..command.count).map(|_| one(client, command));
    let running = futures::stream::iter(creates).buffer_unordered(usize::try_from(command.concurrency)?);
    let outcomes = running.inspect(|_| bar.inc(1)).collect().await;
    bar.finish_and_clear();
    Ok(outcomes)
}

async fn one(client: &Client, command: &BenchBoot) -> anyhow::Result<Sample> {
    let request = CreateRequest {
        template: command.template.clone(),
        memory_mib: command.memory,
        ..CreateRequest::default()
    };
    let asked = Instant::now();
    let sandbox = client.create(&request).await?;
    let create_seen_ms = ms_since(asked);
    let first_output = first_output(client, &sandbox.id, command).await;
    let total_ms = ms_since(asked);
    client.delete(&sandbox.id).await?;
    first_output?;
    Ok(sample(&sandbox, create_seen_ms, total_ms))
}

/// Runs the command and comes back with its first output.
async fn first_output(client: &Client, id: &str, command: &BenchBoot) -> anyhow::Result<()> {
    let request = ExecRequest { command: command.command.clone(), ..ExecRequest::default() };
    let mut events = client.exec(id, &request).await?;
    while let Some(event) = events.next().await {
        match event? {
            ExecEvent::Started { .. } => {}
            ExecEvent::Stdout { .. } | ExecEvent::Stderr { .. } => return Ok(()),
            ExecEvent::Exit { status, .. } => bail!("the command ended without output: {status}"),
            ExecEvent::Error { problem } => bail!("{}", problem.detail),
        }
    }
    Err(anyhow!("the stream ended without output"))
}

fn sample(sandbox: &SandboxView, create_seen_ms: f64, total_ms: f64) -> Sample {
    let timings = &sandbox.timings;
    let vm_ms = timings.vmm_spawn_ms + timings.kernel_to_agent_ms;
    let mut sample = output::stages(timings);
    sample.push(("API and client", create_seen_ms - timings.create_ms));
    sample.push(("first command", total_ms - create_seen_ms));
    sample.push(("all but VMM and boot", total_ms - vm_ms));
    sample.push(("create to first output", total_ms));
    sample
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Report {
    template: String,
    count: u32,
    concurrency: u32,
    failed: usize,
    errors: Vec<String>,
    stages: Vec<Stage>,
}

/// One stage over all samples, in milliseconds.
#[derive(Debug, PartialEq, Serialize)]
struct Stage {
    stage: String,
    min_ms: f64,
    median_ms: f64,
    p90_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

impl Report {
    fn of(command: &BenchBoot, outcomes: Vec<anyhow::Result<Sample>>) -> Self {
        let (samples, errors): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
        let samples: Vec<Sample> = samples.into_iter().flatten().collect();
        let mut errors: Vec<_> =
            errors.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")).collect();
        let failed = errors.len();
        errors.sort();
        errors.dedup();
        let names =
            samples.first().map(|sample| sample.iter().map(|(name, _)| *name).collect()).unwrap_or_default();
        let stages = stages(names, &samples);
        let template = command.template.clone();
        Self { template, count: command.count, concurrency: command.concurrency, failed, errors, stages }
    }

    fn print(&self) -> anyhow::Result<()> {
        let rows = self.stages.iter().map(Stage::row).collect();
        output::line(format!(
            "{} creates of {}, {} at once, {} failed; milliseconds",
            self.count, self.template, self.concurrency, self.failed
        ))?;
        output::table(&["STAGE", "MIN", "MEDIAN", "P90", "P99", "MAX"], rows)?;
        self.errors.iter().try_for_each(|error| output::line(format!("failed: {error}")))
    }
}

fn stages(names: Vec<&'static str>, samples: &[Sample]) -> Vec<Stage> {
    let of = |(place, name): (usize, &str)| {
        Stage::of(name, samples.iter().map(|sample| sample[place].1).collect())
    };
    names.into_iter().enumerate().map(of).collect()
}

impl Stage {
    fn of(name: &str, mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |percent| nearest_rank(&values, percent);
        Self {
            stage: name.to_owned(),
            min_ms: at(0),
            median_ms: at(50),
            p90_ms: at(90),
            p99_ms: at(99),
            max_ms: at(100),
        }
    }

    fn row(&self) -> Vec<String> {
        let values = [self.min_ms, self.median_ms, self.p90_ms, self.p99_ms, self.max_ms];
        std::iter::once(self.stage.clone()).chain(values.map(|value| format!("{value:.2}"))).collect()
    }
}

/// The smallest value that at least `percent` of all values do not exceed.
fn nearest_rank(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let stage = Stage::of("x", (1..=20).rev().map(f64::from).collect());
        assert_eq!((stage.min_ms, stage.median_ms, stage.p90_ms), (1.0, 10.0, 18.0));
        assert_eq!((stage.p99_ms, stage.max_ms), (20.0, 20.0));
    }
}
