//! The QEMU driver keeps the promises of a driver, with real guests.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use flames_vmm::conformance::{Factory, Guest};
use flames_vmm::{CONSOLE_FILE, PrepareFor, StopDeadlines};

flames_vmm::vmm_conformance!(support::QemuFactory::find());

/// QEMU drops what a guest prints while no daemon listens, and that may begin and end in the middle of a line.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_that_restarts_cut_in_two_are_not_glued_together() {
    let Some(factory) = support::QemuFactory::find() else { return };
    let spec = factory.spec(Guest::Ready).await;
    let prepared = factory.driver().prepare(spec.clone(), PrepareFor::Boot).await.unwrap();
    let (mut vm, _ready) = prepared.boot().await.unwrap().ready().await.unwrap();
    let handle = vm.handle();
    for _ in 0..100 {
        drop(vm);
        vm = factory.driver().adopt(&handle).await.unwrap().expect("the VM lives");
    }
    vm.stop(StopDeadlines::KILL).await.unwrap();
    let console = std::fs::read_to_string(spec.run_dir.join(CONSOLE_FILE)).unwrap();
    let tick = |line: &str| line.trim().strip_prefix("tick ")?.parse::<u64>().ok();
    let ticks: Vec<u64> = console.lines().filter_map(tick).collect();
    assert!(ticks.len() > 2, "{console}");
    let glued = |line: &&str| line.rfind("tick").is_some_and(|at| at > 0);
    assert_eq!(console.lines().find(glued), None, "{console}");
    // The end of one number at the start of another would be one from far ahead.
    assert_eq!(ticks.iter().max(), ticks.last(), "{console}");
}
