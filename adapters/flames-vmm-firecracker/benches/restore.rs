//! Restores on demand, for `bench/firecracker-raw.py`, which does the same by hand and compares.
//!
//! Prints one JSON line about the snapshot, then for each line `restore` on its standard input the milliseconds
//! that one took, and the process id of a VM that lives until `stop` is said. `answer` does the same up to the
//! guest's first answer. `userfaultfd` behind either takes the memory from a page-fault handler.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../tests/support/mod.rs"]
mod support;

use flames_vmm::conformance::{Factory, Guest};
use flames_vmm::{PrepareFor, StopDeadlines, VmmDriver};
use serde_json::json;
use std::time::Instant;
use support::FirecrackerFactory;

#[tokio::main]
async fn main() {
    let Some(factory) = FirecrackerFactory::jailed().await else { return };
    let Some(faulting) = FirecrackerFactory::with_page_faults().await else { return };
    let driver = factory.driver_with(factory.config().clone());
    let faulting = faulting.driver_with(faulting.config().clone());
    let spec = factory.spec(Guest::Ready).await;
    let parts = factory.template();
    let facts = json!({
        "version": driver.version().await.unwrap(),
        "memory": parts.memory,
        "deviceState": parts.device_state,
        "disk": spec.disks[0].path,
        "uid": factory.config().jail.first_uid + 500,
    });
    println!("{facts}");
    let mut alive = Vec::new();
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let (what, memory) = line.split_once(' ').unwrap_or((&line, "file"));
        let driver = if memory == "userfaultfd" { &faulting } else { &driver };
        if what == "answer" {
            let spec = factory.spec(Guest::Ready).await;
            let started = Instant::now();
            let prepared = driver.prepare(spec, PrepareFor::Boot).await.unwrap();
            let prepared_ms = ms(started);
            let (vm, _ready) = prepared.boot().await.unwrap().ready().await.unwrap();
            println!("{}", json!({"ms": ms(started), "preparedMs": prepared_ms, "pid": vm.handle().pid}));
            alive.push(vm);
        } else if what == "restore" {
            let spec = factory.spec(Guest::Ready).await;
            let started = Instant::now();
            let prepared = driver.prepare(spec, PrepareFor::Restore(parts.clone())).await.unwrap();
            let prepared_ms = ms(started);
            let vm = prepared.restore().await.unwrap();
            println!("{}", json!({"ms": ms(started), "preparedMs": prepared_ms, "pid": vm.handle().pid}));
            alive.push(vm);
        } else {
            for vm in alive.drain(..) {
                vm.stop(StopDeadlines::KILL).await.unwrap();
            }
            println!("{{}}");
        }
    }
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}
