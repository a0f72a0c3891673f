//! Guests that go on from a snapshot.

use super::support::{
    A_WHILE, FAREWELL, PATIENCE, PATIENT, Source, boot, kill, new_folder, nothing_lives_in,
    pause_and_snapshot, restore, settled_ticks, snapshot_of, ticks, ticks_after, within_patience,
};
use super::{Factory, Guest};
use crate::{
    CONSOLE_FILE, ErrorKind, ExitCause, PrepareFor, RunningVm, SnapshotParts, StopDeadlines, VmSpec, VmState,
};
use std::hash::{DefaultHasher, Hasher};
use std::io::Read;
use std::path::Path;
use tokio::time::Instant;

/// A driver either continues guests from snapshots or says that it cannot; it never half does.
pub async fn snapshots_work_or_are_unsupported(factory: &dyn Factory) {
    let driver = factory.driver();
    let (spec, vm) = boot(factory, Guest::Ready).await;
    vm.pause().await.unwrap();
    let taken = vm.snapshot(&new_folder(&spec, "snapshot")).await;
    if driver.capabilities().snapshots {
        let (_, clone) = restore(factory, &taken.unwrap()).await;
        kill(clone).await;
    } else {
        assert_eq!(taken.unwrap_err().kind(), ErrorKind::Unsupported);
        let nothing = SnapshotParts {
            memory: "/nonexistent/memory".into(),
            device_state: "/nonexistent/state".into(),
            vmm_version: String::new(),
        };
        let clone = factory.spec(Guest::Ready).await;
        let error = driver.prepare(clone, PrepareFor::Restore(nothing)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
    kill(vm).await;
}

/// Also when the source is gone. The clone's console begins there, in a file of its own.
pub async fn a_restored_guest_continues_where_its_snapshot_left_it(factory: &dyn Factory) {
    let Some(source) = snapshot_of(factory, Guest::Ready).await else { return };
    let pid = source.vm.handle().pid;
    kill(source.vm).await;
    let (spec, clone) = restore(factory, &source.parts).await;
    let description = clone.describe().await.unwrap();
    assert_eq!(description.state, VmState::Running);
    assert_ne!(description.pid, pid);
    ticks_after(&spec, source.ticks + 2).await;
    let first = first_tick(&spec).await;
    assert!((source.ticks..=source.ticks + 2).contains(&first), "{first} comes after {}", source.ticks);
    kill(clone).await;
}

/// A snapshot takes nothing from its source.
pub async fn a_source_goes_on_after_its_snapshot_and_can_be_snapshotted_again(factory: &dyn Factory) {
    let Some(Source { spec, vm, parts, ticks }) = snapshot_of(factory, Guest::Ready).await else { return };
    assert_eq!(vm.describe().await.unwrap().state, VmState::Paused);
    vm.resume().await.unwrap();
    ticks_after(&spec, ticks).await;
    let (again, later) = pause_and_snapshot(&spec, vm.as_ref(), "again").await;
    assert!(later > ticks);
    for (parts, ticks) in [(parts, ticks), (again, later)] {
        let (spec, clone) = restore(factory, &parts).await;
        ticks_after(&spec, ticks).await;
        kill(clone).await;
    }
    kill(vm).await;
}

/// Clones share the parts and write to none.
pub async fn many_clones_run_at_once_and_leave_the_snapshot_as_it_was(factory: &dyn Factory) {
    let Some(Source { vm, parts, ticks, .. }) = snapshot_of(factory, Guest::Ready).await else { return };
    vm.resume().await.unwrap();
    let before = (content(&parts.memory), content(&parts.device_state));
    let clone = || restore(factory, &parts);
    let (a, b, c, d, e) = tokio::join!(clone(), clone(), clone(), clone(), clone());
    let clones = [a, b, c, d, e];
    for (spec, _) in &clones {
        ticks_after(spec, ticks + 2).await;
    }
    let pids: std::collections::HashSet<u32> = clones.iter().map(|(_, vm)| vm.handle().pid).collect();
    assert_eq!(pids.len(), clones.len());
    for (_, clone) in clones {
        kill(clone).await;
    }
    assert_eq!((content(&parts.memory), content(&parts.device_state)), before);
    kill(vm).await;
}

/// What a clone wrote is in its own snapshot, with what it only read.
pub async fn a_snapshot_of_a_clone_needs_nothing_of_the_first_snapshot(factory: &dyn Factory) {
    let Some(source) = snapshot_of(factory, Guest::Ready).await else { return };
    kill(source.vm).await;
    let (spec, clone) = restore(factory, &source.parts).await;
    ticks_after(&spec, source.ticks + 3).await;
    // Gone is its name; the clone still maps it.
    std::fs::remove_file(&source.parts.memory).unwrap();
    let (parts, ticks) = pause_and_snapshot(&spec, clone.as_ref(), "snapshot").await;
    std::fs::remove_file(&source.parts.device_state).unwrap();
    kill(clone).await;
    let (spec, grandchild) = restore(factory, &parts).await;
    ticks_after(&spec, ticks + 3).await;
    let first = first_tick(&spec).await;
    assert!((ticks..=ticks + 2).contains(&first), "{first} comes after {ticks}");
    stop_gracefully(grandchild.as_ref()).await;
}

/// A restored VM is as good as one that booted.
pub async fn a_restored_vm_can_be_paused_resumed_and_stopped(factory: &dyn Factory) {
    let Some((spec, vm)) = restored(factory, Guest::Ready).await else { return };
    vm.pause().await.unwrap();
    assert_eq!(vm.describe().await.unwrap().state, VmState::Paused);
    let paused_at = settled_ticks(&spec).await;
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(ticks(&spec).await, paused_at, "the guest ran while it was paused");
    vm.resume().await.unwrap();
    ticks_after(&spec, paused_at).await;
    stop_gracefully(vm.as_ref()).await;
}

/// It outlives its daemon, and the next daemon finds out by itself where its memory is.
pub async fn a_restored_vm_is_adopted_and_snapshotted_by_the_next_daemon(factory: &dyn Factory) {
    let Some((spec, vm)) = restored(factory, Guest::Ready).await else { return };
    let handle = vm.handle();
    drop(vm);
    let adopted = factory.driver().adopt(&handle).await.unwrap().expect("the VM lives");
    ticks_after(&spec, ticks(&spec).await).await;
    let (parts, ticks) = pause_and_snapshot(&spec, adopted.as_ref(), "snapshot").await;
    kill(adopted).await;
    let (spec, clone) = restore(factory, &parts).await;
    ticks_after(&spec, ticks).await;
    kill(clone).await;
}

/// The guest is the one of the snapshot, whatever the spec says of its own.
pub async fn a_restored_deaf_guest_is_ended_by_force_within_its_deadlines(factory: &dyn Factory) {
    let Some((_, vm)) = restored(factory, Guest::Deaf).await else { return };
    let deadlines = StopDeadlines { graceful: A_WHILE, forced: PATIENCE };
    let started = Instant::now();
    let exit = within_patience(vm.stop(deadlines)).await.unwrap();
    assert_eq!(exit.cause, ExitCause::Stopped);
    assert!(started.elapsed() >= A_WHILE, "the guest was given no time");
    assert!(!factory.is_alive(&vm.handle()).await);
}

/// As of a VM that booted.
pub async fn a_crash_of_a_restored_vm_is_reported_with_its_cause_and_the_last_output(factory: &dyn Factory) {
    let Some((_, vm)) = restored(factory, Guest::Ready).await else { return };
    factory.crash(&vm.handle()).await;
    let exit = within_patience(vm.exited()).await;
    assert!(matches!(exit.cause, ExitCause::Crashed { .. }), "{exit:?}");
    assert!(exit.last_output.contains("tick "), "{exit:?}");
}

/// No process, no socket, no handle; the console stays to be read.
pub async fn nothing_is_left_after_a_restored_vm_stopped(factory: &dyn Factory) {
    let Some((spec, vm)) = restored(factory, Guest::Ready).await else { return };
    vm.stop(StopDeadlines::KILL).await.unwrap();
    assert!(!factory.is_alive(&vm.handle()).await);
    nothing_lives_in(&spec.run_dir).await;
    assert!(spec.run_dir.join(CONSOLE_FILE).exists());
}

/// A clone that runs, of a source that is gone.
async fn restored(factory: &dyn Factory, guest: Guest) -> Option<(VmSpec, Box<dyn RunningVm>)> {
    let source = snapshot_of(factory, guest).await?;
    kill(source.vm).await;
    let (spec, vm) = restore(factory, &source.parts).await;
    ticks_after(&spec, source.ticks).await;
    Some((spec, vm))
}

async fn stop_gracefully(vm: &dyn RunningVm) {
    let exit = within_patience(vm.stop(PATIENT)).await.unwrap();
    assert_eq!(exit.cause, ExitCause::GuestShutdown, "{exit:?}");
    assert!(exit.last_output.contains(FAREWELL), "the guest was not asked: {exit:?}");
}

/// The first whole "tick N" on the console.
async fn first_tick(spec: &VmSpec) -> u64 {
    let console = tokio::fs::read(spec.run_dir.join(CONSOLE_FILE)).await.unwrap();
    let text = String::from_utf8_lossy(&console);
    text.lines().find_map(|line| line.trim().strip_prefix("tick ")?.parse().ok()).unwrap()
}

/// A fingerprint of a file.
fn content(path: &Path) -> u64 {
    let mut file = std::fs::File::open(path).unwrap();
    let mut hasher = DefaultHasher::new();
    let mut chunk = vec![0; 1 << 20];
    loop {
        match file.read(&mut chunk).unwrap() {
            0 => return hasher.finish(),
            length => hasher.write(&chunk[..length]),
        }
    }
}
