//! How long the driver takes from a spec to a ready agent, by phase: `cargo bench -p flames-vmm-qemu [-- RUNS]`.
//!
//! `prepare` starts QEMU up to its first instruction; `ready` is the guest's kernel and agent. The floor without
//! any of Flames is `bench/plain-qemu.py`.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../tests/support/mod.rs"]
mod support;

use flames_vmm::{PrepareFor, StopDeadlines, VmmDriver};
use flames_vmm_qemu::{QemuConfig, QemuDriver};
use std::time::Instant;
use support::agent::AgentVm;

const RUNS: usize = 12;
const PHASES: [&str; 4] = ["prepare", "boot", "ready", "total"];

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
        let mut times = Vec::new();
        for _ in 0..runs {
            let Some(vm) = AgentVm::make(image).await else { return };
            times.push(boot_once(&driver, &vm).await);
        }
        print(image, &times);
    }
}

/// Milliseconds per phase.
async fn boot_once(driver: &QemuDriver, vm: &AgentVm) -> [f64; 4] {
    let start = Instant::now();
    let ms = || start.elapsed().as_secs_f64() * 1000.0;
    let prepared = driver.prepare(vm.spec.clone(), PrepareFor::Boot).await.unwrap();
    let prepared_at = ms();
    let booting = prepared.boot().await.unwrap();
    let booted_at = ms();
    let (running, _ready) = booting.ready().await.unwrap();
    let ready_at = ms();
    running.stop(StopDeadlines::KILL).await.unwrap();
    [prepared_at, booted_at - prepared_at, ready_at - booted_at, ready_at]
}

fn print(image: &str, times: &[[f64; 4]]) {
    for (phase, name) in PHASES.iter().enumerate() {
        let mut sorted: Vec<f64> = times.iter().map(|run| run[phase]).collect();
        sorted.sort_by(f64::total_cmp);
        let [min, median, max] = [0, sorted.len() / 2, sorted.len() - 1].map(|index| sorted[index]);
        println!("{image:5} {name:8} min {min:7.1}  median {median:7.1}  max {max:7.1} ms");
    }
}
