//! `flames bench compare`: results of `flames bench create` side by side.

use super::latency::Summary;
use super::report::{KIND, Report, SCHEMA};
use crate::cli::BenchCompare;
use crate::output;
use anyhow::{Context, bail};
use serde::Serialize;
use serde_json::Value;
use std::path::Path;
use std::process::ExitCode;

pub(crate) fn run(command: &BenchCompare, json: bool) -> anyhow::Result<ExitCode> {
    let reports: Vec<Report> = command.files.iter().map(|file| read(file)).collect::<anyhow::Result<_>>()?;
    let lines = lines(&reports);
    if json {
        output::json(&lines)?;
        return Ok(ExitCode::SUCCESS);
    }
    for (file, report) in command.files.iter().zip(&reports) {
        let level = report.level.as_deref().unwrap_or("the daemon's level");
        output::line(format!("{}: {}, {level}, {}", file.display(), report.source(), report.load))?;
    }
    let names = command.files.iter().map(|file| file.display().to_string());
    let headings: Vec<String> =
        ["".to_owned()].into_iter().chain(names).chain(ratio_headings(&reports)).collect();
    let headings: Vec<&str> = headings.iter().map(String::as_str).collect();
    output::table(&headings, lines.iter().map(Line::row).collect())?;
    Ok(ExitCode::SUCCESS)
}

/// One figure of all results.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Line {
    what: String,
    /// A result that does not have it has `None`.
    values: Vec<Option<f64>>,
    /// To the first result, from the second on.
    ratios: Vec<Option<f64>>,
}

fn read(file: &Path) -> anyhow::Result<Report> {
    let text = std::fs::read(file).with_context(|| format!("{} cannot be read", file.display()))?;
    parse(&text).with_context(|| format!("{} cannot be compared", file.display()))
}

fn parse(text: &[u8]) -> anyhow::Result<Report> {
    let value: Value = serde_json::from_slice(text).context("it is no JSON")?;
    match value.get("kind").and_then(Value::as_str) {
        Some(KIND) => {}
        Some(other) => bail!("it is a result of `{other}`, not of `{KIND}`"),
        None => bail!("it is no result of `{KIND}`: write one with --save"),
    }
    match value.get("schema").and_then(Value::as_u64) {
        Some(SCHEMA) => Ok(serde_json::from_value(value).context("it is incomplete")?),
        Some(other) => bail!("it has schema {other}, this version of Flames knows {SCHEMA}: measure again"),
        None => bail!("it does not say which schema it has"),
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of creates are small")]
fn lines(reports: &[Report]) -> Vec<Line> {
    type Figure = (&'static str, fn(&Report) -> f64);
    let figures: [Figure; 4] = [
        ("created", |report| report.created as f64),
        ("created per second", |report| report.created_per_s),
        ("refused", |report| report.refused as f64),
        ("failed", |report| report.failed as f64),
    ];
    let counts = figures
        .iter()
        .map(|(what, of)| Line::of((*what).to_owned(), reports.iter().map(|one| Some(of(one)))));
    let tables: [fn(&Report) -> &Vec<Summary>; 2] = [|report| &report.latencies, |report| &report.stages];
    let latencies = tables.iter().flat_map(|table| percentiles(reports, *table));
    counts.chain(latencies).collect()
}

/// A line for each percentile of each latency that any result has.
fn percentiles(reports: &[Report], table: fn(&Report) -> &Vec<Summary>) -> Vec<Line> {
    let mut names: Vec<&str> = Vec::new();
    for summary in reports.iter().flat_map(table) {
        if !names.contains(&summary.name.as_str()) {
            names.push(&summary.name);
        }
    }
    let lines_of = |name: &str| -> Vec<Line> {
        let found: Vec<_> =
            reports.iter().map(|one| table(one).iter().find(|summary| summary.name == name)).collect();
        let Some(first) = found.iter().flatten().next() else { return Vec::new() };
        let line = |(at, (percentile, _)): (usize, (&str, f64))| {
            let values = found.iter().map(|summary| Some(summary.as_ref()?.shown()[at].1));
            Line::of(format!("{name}, {percentile} ms"), values)
        };
        first.shown().into_iter().enumerate().map(line).collect()
    };
    names.into_iter().flat_map(lines_of).collect()
}

fn ratio_headings(reports: &[Report]) -> impl Iterator<Item = String> {
    (2..=reports.len()).map(|place| format!("{place}/1"))
}

impl Line {
    fn of(what: String, values: impl Iterator<Item = Option<f64>>) -> Self {
        let values: Vec<Option<f64>> = values.collect();
        let first = values.first().copied().flatten().filter(|first| *first != 0.0);
        let ratios = values.iter().skip(1).map(|value| Some((*value)? / first?)).collect();
        Self { what, values, ratios }
    }

    fn row(&self) -> Vec<String> {
        let text = |value: &Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
        [self.what.clone()].into_iter().chain(self.values.iter().chain(&self.ratios).map(text)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::{life, tally};
    use super::*;
    use serde_json::json;

    fn measured(create_ms: u64) -> Report {
        let mut tally = tally(&[]);
        tally.take(&life(0, Ok(create_ms))).unwrap();
        tally.end()
    }

    #[test]
    fn a_saved_result_comes_back_and_has_its_ratio_to_the_first() {
        let reports =
            [measured(100), measured(50)].map(|report| parse(&serde_json::to_vec(&report).unwrap()).unwrap());
        let lines = lines(&reports);
        let p99 = lines.iter().find(|line| line.what == "create, P99 ms").unwrap();
        assert!((p99.ratios[0].unwrap() - 0.5).abs() < 0.01, "{p99:?}");
        let failed = lines.iter().find(|line| line.what == "failed").unwrap();
        assert_eq!(failed.ratios, [None], "nothing has a ratio to zero");
    }

    #[test]
    fn a_file_of_another_kind_or_schema_is_refused_with_what_it_is() {
        let told = |value: Value| format!("{:#}", parse(&serde_json::to_vec(&value).unwrap()).unwrap_err());
        assert!(told(json!({ "kind": "flames bench pool" })).contains("a result of `flames bench pool`"));
        assert!(told(json!({ "template": "mini" })).contains("write one with --save"));
        let newer = told(json!({ "kind": KIND, "schema": 9 }));
        assert!(newer.contains("schema 9") && newer.contains("knows 1"), "{newer}");
        assert!(told(json!({ "kind": KIND, "schema": SCHEMA })).contains("incomplete"));
        assert!(format!("{:#}", parse(b"x").unwrap_err()).contains("no JSON"));
    }
}
