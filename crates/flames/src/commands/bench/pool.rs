//! `flames bench pool`: the allocation strategies under loads of several shapes, in simulated time.
//!
//! The decisions are those of a node; only the VMs are simulated, with the durations that are given. So it tells
//! strategies and presets apart and says what they cost, and it does not measure this machine.

use crate::cli::BenchPool;
use crate::output;
use anyhow::Context;
use flames_pool::sim::{self, Durations, Scenario, Trace};
use flames_pool::{PoolConfig, Preset, Strategy};
use indicatif::ProgressBar;
use serde::Serialize;
use std::process::ExitCode;
use tokio::task::JoinSet;

pub(crate) async fn run(command: &BenchPool, json: bool) -> anyhow::Result<ExitCode> {
    let report = Report::of(command, simulate(command).await?);
    if json {
        output::json(&report)?;
    } else {
        report.print()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// All runs at once on as many threads as there are, in the order of the table.
async fn simulate(command: &BenchPool) -> anyhow::Result<Vec<Line>> {
    let mut running = JoinSet::new();
    for (place, (trace, strategy)) in runs(command).into_iter().enumerate() {
        let scenario = scenario(command, trace, strategy);
        running.spawn_blocking(move || (place, Line { trace, strategy, report: sim::run(&scenario) }));
    }
    let bar = ProgressBar::new(running.len() as u64);
    let mut lines = Vec::new();
    while let Some(ended) = running.join_next().await {
        lines.push(ended.context("a simulated run broke off")?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    lines.sort_by_key(|(place, _)| *place);
    Ok(lines.into_iter().map(|(_, line)| line).collect())
}

fn runs(command: &BenchPool) -> Vec<(Trace, Strategy)> {
    let traces = if command.trace.is_empty() { &Trace::ALL[..] } else { &command.trace };
    let strategies = if command.strategy.is_empty() { &Strategy::ALL[..] } else { &command.strategy };
    let of_trace = |trace: &Trace| strategies.iter().map(|strategy| (*trace, *strategy)).collect::<Vec<_>>();
    traces.iter().flat_map(of_trace).collect()
}

fn scenario(command: &BenchPool, trace: Trace, strategy: Strategy) -> Scenario {
    Scenario {
        config: PoolConfig { strategy, ..command.preset.config("simulated") },
        trace,
        per_second: command.rate,
        length: command.length,
        durations: command.durations(),
        seed: command.seed,
    }
}

/// What was simulated, and what came of it.
#[derive(Debug, Serialize)]
struct Report {
    /// Says that no VM was involved.
    kind: &'static str,
    preset: Preset,
    config: PoolConfig,
    per_second: f64,
    length_s: f64,
    seed: u64,
    durations: Durations,
    lines: Vec<Line>,
}

/// One run.
#[derive(Debug, Serialize)]
struct Line {
    trace: Trace,
    strategy: Strategy,
    #[serde(flatten)]
    report: sim::Report,
}

const HEADINGS: [&str; 11] =
    ["LOAD", "STRATEGY", "CREATES", "HIT", "P50 MS", "P99 MS", "EVEN", "AGE S", "AGE P99", "IDLE", "MADE"];

impl Report {
    fn of(command: &BenchPool, lines: Vec<Line>) -> Self {
        Self {
            kind: "simulation of a warm pool",
            preset: command.preset,
            config: command.preset.config("simulated"),
            per_second: command.rate,
            length_s: command.length.as_secs_f64(),
            seed: command.seed,
            durations: command.durations(),
            lines,
        }
    }

    fn print(&self) -> anyhow::Result<()> {
        output::line(format!(
            "Simulation, no VM involved: preset {}, {} creates per second for {:.0} s, seed {}",
            self.preset, self.per_second, self.length_s, self.seed
        ))?;
        output::line(durations(&self.durations))?;
        output::table(&HEADINGS, self.lines.iter().map(Line::row).collect())?;
        output::line(
            "HIT: creates that got a member. P50, P99: wait of all creates. EVEN: Jain's index over slots, 1 is even. \
             AGE: of members when handed out. IDLE: members that waited, on average. MADE: members made.",
        )
    }
}

fn durations(of: &Durations) -> String {
    let made = if of.snapshot {
        format!("restore {:.1} ms into it", of.load_ms)
    } else {
        format!("boot {:.1} ms in it (no snapshot)", of.boot_ms)
    };
    format!(
        "Durations as given: hand out {:.1} ms, resume {:.1} ms, prepare {:.1} ms, {made}, end {:.1} ms; sandboxes \
         live {:.0} s; {:.0} % of the slots take {:.1} times as long; +-{:.0} % by chance",
        of.hand_out_ms,
        of.resume_ms,
        of.prepare_ms,
        of.stop_ms,
        of.hold_s,
        of.slow_slots * 100.0,
        of.slow_factor,
        of.noise * 100.0
    )
}

impl Line {
    fn row(&self) -> Vec<String> {
        let report = &self.report;
        vec![
            self.trace.to_string(),
            self.strategy.to_string(),
            report.creates.to_string(),
            format!("{:.1} %", report.hit_rate * 100.0),
            format!("{:.1}", report.wait_ms.p50),
            format!("{:.1}", report.wait_ms.p99),
            format!("{:.2}", report.evenness),
            format!("{:.1}", report.age_s.p50),
            format!("{:.1}", report.age_s.p99),
            format!("{:.1}", report.mean_idle),
            report.started.to_string(),
        ]
    }
}
