//! What the jail costs a restore: `cargo bench -p flames-vmm-qemu --bench jail [-- RUNS]`, as root.
//!
//! Clones of one snapshot, in a jail that was ready, in one that is made when it is needed, and without, in turn, so that whatever else the host does falls on both.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../tests/support/mod.rs"]
mod support;

use flames_vmm::jail::{Cgroups, JailConfig, JailMode, Lease, Needs};
use flames_vmm::{PrepareFor, SnapshotParts, StopDeadlines, VmmDriver};
use flames_vmm_qemu::{QemuConfig, QemuDriver};
use std::time::Instant;
use support::agent::AgentVm;

const RUNS: usize = 20;

#[tokio::main]
async fn main() {
    // Test runners start benches, too, to ask for a list of tests: there are none.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let runs = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(RUNS);
    let jail = support::config().jail;
    let open = JailConfig { mode: JailMode::NoneInsecure, ..jail.clone() };
    let late = JailConfig { ready: 0, ..jail.clone() };
    let [jailed, late, open] =
        [jail, late, open].map(|jail| QemuDriver::new(QemuConfig { jail, ..support::config() }));
    let Some(source) = AgentVm::make("mini").await else { return };
    let prepared = jailed.prepare(source.spec.clone(), PrepareFor::Boot).await.unwrap();
    let (vm, _ready) = prepared.boot().await.unwrap().ready().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    vm.pause().await.unwrap();
    let parts = vm.snapshot(folder.path()).await.unwrap();
    vm.stop(StopDeadlines::KILL).await.unwrap();

    let (mut with, mut made_late, mut without, mut leases) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs {
        with.push(restore(&jailed, &source, &parts).await);
        made_late.push(restore(&late, &source, &parts).await);
        without.push(restore(&open, &source, &parts).await);
        leases.push(lease());
    }
    print("jailed", with);
    print("late", made_late);
    print("open", without);
    print("lease", leases);
}

/// Milliseconds from the spec to virtual CPUs that run.
async fn restore(driver: &QemuDriver, source: &AgentVm, parts: &SnapshotParts) -> f64 {
    let clone = source.clone_of_disk("mini").await;
    let start = Instant::now();
    let prepared = driver.prepare(clone.spec.clone(), PrepareFor::Restore(parts.clone())).await.unwrap();
    let vm = prepared.restore().await.unwrap();
    let taken = start.elapsed().as_secs_f64() * 1000.0;
    vm.stop(StopDeadlines::KILL).await.unwrap();
    taken
}

/// A user id and control groups.
fn lease() -> f64 {
    let (config, host) = (support::config().jail, Cgroups::find());
    let needs = Needs { memory_bytes: 1 << 28, vcpus: 1, other_threads: 16, disks: Vec::new() };
    let start = Instant::now();
    let lease = Lease::take(&config, &host).unwrap();
    lease.limit(&config, &host, &needs).unwrap();
    let taken = start.elapsed().as_secs_f64() * 1000.0;
    drop(lease);
    taken
}

fn print(name: &str, mut times: Vec<f64>) {
    times.sort_by(f64::total_cmp);
    let [min, median, max] = [0, times.len() / 2, times.len() - 1].map(|index| times[index]);
    println!("{name:8} min {min:7.1}  median {median:7.1}  max {max:7.1} ms, {} runs", times.len());
}
