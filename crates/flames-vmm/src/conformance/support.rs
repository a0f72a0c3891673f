//! What the cases have in common.

use super::{CONSOLE_LIMIT, Factory, Guest};
use crate::{
    CONSOLE_FILE, Error, HANDLE_FILE, PrepareFor, RunningVm, SnapshotParts, StopDeadlines, VmHandle, VmSpec,
};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

/// A guest's last line before it powers off because it was asked to.
pub(super) const FAREWELL: &str = "powering off";
/// Longer than anything takes that is going to happen, on a busy host without hardware virtualisation.
pub(super) const PATIENCE: Duration = Duration::from_secs(40);
/// Long enough for many ticks.
pub(super) const A_WHILE: Duration = Duration::from_millis(600);
/// A graceful deadline that a guest meets, and a forced one.
pub(super) const PATIENT: StopDeadlines = StopDeadlines { graceful: PATIENCE, forced: PATIENCE };

pub(super) async fn boot(factory: &dyn Factory, guest: Guest) -> (VmSpec, Box<dyn RunningVm>) {
    let spec = factory.spec(guest).await;
    let prepared = factory.driver().prepare(spec.clone(), PrepareFor::Boot).await.unwrap();
    let booting = prepared.boot().await.unwrap();
    let (vm, _ready) = within_patience(booting.ready()).await.unwrap();
    (spec, vm)
}

pub(super) async fn fail_to_boot(factory: &dyn Factory, guest: Guest) -> (VmSpec, Error) {
    let spec = factory.spec(guest).await;
    let prepared = factory.driver().prepare(spec.clone(), PrepareFor::Boot).await.unwrap();
    let booting = prepared.boot().await.unwrap();
    let error = within_patience(booting.ready()).await.expect_err("this guest is never ready");
    (spec, error)
}

pub(super) async fn refusal(factory: &dyn Factory, spec: VmSpec) -> Error {
    let error =
        factory.driver().prepare(spec.clone(), PrepareFor::Boot).await.expect_err("it must be refused");
    nothing_lives_in(&spec.run_dir).await;
    error
}

pub(super) async fn console_says_its_last_line_within_the_limit(spec: &VmSpec) {
    eventually("the guest prints its last line", async || {
        let console = tokio::fs::read(spec.run_dir.join(CONSOLE_FILE)).await.unwrap_or_default();
        assert!(console.len() as u64 <= CONSOLE_LIMIT, "{} bytes of console", console.len());
        String::from_utf8_lossy(&console).contains("the last line")
    })
    .await;
}

pub(super) async fn kill(vm: Box<dyn RunningVm>) {
    vm.stop(StopDeadlines::KILL).await.unwrap();
}

pub(super) async fn stored_handle(spec: &VmSpec) -> VmHandle {
    let stored = tokio::fs::read(spec.run_dir.join(HANDLE_FILE)).await.unwrap();
    serde_json::from_slice(&stored).unwrap()
}

pub(super) async fn gone(factory: &dyn Factory, handle: &VmHandle) {
    eventually("the process is gone", async || !factory.is_alive(handle).await).await;
}

/// No handle and no socket; waits, since a process that was let go ends in its own time.
pub(super) async fn nothing_lives_in(run_dir: &Path) {
    eventually("handle and sockets are gone from the run directory", async || {
        let names = std::fs::read_dir(run_dir).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names = names.map(|name| name.to_string_lossy().into_owned());
        !names.any(|name| name == HANDLE_FILE || name.ends_with(".sock"))
    })
    .await;
}

/// The last "tick N" on the console; 0 before the first.
pub(super) async fn ticks(spec: &VmSpec) -> u64 {
    let console = tokio::fs::read(spec.run_dir.join(CONSOLE_FILE)).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&console).into_owned();
    // The text after the last newline may be half a line.
    let (whole_lines, _) = text.rsplit_once('\n').unwrap_or_default();
    let number = |line: &str| line.trim().strip_prefix("tick ")?.parse().ok();
    whole_lines.lines().rev().find_map(number).unwrap_or(0)
}

pub(super) async fn ticks_after(spec: &VmSpec, before: u64) -> u64 {
    eventually("the guest runs", async || ticks(spec).await > before).await;
    ticks(spec).await
}

/// The ticks once what the guest printed before its pause has arrived.
pub(super) async fn settled_ticks(spec: &VmSpec) -> u64 {
    tokio::time::sleep(A_WHILE / 3).await;
    ticks(spec).await
}

pub(super) async fn within_patience<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes too long")
}

/// Asks again and again: what is observed from outside sends no event.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < PATIENCE, "it does not come about that {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A paused VM and a snapshot of it.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) spec: VmSpec,
    pub(super) vm: Box<dyn RunningVm>,
    pub(super) parts: SnapshotParts,
    /// What the guest had counted.
    pub(super) ticks: u64,
}

/// `None` if this driver has no snapshots; that it says so is a case of its own.
pub(super) async fn snapshot_of(factory: &dyn Factory, guest: Guest) -> Option<Source> {
    if !factory.driver().capabilities().snapshots {
        return None;
    }
    let (spec, vm) = boot(factory, guest).await;
    // Enough for a clone that began anew to be told from one that went on.
    ticks_after(&spec, 5).await;
    let (parts, ticks) = pause_and_snapshot(&spec, vm.as_ref(), "snapshot").await;
    Some(Source { spec, vm, parts, ticks })
}

/// Into a new folder of that name in the run directory.
pub(super) async fn pause_and_snapshot(
    spec: &VmSpec,
    vm: &dyn RunningVm,
    name: &str,
) -> (SnapshotParts, u64) {
    vm.pause().await.unwrap();
    let ticks = settled_ticks(spec).await;
    let parts = vm.snapshot(&new_folder(spec, name)).await.unwrap();
    (parts, ticks)
}

pub(super) fn new_folder(spec: &VmSpec, name: &str) -> PathBuf {
    let folder = spec.run_dir.join(name);
    std::fs::create_dir(&folder).unwrap();
    folder
}

pub(super) async fn restore(factory: &dyn Factory, parts: &SnapshotParts) -> (VmSpec, Box<dyn RunningVm>) {
    let spec = factory.spec(Guest::Ready).await;
    let purpose = PrepareFor::Restore(parts.clone());
    let prepared = within_patience(factory.driver().prepare(spec.clone(), purpose)).await.unwrap();
    let vm = within_patience(prepared.restore()).await.unwrap();
    (spec, vm)
}

/// Restoring fails with this, in whichever phase, and no process stays.
pub(super) async fn refused_restore(factory: &dyn Factory, parts: SnapshotParts) -> Error {
    let spec = factory.spec(Guest::Ready).await;
    let prepared = within_patience(factory.driver().prepare(spec.clone(), PrepareFor::Restore(parts))).await;
    let error = match prepared {
        Err(error) => error,
        Ok(prepared) => within_patience(prepared.restore()).await.expect_err("it must be refused"),
    };
    nothing_lives_in(&spec.run_dir).await;
    error
}

pub(super) fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).unwrap().next().is_none()
}
