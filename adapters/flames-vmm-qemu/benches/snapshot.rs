//! How long a snapshot and a restore take, by phase: `cargo bench -p flames-vmm-qemu --bench snapshot [-- RUNS]`.
//!
//! A guest with the real agent is snapshotted while paused, its disk copied; each clone is restored with a disk of
//! its own up to the agent's first answer over TCP; then a clone is snapshotted in turn.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../tests/support/mod.rs"]
mod support;

use flames_vmm::{PrepareFor, RunningVm, SnapshotParts, StopDeadlines, VmmDriver};
use flames_vmm_qemu::{QemuConfig, QemuDriver};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;
use support::agent::AgentVm;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const RUNS: usize = 12;
const RESTORE: [&str; 4] = ["prepare", "restore", "answer", "total"];
const SNAPSHOT: [&str; 3] = ["pause", "snapshot", "resume"];

#[tokio::main]
async fn main() {
    // Test runners start benches, too, to ask for a list of tests: there are none.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let runs = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(RUNS);
    let driver = QemuDriver::new(QemuConfig::default());
    println!("QEMU {}", driver.version().await.unwrap());
    for image in ["mini", "base"] {
        let Some(source) = AgentVm::make(image).await else { return };
        measure(&driver, image, &source, runs).await;
    }
}

async fn measure(driver: &QemuDriver, image: &str, source: &AgentVm, runs: usize) {
    let prepared = driver.prepare(source.spec.clone(), PrepareFor::Boot).await.unwrap();
    let (vm, _ready) = prepared.boot().await.unwrap().ready().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut snapshots = Vec::new();
    for run in 0..runs {
        snapshots.push(snapshot(vm.as_ref(), &folder.path().join(run.to_string())).await.0);
    }
    vm.pause().await.unwrap();
    let parts = vm.snapshot(&fresh(&folder.path().join("of-the-booted"))).await.unwrap();
    let blocks = std::fs::metadata(&parts.memory).unwrap().blocks();
    println!(
        "{image}: memory {} MiB on disk, device state {} bytes",
        blocks >> 11,
        size(&parts.device_state)
    );
    print(image, "booted", &SNAPSHOT, &snapshots);

    let (mut restores, mut snapshots) = (Vec::new(), Vec::new());
    for run in 0..runs {
        let (times, clone) = restore(driver, image, source, &parts).await;
        restores.push(times);
        snapshots.push(snapshot(clone.as_ref(), &folder.path().join(format!("clone-{run}"))).await.0);
        clone.stop(StopDeadlines::KILL).await.unwrap();
    }
    print(image, "restore", &RESTORE, &restores);
    print(image, "clone", &SNAPSHOT, &snapshots);
    vm.stop(StopDeadlines::KILL).await.unwrap();
}

async fn snapshot(vm: &dyn RunningVm, folder: &Path) -> (Vec<f64>, SnapshotParts) {
    let folder = fresh(folder);
    let start = Instant::now();
    let ms = || start.elapsed().as_secs_f64() * 1000.0;
    vm.pause().await.unwrap();
    let paused_at = ms();
    let parts = vm.snapshot(&folder).await.unwrap();
    let written_at = ms();
    vm.resume().await.unwrap();
    let times = vec![paused_at, written_at - paused_at, ms() - written_at];
    std::fs::remove_dir_all(folder).unwrap();
    (times, parts)
}

async fn restore(
    driver: &QemuDriver,
    image: &str,
    source: &AgentVm,
    parts: &SnapshotParts,
) -> (Vec<f64>, Box<dyn RunningVm>) {
    let clone = source.clone_of_disk(image).await;
    let start = Instant::now();
    let ms = || start.elapsed().as_secs_f64() * 1000.0;
    let prepared = driver.prepare(clone.spec.clone(), PrepareFor::Restore(parts.clone())).await.unwrap();
    let prepared_at = ms();
    let vm = prepared.restore().await.unwrap();
    let restored_at = ms();
    answer(clone.port).await;
    let answered_at = ms();
    (vec![prepared_at, restored_at - prepared_at, answered_at - restored_at, answered_at], vm)
}

async fn answer(port: u16) {
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: guest\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
}

fn fresh(folder: &Path) -> std::path::PathBuf {
    std::fs::create_dir(folder).unwrap();
    folder.to_owned()
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().len()
}

fn print(image: &str, what: &str, phases: &[&str], times: &[Vec<f64>]) {
    for (phase, name) in phases.iter().enumerate() {
        let mut sorted: Vec<f64> = times.iter().map(|run| run[phase]).collect();
        sorted.sort_by(f64::total_cmp);
        let [min, median, max] = [0, sorted.len() / 2, sorted.len() - 1].map(|index| sorted[index]);
        println!("{image:5} {what:8} {name:9} min {min:7.1}  median {median:7.1}  max {max:7.1} ms");
    }
}
