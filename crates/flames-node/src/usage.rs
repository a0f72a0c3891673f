//! What processes use, as `/proc` tells: reads of a few kernel lines each, which wait for no disk.

use crate::{RunInfo, VmId};
use serde::{Deserialize, Serialize};

/// What the VMM of a run uses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunUsage {
    /// Which run.
    pub run: VmId,
    /// Its VMM.
    pub pid: u32,
    /// What it uses.
    #[serde(flatten)]
    pub usage: Usage,
}

/// What a process uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Processor time since its start, in user and kernel mode.
    pub cpu_seconds: f64,
    /// Memory that is resident, in bytes; what several VMs map counts in each of them.
    pub resident_bytes: u64,
    /// Of that, what no file and no other process provides, in bytes.
    pub private_bytes: u64,
    /// Address space, in bytes.
    pub virtual_bytes: u64,
    /// Threads.
    pub threads: u64,
}

/// What the VMMs of these runs use. On this host only: a remote node answers for itself.
pub(crate) fn of_runs(runs: &[RunInfo]) -> Vec<RunUsage> {
    let usage = |run: &RunInfo| {
        let (pid, usage) = (run.facts.pid, of(run.facts.pid)?);
        Some(RunUsage { run: run.run.clone(), pid, usage })
    };
    runs.iter().filter_map(usage).collect()
}

/// What a process uses; `None` when there is none (any more).
pub fn of(pid: u32) -> Option<Usage> {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).ok();
    parse(&read("stat")?, &read("status")?)
}

/// How many file descriptors this process has open.
pub fn own_open_fds() -> u64 {
    // One of them is that of the look itself.
    let count = std::fs::read_dir("/proc/self/fd").map_or(1, |entries| entries.count());
    u64::try_from(count.saturating_sub(1)).unwrap_or(u64::MAX)
}

/// `USER_HZ`: the same on every architecture that Linux runs VMs on.
const TICKS_PER_SECOND: f64 = 100.0;

fn parse(stat: &str, status: &str) -> Option<Usage> {
    // The second field is the program's name in brackets, and may hold anything: the last bracket ends it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |field: usize| fields.get(field)?.parse::<f64>().ok();
    let line = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name))?;
        value.split_whitespace().next()?.parse::<u64>().ok()
    };
    // A zombie has no memory any more.
    let kib = |name| line(name).unwrap_or_default() * 1024;
    Some(Usage {
        cpu_seconds: (ticks(11)? + ticks(12)?) / TICKS_PER_SECOND,
        resident_bytes: kib("VmRSS:"),
        private_bytes: kib("RssAnon:"),
        virtual_bytes: kib("VmSize:"),
        threads: line("Threads:").unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_blanks_does_not_move_the_fields() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 3 0 1 2 3";
        let status = "Name:\ta\nVmSize:\t  2048 kB\nVmRSS:\t 1024 kB\nRssAnon:\t  512 kB\nThreads:\t3\n";
        let usage = parse(stat, status).unwrap();
        assert_eq!((usage.cpu_seconds, usage.resident_bytes, usage.private_bytes), (3.0, 1 << 20, 1 << 19));
        assert_eq!((usage.virtual_bytes, usage.threads), (1 << 21, 3));
    }

    #[test]
    fn this_process_uses_something_and_one_that_is_not_there_nothing() {
        let own = of(std::process::id()).unwrap();
        assert!(own.resident_bytes > 0 && own.virtual_bytes >= own.resident_bytes && own.threads > 0);
        assert!(own_open_fds() > 0);
        assert_eq!(of(u32::MAX), None);
    }
}
