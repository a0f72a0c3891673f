//! From two looks to the table that is shown: pure.

use crate::commands::sandboxes::span;
use comfy_table::{Table, presets};
use flames_api::model::{RunUsageView, SandboxView, TopView};
use flames_metrics::PoolStatus;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use std::collections::HashMap;
use std::time::Instant;

/// What was there at one moment.
#[derive(Clone, Debug)]
pub(super) struct Look {
    at: Instant,
    clock: Timestamp,
    sandboxes: Vec<SandboxView>,
    top: TopView,
}

/// What is shown.
#[derive(Clone, Debug, Serialize)]
pub(super) struct View {
    at: Timestamp,
    pools: Vec<PoolRow>,
    sandboxes: Vec<SandboxRow>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct SandboxRow {
    id: String,
    template: String,
    state: String,
    age_s: i64,
    create_ms: f64,
    /// Of one processor; `None` without a VMM, or at the first look at it.
    cpu_percent: Option<f64>,
    cpu_seconds: Option<f64>,
    resident_bytes: Option<u64>,
    private_bytes: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct PoolRow {
    template: String,
    running: u32,
    paused: u32,
    prepared: u32,
    target: u32,
    ready: u32,
    live: u32,
    hits: u64,
    misses: u64,
    hit_rate: Option<f64>,
    wait_p99_ms: f64,
}

impl Look {
    pub(super) fn now(sandboxes: Vec<SandboxView>, top: TopView) -> Self {
        Self { at: Instant::now(), clock: Timestamp::now(), sandboxes, top }
    }

    fn usage(&self) -> HashMap<&str, &RunUsageView> {
        self.top.usage.iter().filter_map(|used| Some((used.sandbox.as_deref()?, used))).collect()
    }
}

impl View {
    /// The newest look, with what was used since the one before. The busiest first, then the youngest.
    pub(super) fn of(now: &Look, before: Option<&Look>) -> Self {
        let (usage, earlier) = (now.usage(), before.map(Look::usage).unwrap_or_default());
        let passed = before.map_or(0.0, |before| (now.at - before.at).as_secs_f64());
        let row = |sandbox: &SandboxView| {
            let used = usage.get(sandbox.id.as_str()).copied();
            let then = earlier.get(sandbox.id.as_str()).copied();
            let cpu_percent = used.zip(then).and_then(|(used, then)| cpu_percent(used, then, passed));
            SandboxRow {
                id: sandbox.id.clone(),
                template: sandbox.template.clone(),
                state: sandbox.state.clone(),
                age_s: now.clock.duration_since(sandbox.created_at).as_secs().max(0),
                create_ms: sandbox.timings.create_ms,
                cpu_percent,
                cpu_seconds: used.map(|used| used.cpu_seconds),
                resident_bytes: used.map(|used| used.resident_bytes),
                private_bytes: used.map(|used| used.private_bytes),
            }
        };
        let mut sandboxes: Vec<_> = now.sandboxes.iter().map(row).collect();
        let busy = |row: &SandboxRow| row.cpu_percent.unwrap_or(-1.0);
        sandboxes.sort_by(|a, b| {
            busy(b).total_cmp(&busy(a)).then(a.age_s.cmp(&b.age_s)).then_with(|| a.id.cmp(&b.id))
        });
        let mut pools: Vec<_> = now.top.pools.iter().map(PoolRow::of).collect();
        pools.sort_by(|a, b| a.template.cmp(&b.template));
        Self { at: now.clock, pools, sandboxes }
    }

    /// As tables. A machine without pools has one table.
    pub(super) fn text(&self) -> String {
        let mut text = self.summary();
        if !self.pools.is_empty() {
            let rows = self.pools.iter().map(PoolRow::cells);
            text += &table(
                &["POOL", "READY", "RUN/PAUSE/PREP", "TARGET", "LIVE", "HITS", "HIT RATE", "WAIT P99"],
                rows,
            );
        }
        let rows = self.sandboxes.iter().map(SandboxRow::cells);
        text + &table(
            &["SANDBOX", "TEMPLATE", "STATE", "AGE", "CREATE", "CPU", "CPU TIME", "MEMORY", "PRIVATE"],
            rows,
        )
    }

    fn summary(&self) -> String {
        let running = self.sandboxes.iter().filter(|row| row.state == "running").count();
        // The sum of no numbers is -0.
        let cpu = self.sandboxes.iter().filter_map(|row| row.cpu_percent).sum::<f64>().abs();
        let private: u64 = self.sandboxes.iter().filter_map(|row| row.private_bytes).sum();
        let all = self.sandboxes.len();
        format!(
            "{all} sandboxes, {running} running; {cpu:.0} % of a processor, {} private memory\n\n",
            mib(Some(private))
        )
    }
}

impl SandboxRow {
    fn cells(&self) -> Vec<String> {
        let shown =
            |value: Option<f64>, unit: &str| value.map_or("-".into(), |value| format!("{value:.1} {unit}"));
        vec![
            self.id.clone(),
            self.template.clone(),
            self.state.clone(),
            span(SignedDuration::from_secs(self.age_s)),
            format!("{:.0} ms", self.create_ms),
            shown(self.cpu_percent, "%"),
            shown(self.cpu_seconds, "s"),
            mib(self.resident_bytes),
            mib(self.private_bytes),
        ]
    }
}

impl PoolRow {
    fn of(pool: &PoolStatus) -> Self {
        let [running, paused, prepared] =
            flames_metrics::TIERS.map(|tier| pool.by_tier.get(&tier).copied().unwrap_or_default());
        Self {
            template: pool.config.template.clone(),
            running,
            paused,
            prepared,
            target: pool.target.running + pool.target.paused + pool.target.prepared,
            ready: pool.ready,
            live: pool.live,
            hits: pool.hits,
            misses: pool.misses,
            hit_rate: pool.hit_rate,
            wait_p99_ms: pool.wait_ms.p99,
        }
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.template.clone(),
            self.ready.to_string(),
            format!("{}/{}/{}", self.running, self.paused, self.prepared),
            self.target.to_string(),
            self.live.to_string(),
            format!("{} of {}", self.hits, self.hits + self.misses),
            self.hit_rate.map_or("-".into(), |rate| format!("{:.0} %", rate * 100.0)),
            format!("{:.1} ms", self.wait_p99_ms),
        ]
    }
}

/// `None` when it is another process than before, or no time has passed.
fn cpu_percent(now: &RunUsageView, then: &RunUsageView, passed: f64) -> Option<f64> {
    (now.pid == then.pid && passed > 0.0)
        .then(|| ((now.cpu_seconds - then.cpu_seconds) / passed * 100.0).max(0.0))
}

fn mib(bytes: Option<u64>) -> String {
    bytes.map_or("-".into(), |bytes| format!("{} MiB", bytes >> 20))
}

fn table(headings: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(headings.to_vec());
    rows.for_each(|row| {
        table.add_row(row);
    });
    format!("{table}\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use flames_api::model::TimingsView;
    use std::time::Duration;

    /// As a daemon sends it.
    fn sandbox(id: &str, second: i64) -> SandboxView {
        let timings = TimingsView { create_ms: 450.0, ..TimingsView::default() };
        let created_at = Timestamp::from_second(second).unwrap();
        let sent = serde_json::json!({
            "id": id, "template": "mini", "state": "running", "metadata": {}, "vcpus": 1, "memory_mib": 128,
            "disk_mib": 64, "created_at": created_at, "timings": timings,
        });
        serde_json::from_value(sent).unwrap()
    }

    fn used(id: &str, pid: u32, cpu_seconds: f64) -> RunUsageView {
        RunUsageView {
            sandbox: Some(id.into()),
            run: format!("{id}-1"),
            pid,
            cpu_seconds,
            resident_bytes: 64 << 20,
            private_bytes: 32 << 20,
        }
    }

    fn look(at: Instant, usage: Vec<RunUsageView>) -> Look {
        let sandboxes = vec![sandbox("old", 100), sandbox("young", 150), sandbox("gone", 120)];
        let top = TopView { usage, pools: vec![] };
        Look { at, clock: Timestamp::from_second(200).unwrap(), sandboxes, top }
    }

    #[test]
    fn nobody_uses_nothing() {
        let text = View::of(&look(Instant::now(), Vec::new()), None).text();
        assert!(text.contains("running; 0 % of a processor, 0 MiB"), "{text}");
    }

    #[test]
    fn the_busiest_is_first_and_use_is_the_difference_of_two_looks() {
        let start = Instant::now();
        let before = look(start, vec![used("old", 1, 10.0), used("young", 2, 1.0)]);
        let now = look(start + Duration::from_secs(2), vec![used("old", 1, 11.0), used("young", 2, 1.0)]);
        let view = View::of(&now, Some(&before));
        let shown: Vec<_> = view.sandboxes.iter().map(|row| (row.id.as_str(), row.cpu_percent)).collect();
        assert_eq!(shown, [("old", Some(50.0)), ("young", Some(0.0)), ("gone", None)]);
        assert!(
            view.text().contains("3 sandboxes, 3 running; 50 % of a processor, 64 MiB"),
            "{}",
            view.text()
        );
    }

    #[test]
    fn another_process_under_the_same_sandbox_has_no_use_yet() {
        let start = Instant::now();
        let before = look(start, vec![used("old", 1, 10.0)]);
        let now = look(start + Duration::from_secs(1), vec![used("old", 9, 0.5)]);
        assert!(View::of(&now, Some(&before)).sandboxes.iter().all(|row| row.cpu_percent.is_none()));
        assert!(!View::of(&now, None).text().contains("POOL"), "no pools, no table of pools");
    }
}
