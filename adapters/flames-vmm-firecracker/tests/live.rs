//! What is changed in a guest that runs: its limits, its balloon, its metadata.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use flames_vmm::conformance::{Factory, Guest, eventually};
use flames_vmm::{
    BootChannel, CONSOLE_FILE, PrepareFor, RunningVm, SnapshotParts, StopDeadlines, VmSpec, VmmDriver,
};
use flames_vmm_firecracker::{BalloonConfig, FirecrackerConfig, Limit};
use serde_json::{Value, json};
use std::path::Path;
use support::{FirecrackerFactory, REGION, api, inflate};

#[tokio::test]
async fn a_restored_guest_has_the_limits_of_today_whatever_its_snapshot_had() {
    let Some(factory) = FirecrackerFactory::with_devices().await else { return };
    let template = factory.template();
    let (spec, vm) = restore(&factory, limited(factory.config()), &template).await;
    assert_eq!(limits(&spec.run_dir), limits_of(1_000_000, 10, 7));
    vm.pause().await.unwrap();
    let folder = factory.folder().join("limited");
    std::fs::create_dir(&folder).unwrap();
    let with_limits = vm.snapshot(&folder).await.unwrap();
    end(vm).await;

    let (spec, vm) = restore(&factory, factory.config().clone(), &with_limits).await;
    assert_eq!(limits(&spec.run_dir), [Value::Null, Value::Null, Value::Null]);
    end(vm).await;
}

#[tokio::test]
async fn an_adopted_guest_has_the_limits_of_its_new_daemon_and_runs_on() {
    let Some(factory) = FirecrackerFactory::with_devices().await else { return };
    let (spec, vm) = restore(&factory, factory.config().clone(), &factory.template()).await;
    let handle = vm.handle();
    drop(vm);
    let config = FirecrackerConfig {
        balloon: Some(BalloonConfig {
            statistics_interval_s: 2,
            ..factory.config().balloon.clone().unwrap()
        }),
        ..limited(factory.config())
    };
    let vm = factory.driver_with(config).adopt(&handle).await.unwrap().expect("it lives");
    assert_eq!(limits(&spec.run_dir), limits_of(1_000_000, 10, 7));
    let (_, balloon) = api(&spec.run_dir, "GET", "/balloon", &Value::Null);
    assert_eq!(balloon["stats_polling_interval_s"], 2);
    end(vm).await;
}

#[tokio::test]
async fn a_guest_gives_memory_to_its_balloon_and_gets_it_back() {
    let Some(factory) = FirecrackerFactory::with_devices().await else { return };
    let (spec, vm) = boot(&factory, "ready").await;
    // Enough for whole blocks of the guest's allocator: it reports no smaller ones.
    for amount in [24, 0] {
        inflate(&spec, amount).await;
    }
    // What came back from the balloon is free: the guest reports it, and it goes back to the host again.
    eventually("free pages are reported", async || reports(&spec.run_dir) > 0).await;
    end(vm).await;
}

/// Of free pages, as often as Firecracker's metrics tell so far.
fn reports(run_dir: &Path) -> u64 {
    api(run_dir, "PUT", "/actions", &json!({ "action_type": "FlushMetrics" }));
    let metrics = std::fs::read_to_string(run_dir.join("metrics.log")).unwrap();
    let told = metrics.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    told.filter_map(|told| told["balloon"]["free_page_report_count"].as_u64()).sum()
}

#[tokio::test]
async fn a_restored_guest_is_told_todays_metadata_when_it_has_a_token() {
    let Some(factory) = FirecrackerFactory::with_devices().await else { return };
    let (spec, vm) = boot(&factory, "metadata").await;
    let said = |begins: &str| {
        let console = std::fs::read_to_string(spec.run_dir.join(CONSOLE_FILE)).unwrap_or_default();
        console.lines().find(|line| line.starts_with(begins) && line.ends_with('.')).map(str::to_owned)
    };
    eventually("it was answered", async || said("with a token").is_some()).await;
    let refused = said("without a token").unwrap();
    assert!(refused.contains("401") && !refused.contains(REGION), "{refused}");
    let told = said("with a token").unwrap();
    assert!(told.contains("200") && told.contains(REGION), "{told}");
    end(vm).await;
}

/// Its drive, and what it sends.
fn limited(config: &FirecrackerConfig) -> FirecrackerConfig {
    let drive_limit = Limit { bytes_per_second: Some(1_000_000), operations_per_second: Some(10) };
    let send_limit = Limit { bytes_per_second: Some(7), operations_per_second: None };
    FirecrackerConfig { drive_limit, send_limit, ..config.clone() }
}

fn limits_of(drive_bytes: i64, drive_operations: i64, sent_bytes: i64) -> [Value; 3] {
    let bucket = |size: i64| json!({"size": size, "one_time_burst": null, "refill_time": 1000});
    [
        json!({"bandwidth": bucket(drive_bytes), "ops": bucket(drive_operations)}),
        Value::Null,
        json!({"bandwidth": bucket(sent_bytes), "ops": null}),
    ]
}

/// Of the drive, of what is received and of what is sent, as Firecracker has them.
fn limits(run_dir: &Path) -> [Value; 3] {
    let (_, machine) = api(run_dir, "GET", "/vm/config", &Value::Null);
    let interface = &machine["network-interfaces"][0];
    [&machine["drives"][0]["rate_limiter"], &interface["rx_rate_limiter"], &interface["tx_rate_limiter"]]
        .map(Clone::clone)
}

async fn restore(
    factory: &FirecrackerFactory,
    config: FirecrackerConfig,
    parts: &SnapshotParts,
) -> (VmSpec, Box<dyn RunningVm>) {
    let spec = factory.spec(Guest::Ready).await;
    let driver = factory.driver_with(config);
    let prepared = driver.prepare(spec.clone(), PrepareFor::Restore(parts.clone())).await.unwrap();
    (spec, prepared.restore().await.unwrap())
}

/// A clone of the guest that waits for its greeting, which behaves so.
async fn boot(factory: &FirecrackerFactory, behaviour: &str) -> (VmSpec, Box<dyn RunningVm>) {
    let greeting = format!(r#"{{"controlToken":"00","test":"{behaviour}"}}"#);
    let spec = VmSpec { boot_channel: BootChannel { greeting }, ..factory.spec(Guest::Ready).await };
    let prepared = factory.driver().prepare(spec.clone(), PrepareFor::Boot).await.unwrap();
    let (vm, _ready) = prepared.boot().await.unwrap().ready().await.unwrap();
    (spec, vm)
}

async fn end(vm: Box<dyn RunningVm>) {
    vm.stop(StopDeadlines::KILL).await.unwrap();
}
