//! Snapshots that cannot be taken, and parts that are of no use.

use super::support::{
    Source, boot, gone, is_empty, kill, new_folder, nothing_lives_in, refused_restore, restore, snapshot_of,
    stored_handle, ticks, ticks_after,
};
use super::{Factory, Guest};
use crate::{ErrorKind, PrepareFor, SnapshotParts, StopDeadlines, VmState};
use std::path::Path;

/// Memory that changes while it is copied is of no use to anybody.
pub async fn a_running_vm_is_not_snapshotted(factory: &dyn Factory) {
    if !factory.driver().capabilities().snapshots {
        return;
    }
    let (spec, vm) = boot(factory, Guest::Ready).await;
    let folder = new_folder(&spec, "snapshot");
    let error = vm.snapshot(&folder).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(is_empty(&folder));
    ticks_after(&spec, ticks(&spec).await).await;
    kill(vm).await;
}

/// Nothing is made for it.
pub async fn a_vm_that_is_gone_is_not_snapshotted(factory: &dyn Factory) {
    if !factory.driver().capabilities().snapshots {
        return;
    }
    let (spec, vm) = boot(factory, Guest::Ready).await;
    vm.pause().await.unwrap();
    vm.stop(StopDeadlines::KILL).await.unwrap();
    let folder = new_folder(&spec, "snapshot");
    assert_eq!(vm.snapshot(&folder).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(is_empty(&folder));
}

/// Parts are written once.
pub async fn a_part_that_is_there_is_not_overwritten(factory: &dyn Factory) {
    let Some(Source { spec, vm, parts, ticks }) = snapshot_of(factory, Guest::Ready).await else { return };
    let folder = parts.memory.parent().unwrap();
    let error = vm.snapshot(folder).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    let (clones, clone) = restore(factory, &parts).await;
    ticks_after(&clones, ticks).await;
    vm.resume().await.unwrap();
    ticks_after(&spec, ticks).await;
    kill(clone).await;
    kill(vm).await;
}

/// The error names the file and the mend; the VM stays paused, and goes on when it is told to.
pub async fn a_snapshot_onto_a_full_disk_leaves_nothing_and_the_vm_usable(factory: &dyn Factory) {
    let Some(full) = factory.small_disk().await else { return };
    let Some(Source { spec, vm, parts, ticks }) = snapshot_of(factory, Guest::Ready).await else { return };
    let error = vm.snapshot(&full).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.id().starts_with(&*full.to_string_lossy()), "{error}");
    assert!(error.detail_text().is_some_and(|detail| detail.contains("free space")), "{error}");
    assert!(is_empty(&full));
    assert_eq!(vm.describe().await.unwrap().state, VmState::Paused);
    vm.snapshot(&new_folder(&spec, "elsewhere")).await.unwrap();
    vm.resume().await.unwrap();
    ticks_after(&spec, ticks).await;
    kill(vm).await;
    let (spec, clone) = restore(factory, &parts).await;
    ticks_after(&spec, ticks).await;
    kill(clone).await;
}

/// The error names the file.
pub async fn a_missing_part_is_refused_by_name(factory: &dyn Factory) {
    let Some(source) = snapshot_of(factory, Guest::Ready).await else { return };
    let missing = source.spec.run_dir.join("no-such-part");
    for parts in [
        SnapshotParts { memory: missing.clone(), ..source.parts.clone() },
        SnapshotParts { device_state: missing.clone(), ..source.parts.clone() },
    ] {
        let error = refused_restore(factory, parts).await;
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.to_string().contains("no-such-part"), "{error}");
    }
    kill(source.vm).await;
}

/// What can be seen without reading all of it is seen before a guest runs.
pub async fn a_part_that_was_cut_short_or_altered_is_refused(factory: &dyn Factory) {
    let Some(source) = snapshot_of(factory, Guest::Ready).await else { return };
    let folder = new_folder(&source.spec, "bad");
    let whole = std::fs::read(&source.parts.device_state).unwrap();
    let altered: Vec<u8> = whole.iter().map(|byte| byte ^ 0x55).collect();
    for bad in [&[], &whole[..whole.len() / 2], &altered] {
        let device_state = folder.join("device_state");
        std::fs::write(&device_state, bad).unwrap();
        refused_as_corrupt(factory, &device_state, |path| SnapshotParts {
            device_state: path.into(),
            ..source.parts.clone()
        })
        .await;
    }
    let short = folder.join("memory");
    let length = std::fs::metadata(&source.parts.memory).unwrap().len();
    std::fs::File::create(&short).unwrap().set_len(length - 4096).unwrap();
    refused_as_corrupt(factory, &short, |path| SnapshotParts { memory: path.into(), ..source.parts.clone() })
        .await;
    kill(source.vm).await;
}

async fn refused_as_corrupt(factory: &dyn Factory, bad: &Path, with: impl Fn(&Path) -> SnapshotParts) {
    let error = refused_restore(factory, with(bad)).await;
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains(&*bad.to_string_lossy()), "{error}");
}

/// Whoever finds such parts boots instead.
pub async fn parts_of_another_version_are_refused(factory: &dyn Factory) {
    let Some(source) = snapshot_of(factory, Guest::Ready).await else { return };
    let parts = SnapshotParts { vmm_version: "0.0.1".into(), ..source.parts.clone() };
    let error = refused_restore(factory, parts).await;
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(error.to_string().contains("0.0.1"), "{error}");
    kill(source.vm).await;
}

/// And the process ends, since it is good for nothing else.
pub async fn a_vm_does_only_what_it_was_prepared_for(factory: &dyn Factory) {
    let Some(source) = snapshot_of(factory, Guest::Ready).await else { return };
    let driver = factory.driver();
    let (boots, restores) = (factory.spec(Guest::Ready).await, factory.spec(Guest::Ready).await);
    let prepared = driver.prepare(boots.clone(), PrepareFor::Boot).await.unwrap();
    assert_eq!(prepared.restore().await.unwrap_err().kind(), ErrorKind::InvalidInput);
    let prepared = driver.prepare(restores.clone(), PrepareFor::Restore(source.parts)).await.unwrap();
    assert_eq!(prepared.boot().await.unwrap_err().kind(), ErrorKind::InvalidInput);
    nothing_lives_in(&boots.run_dir).await;
    nothing_lives_in(&restores.run_dir).await;
    kill(source.vm).await;
}

/// Giving up after prepare leaves no process.
pub async fn dropping_a_vm_prepared_for_a_restore_ends_its_process(factory: &dyn Factory) {
    let Some(source) = snapshot_of(factory, Guest::Ready).await else { return };
    let spec = factory.spec(Guest::Ready).await;
    let purpose = PrepareFor::Restore(source.parts);
    let prepared = factory.driver().prepare(spec.clone(), purpose).await.unwrap();
    let handle = stored_handle(&spec).await;
    assert!(factory.is_alive(&handle).await);
    drop(prepared);
    gone(factory, &handle).await;
    nothing_lives_in(&spec.run_dir).await;
    kill(source.vm).await;
}
