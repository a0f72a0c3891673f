//! What a load showed: counted while it runs, then a result for people, files and `flames bench compare`.

use super::arrivals::Load;
use super::latency::{Latencies, Summary};
use super::life::{Created, Fault, Judgement, Life};
use crate::cli::BenchCreate;
use crate::output;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What a file must say to be compared.
pub(super) const KIND: &str = "flames bench create";
/// Grows when a field changes its meaning.
pub(super) const SCHEMA: u64 = 1;

/// A result. Every latency is in milliseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Report {
    pub(super) kind: String,
    pub(super) schema: u64,
    pub(super) version: String,
    pub(super) started_at: Timestamp,
    /// Whether the daemon lived in this process, and shared its processor time with the load.
    pub(super) embedded_daemon: bool,
    pub(super) cpus: usize,
    /// The host's load average over a minute, before and after.
    pub(super) load_average: [Option<f64>; 2],
    pub(super) load: Load,
    pub(super) template: Option<String>,
    pub(super) snapshot: Option<String>,
    pub(super) level: Option<String>,
    pub(super) command: Option<Vec<String>>,
    pub(super) keep_s: f64,
    pub(super) max_live: Option<u32>,
    /// From the start to the last answer of a create.
    pub(super) elapsed_s: f64,
    /// Creates that were meant to be made; unknown in a closed loop.
    pub(super) planned: Option<usize>,
    pub(super) created: u64,
    pub(super) refused: u64,
    pub(super) failed: u64,
    /// Creates per second that succeeded.
    pub(super) created_per_s: f64,
    /// How creates came to be, where the daemon says so.
    pub(super) paths: BTreeMap<String, u64>,
    pub(super) errors: Vec<CountedError>,
    pub(super) latencies: Vec<Summary>,
    /// The daemon's own stages of the creates.
    pub(super) stages: Vec<Summary>,
    pub(super) interrupted: bool,
    /// Sandboxes of this load that could not be deleted.
    pub(super) left_behind: Vec<String>,
    /// What the host has that belongs to nobody, after the load: how many of each kind.
    pub(super) leaks: BTreeMap<String, u64>,
}

/// Errors of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CountedError {
    /// `create`, `command` or `delete`.
    pub(super) at: String,
    pub(super) kind: String,
    pub(super) refusal: bool,
    pub(super) count: u64,
    /// What the first of them said.
    pub(super) example: String,
}

/// A result in the making.
#[derive(Debug)]
pub(super) struct Tally {
    report: Report,
    began: Instant,
    latencies: Latencies,
    stages: Latencies,
    pub(super) planned: Option<usize>,
    pub(super) left_behind: Vec<String>,
    pub(super) leaks: BTreeMap<String, u64>,
    pub(super) interrupted: bool,
}

impl Tally {
    pub(super) fn begin(command: &BenchCreate, load: &Load, embedded_daemon: bool) -> Self {
        let (latencies, stages) = (Latencies::default(), Latencies::default());
        Self {
            report: blank(command, load, embedded_daemon),
            began: Instant::now(),
            latencies,
            stages,
            planned: None,
            left_behind: Vec::new(),
            leaks: BTreeMap::new(),
            interrupted: false,
        }
    }

    pub(super) fn take(&mut self, life: &Life) -> anyhow::Result<()> {
        self.report.elapsed_s = self.report.elapsed_s.max((life.answered_at - self.began).as_secs_f64());
        match &life.create {
            Ok(created) => self.take_created(life, created)?,
            Err(fault) => {
                self.count("create", fault);
                if fault.judgement == Judgement::Refused {
                    self.latencies.record("refusal", fault.after)?;
                }
            }
        }
        if let Some(Err(fault)) = &life.first_command {
            self.count("command", fault);
        }
        match &life.delete {
            Some(Ok(took)) => self.latencies.record("delete", *took)?,
            Some(Err(fault)) => self.count("delete", fault),
            None => {}
        }
        Ok(())
    }

    fn take_created(&mut self, life: &Life, created: &Created) -> anyhow::Result<()> {
        self.report.created += 1;
        self.record_both("create", life, created.took)?;
        if let Some(path) = &created.path {
            *self.report.paths.entry(path.clone()).or_default() += 1;
            self.latencies.record(&format!("create, {path}"), created.took)?;
        }
        if let Some(Ok(command)) = life.first_command {
            self.latencies.record("first command", command)?;
            self.record_both("create to first output", life, created.took + command)?;
        }
        for (name, ms) in &created.stages {
            self.stages.record(&format!("daemon: {name}"), Duration::from_secs_f64(ms.max(0.0) / 1000.0))?;
        }
        Ok(())
    }

    /// As the daemon took it and, where there was a moment to begin at, from there.
    fn record_both(&mut self, name: &str, life: &Life, took: Duration) -> anyhow::Result<()> {
        if matches!(self.report.load, Load::Closed { .. }) {
            return self.latencies.record(name, took);
        }
        self.latencies.record(&format!("{name}, from intended start"), life.waited + took)?;
        self.latencies.record(&format!("{name}, service"), took)
    }

    fn count(&mut self, at: &str, fault: &Fault) {
        let refusal = fault.judgement == Judgement::Refused;
        match (at, refusal) {
            ("create", true) => self.report.refused += 1,
            _ => self.report.failed += 1,
        }
        let errors = &mut self.report.errors;
        match errors.iter_mut().find(|known| known.at == at && known.kind == fault.kind) {
            Some(known) => known.count += 1,
            None => errors.push(CountedError {
                at: at.to_owned(),
                kind: fault.kind.clone(),
                refusal,
                count: 1,
                example: fault.detail.clone(),
            }),
        }
    }

    pub(super) fn in_short(&self) -> String {
        format!("created, {} refused, {} failed", self.report.refused, self.report.failed)
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of creates are small")]
    pub(super) fn end(self) -> Report {
        let created_per_s = self.report.created as f64 / self.report.elapsed_s.max(f64::MIN_POSITIVE);
        Report {
            load_average: [self.report.load_average[0], load_average()],
            planned: self.planned,
            created_per_s,
            latencies: self.latencies.summaries(),
            stages: self.stages.summaries(),
            interrupted: self.interrupted,
            left_behind: self.left_behind,
            leaks: self.leaks,
            ..self.report
        }
    }
}

fn blank(command: &BenchCreate, load: &Load, embedded_daemon: bool) -> Report {
    Report {
        kind: KIND.to_owned(),
        schema: SCHEMA,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: Timestamp::now(),
        embedded_daemon,
        cpus: std::thread::available_parallelism().map_or(0, usize::from),
        load_average: [load_average(), None],
        load: load.clone(),
        template: command.snapshot.is_none().then(|| command.template.clone()),
        snapshot: command.snapshot.clone(),
        level: command.level.clone(),
        command: (!command.no_command).then(|| command.command.clone()),
        keep_s: command.keep.as_secs_f64(),
        max_live: command.max_live,
        elapsed_s: 0.0,
        planned: None,
        created: 0,
        refused: 0,
        failed: 0,
        created_per_s: 0.0,
        paths: BTreeMap::new(),
        errors: Vec::new(),
        latencies: Vec::new(),
        stages: Vec::new(),
        interrupted: false,
        left_behind: Vec::new(),
        leaks: BTreeMap::new(),
    }
}

/// Of the last minute; `None` where the system does not say.
fn load_average() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}

impl Report {
    /// Nothing failed and nothing is left. A refusal is an answer, not a failure.
    pub(super) fn is_clean(&self) -> bool {
        self.failed == 0 && self.left_behind.is_empty() && self.leaks.is_empty()
    }

    pub(super) fn source(&self) -> &str {
        self.snapshot.as_deref().or(self.template.as_deref()).unwrap_or_default()
    }

    pub(super) fn print(&self) -> anyhow::Result<()> {
        output::line(self.headline())?;
        self.warnings().iter().try_for_each(output::line)?;
        let rows = self.latencies.iter().chain(&self.stages).map(row);
        output::table(&["MILLISECONDS", "COUNT", "P50", "P90", "P99", "P99.9", "MAX"], rows.collect())?;
        self.errors.iter().try_for_each(|error| output::line(error.describe()))
    }

    fn headline(&self) -> String {
        let level = self.level.as_ref().map(|level| format!(" at level {level}")).unwrap_or_default();
        let paths: Vec<_> = self.paths.iter().map(|(path, count)| format!("{count} {path}")).collect();
        let paths = if paths.is_empty() { String::new() } else { format!(" ({})", paths.join(", ")) };
        format!(
            "{}{level}, {}: {} created{paths}, {} refused, {} failed in {:.1} s, {:.1} created per second",
            self.source(),
            self.load,
            self.created,
            self.refused,
            self.failed,
            self.elapsed_s,
            self.created_per_s
        )
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.interrupted {
            warnings.push("interrupted: this is what was measured until then".to_owned());
        }
        if self.embedded_daemon {
            warnings.push(
                "the daemon ran in this process: start one with `flames up` to measure it alone".into(),
            );
        }
        if !self.left_behind.is_empty() {
            warnings.push(format!("NOT DELETED: {}", self.left_behind.join(" ")));
        }
        warnings.extend(self.leaks.iter().map(|(kind, count)| format!("LEAKED: {count} of {kind}")));
        warnings
    }
}

fn row(summary: &Summary) -> Vec<String> {
    let values = summary.shown().map(|(_, ms)| format!("{ms:.2}"));
    [summary.name.clone(), summary.count.to_string()].into_iter().chain(values).collect()
}

impl CountedError {
    fn describe(&self) -> String {
        let what = if self.refusal { "refused" } else { "failed" };
        format!("{what} at {}: {} times {}: {}", self.at, self.count, self.kind, self.example)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::cli::{Bench, Cli, Command};
    use clap::Parser;

    pub(in super::super) fn tally(words: &[&str]) -> Tally {
        let cli = Cli::try_parse_from(["flames", "bench", "create"].iter().chain(words)).unwrap();
        let Command::Bench(Bench::Create(command)) = cli.command else { panic!("not a load") };
        Tally::begin(&command, &Load::of(&command).unwrap(), false)
    }

    pub(in super::super) fn life(waited_ms: u64, create: Result<u64, Judgement>) -> Life {
        let took = Duration::from_millis;
        let created =
            |ms| Created { id: "i".into(), took: took(ms), path: Some("warm".into()), stages: Vec::new() };
        let fault = |judgement| Fault {
            kind: "503 full".into(),
            detail: "no room".into(),
            judgement,
            after: took(1),
        };
        Life {
            waited: took(waited_ms),
            first_command: create.is_ok().then(|| Ok(took(5))),
            delete: create.is_ok().then(|| Ok(took(2))),
            create: create.map(created).map_err(fault),
            answered_at: Instant::now(),
        }
    }

    fn p50(report: &Report, name: &str) -> f64 {
        report.latencies.iter().find(|summary| summary.name == name).unwrap().p50_ms.round()
    }

    #[test]
    fn an_open_loop_counts_the_wait_for_a_late_start_and_a_closed_one_has_none() {
        let mut open = tally(&["--burst", "1"]);
        open.take(&life(100, Ok(10))).unwrap();
        let open = open.end();
        assert_eq!((p50(&open, "create, from intended start"), p50(&open, "create, service")), (110.0, 10.0));
        assert_eq!(p50(&open, "create to first output, from intended start"), 115.0);
        let mut closed = tally(&[]);
        closed.take(&life(0, Ok(10))).unwrap();
        assert_eq!(p50(&closed.end(), "create"), 10.0);
    }

    #[test]
    fn refusals_are_counted_apart_and_leave_a_result_clean() {
        let mut tally = tally(&["--burst", "3"]);
        tally.take(&life(0, Ok(10))).unwrap();
        tally.take(&life(0, Err(Judgement::Refused))).unwrap();
        let report = tally.end();
        assert_eq!((report.created, report.refused, report.failed), (1, 1, 0));
        assert!(report.is_clean() && report.errors[0].refusal);
    }

    #[test]
    fn failures_leaks_and_leftovers_make_a_result_unclean() {
        let mut failing = tally(&[]);
        failing.take(&life(0, Err(Judgement::Failed))).unwrap();
        assert!(!failing.end().is_clean());
        let leaking = Tally { leaks: BTreeMap::from([("tap".into(), 1)]), ..tally(&[]) };
        assert!(!leaking.end().is_clean());
        let leaving = Tally { left_behind: vec!["i1".into()], ..tally(&[]) };
        assert!(!leaving.end().is_clean());
    }
}
