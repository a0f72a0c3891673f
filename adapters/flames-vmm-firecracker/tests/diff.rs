//! Snapshots of differences: what Firecracker is asked for, and that what comes out is whole.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use flames_vmm::conformance::{Factory, Guest};
use flames_vmm::{PrepareFor, SnapshotParts, StopDeadlines, VmSpec};
use support::FirecrackerFactory;

#[tokio::test]
async fn only_what_was_written_is_written_again_and_the_snapshot_is_whole() {
    let Some(factory) = FirecrackerFactory::with_tracked_pages().await else { return };
    let (spec, chain) = two_snapshots(&factory).await;
    assert_eq!(taken(&spec), ["diff", "diff"]);
    let length = std::fs::metadata(&factory.template().memory).unwrap().len();
    for parts in &chain {
        assert_eq!(std::fs::metadata(&parts.memory).unwrap().len(), length);
    }
}

#[tokio::test]
async fn without_tracking_all_of_the_memory_is_written() {
    let Some(factory) = FirecrackerFactory::jailed().await else { return };
    let (spec, _) = two_snapshots(&factory).await;
    assert_eq!(taken(&spec), ["full", "full"]);
}

/// Of a clone of the template, greeted, with some of its life between them.
async fn two_snapshots(factory: &FirecrackerFactory) -> (VmSpec, Vec<SnapshotParts>) {
    let spec = factory.spec(Guest::Ready).await;
    let prepared = factory.driver().prepare(spec.clone(), PrepareFor::Boot).await.unwrap();
    let (vm, _ready) = prepared.boot().await.unwrap().ready().await.unwrap();
    let mut chain = Vec::new();
    for name in ["first", "second"] {
        vm.pause().await.unwrap();
        let folder = spec.run_dir.join(name);
        std::fs::create_dir(&folder).unwrap();
        chain.push(vm.snapshot(&folder).await.unwrap());
        vm.resume().await.unwrap();
    }
    vm.stop(StopDeadlines::KILL).await.unwrap();
    (spec, chain)
}

/// What Firecracker says that it did.
fn taken(spec: &VmSpec) -> Vec<&'static str> {
    let log = std::fs::read_to_string(spec.run_dir.join("vmm.log")).unwrap();
    let kind = |line: &str| {
        ["diff", "full"].into_iter().find(|kind| line.contains(&format!("'create {kind} snapshot'")))
    };
    // Once by the VMM and once by its API.
    let requests = log.lines().filter(|line| line.contains("VMM action took"));
    requests.filter_map(kind).collect()
}
