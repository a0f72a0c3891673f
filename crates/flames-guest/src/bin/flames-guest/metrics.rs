//! `/metrics` and `/envs`: what the guest uses, and the sandbox's environment.

use crate::agent::Agent;
use crate::http::{Answer, Failure, json};
use crate::system::now_unix_nanos;
use hyper::StatusCode;
use nix::sys::statvfs::statvfs;
use serde::Serialize;
use std::io;

/// Memory and disk in bytes, time in seconds since 1970.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Metrics {
    ts: i64,
    cpu_count: u64,
    /// Since the last call, of one processor's time times their number.
    cpu_used_pct: f64,
    mem_total: u64,
    mem_used: u64,
    mem_cache: u64,
    disk_used: u64,
    disk_total: u64,
}

/// Processor time since boot, in clock ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CpuTimes {
    busy: u64,
    total: u64,
}

pub(crate) fn answer(agent: &Agent) -> Result<Answer, Failure> {
    measure(agent)
        .map(|metrics| json(&metrics))
        .map_err(|error| Failure::http(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot measure: {error}")))
}

/// The sandbox's environment.
pub(crate) fn environment(agent: &Agent) -> Answer {
    json(&agent.settings().env)
}

fn measure(agent: &Agent) -> io::Result<Metrics> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let memory = std::fs::read_to_string("/proc/meminfo")?;
    let disk = statvfs("/")?;
    let (now, count) = cpu_times(&stat);
    let total = memory_field(&memory, "MemTotal:");
    Ok(Metrics {
        ts: now_unix_nanos() / 1_000_000_000,
        cpu_count: count,
        cpu_used_pct: used_percent(agent.swap_cpu_times(now), now),
        mem_total: total,
        mem_used: total.saturating_sub(memory_field(&memory, "MemAvailable:")),
        mem_cache: memory_field(&memory, "Cached:"),
        disk_used: (disk.blocks() - disk.blocks_free()) * disk.fragment_size(),
        disk_total: disk.blocks() * disk.fragment_size(),
    })
}

/// The first line of `/proc/stat`, and how many processors follow it.
fn cpu_times(stat: &str) -> (CpuTimes, u64) {
    let mut lines = stat.lines().take_while(|line| line.starts_with("cpu"));
    let fields = lines.next().unwrap_or_default().split_ascii_whitespace().skip(1);
    // user nice system idle iowait irq softirq steal; guest time is in user already.
    let ticks: Vec<u64> = fields.take(8).map_while(|field| field.parse().ok()).collect();
    let total = ticks.iter().sum();
    let idle: u64 = ticks.iter().skip(3).take(2).sum();
    (CpuTimes { busy: total - idle, total }, lines.count() as u64)
}

fn used_percent(before: CpuTimes, now: CpuTimes) -> f64 {
    let ticks =
        |newer: u64, older: u64| f64::from(u32::try_from(newer.saturating_sub(older)).unwrap_or(u32::MAX));
    let total = ticks(now.total, before.total);
    if total == 0.0 {
        return 0.0;
    }
    (ticks(now.busy, before.busy) / total * 10_000.0).round() / 100.0
}

/// A line of `/proc/meminfo` is in KiB.
fn memory_field(memory: &str, name: &str) -> u64 {
    let value = memory
        .lines()
        .find_map(|line| line.strip_prefix(name)?.split_ascii_whitespace().next()?.parse::<u64>().ok());
    value.unwrap_or_default() * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "cpu  100 0 50 800 50 0 0 0 0 0\ncpu0 50 0 25 400 25 0 0 0 0 0\ncpu1 50 0 25 400 25 0 0 0 0 0\nintr 5\n";

    #[test]
    fn waiting_is_not_use() {
        let (times, count) = cpu_times(STAT);
        assert_eq!((times, count), (CpuTimes { busy: 150, total: 1000 }, 2));
        assert!((used_percent(CpuTimes::default(), times) - 15.0).abs() < f64::EPSILON);
    }

    #[test]
    fn two_measures_at_the_same_time_divide_by_nothing() {
        let times = CpuTimes { busy: 1, total: 2 };
        assert!(used_percent(times, times).abs() < f64::EPSILON);
    }

    #[test]
    fn memory_is_told_in_bytes() {
        assert_eq!(memory_field("MemTotal:  2048 kB\nCached: 1 kB\n", "MemTotal:"), 2 << 20);
        assert_eq!(memory_field("", "MemTotal:"), 0);
    }
}
