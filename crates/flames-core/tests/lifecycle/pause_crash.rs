//! Pauses and resumes that were cut short: by a store that fails, and by a daemon that is killed.

use crate::pause::paused;
use crate::world::{World, life, mini, sleep, state_of};
use flames_core::sandbox::admit::Timeout;
use flames_core::sandbox::pause::PauseMode;
use flames_core::sandbox::record::{Failure, Passing, Sandbox};
use flames_core::sandbox::state::State;
use flames_core::{ControlPlane, SandboxId};
use flames_node::{Contents, SnapshotId, VmId, VmState};
use flames_provider::ErrorKind;
use flames_provider::decorate::{Fault, FaultPlan, When};
use std::sync::Arc;

const ALL: [PauseMode; 3] = [PauseMode::Disk, PauseMode::DiskOnly, PauseMode::Memory];

/// Every commit of a pause and a resume fails once, before or after it took effect.
#[test]
fn whatever_write_fails_the_sweep_brings_the_sandbox_to_rest_or_to_run() {
    for mode in ALL {
        for fault in [Fault::Error(ErrorKind::Unavailable), Fault::LostAck] {
            for nth in 4..8 {
                life(async {
                    let world = World::new();
                    let plan = FaultPlan::seeded(1).rule("commit", When::Nth(nth), fault);
                    let plane = world.plane_with_faults(plan).await;
                    let id = plane.create(mini()).await.unwrap().id;
                    let _ = plane.set_timeout(&id, Timeout::Never).await;
                    let _ = plane.pause(&id, mode).await;
                    let _ = plane.resume(&id, Some(Timeout::Never)).await;
                    sleep(400).await;
                    assert_settled(&world, &plane, &id).await;
                });
            }
        }
    }
}

async fn assert_settled(world: &World, plane: &Arc<ControlPlane>, id: &SandboxId) {
    let found = plane.get(id).await.unwrap();
    let (runs, kept) = (world.node.running(), world.node.snapshot_ids());
    match found.state {
        State::Running => {
            assert_eq!((&runs, kept.len()), (&vec![found.run.clone()], 0));
            assert_eq!(world.node.state_of(&found.run), Some(VmState::Running));
        }
        State::Paused => assert_eq!(world.node.state_of(&found.run), Some(VmState::Paused)),
        State::Snapshotted => assert_eq!((runs.len(), kept), (0, vec![found.snapshot.unwrap()])),
        other => panic!("stuck in {other:?}"),
    }
}

fn crashed(sandbox: &Sandbox, state: State, from: State, writes: Option<&SnapshotId>) -> Sandbox {
    let passing = Some(Passing { from, writes: writes.cloned(), contents: Contents::default() });
    Sandbox { state, passing, ..sandbox.clone() }
}

#[test]
fn a_daemon_killed_during_a_pause_finds_the_sandbox_running_or_resting() {
    let half = SnapshotId::parse("s0half").unwrap();
    // Before the snapshot, after it, and after the VMM's end as well.
    for (written, lives, expected) in
        [(false, true, State::Running), (true, true, State::Running), (true, false, State::Snapshotted)]
    {
        let world = World::new();
        let sandbox = life(async { world.plane().await.create(mini()).await.unwrap() });
        life(async {
            world.put(&crashed(&sandbox, State::Pausing, State::Running, Some(&half))).await;
        });
        if written {
            world.node.put_snapshot(&half, &sandbox.run);
        }
        if !lives {
            world.node.vanish(&sandbox.run);
        }
        life(async {
            let plane = world.plane().await;
            assert_eq!(state_of(&plane, &sandbox.id).await, Some(expected));
            assert_settled(&world, &plane, &sandbox.id).await;
            plane.destroy(&sandbox.id).await.unwrap();
            world.assert_nothing_left().await;
        });
    }
}

#[test]
fn a_daemon_killed_during_a_pause_whose_vm_and_snapshot_are_gone_fails_the_sandbox() {
    let half = SnapshotId::parse("s0half").unwrap();
    let world = World::new();
    let sandbox = life(async { world.plane().await.create(mini()).await.unwrap() });
    life(async { world.put(&crashed(&sandbox, State::Pausing, State::Running, Some(&half))).await });
    world.node.vanish(&sandbox.run);
    life(async {
        let found = world.plane().await.get(&sandbox.id).await.unwrap();
        assert_eq!(found.failure, Some(Failure::LostWhile { state: State::Pausing }));
    });
}

#[test]
fn a_daemon_killed_during_a_resume_from_disk_finds_the_sandbox_resting() {
    for half_made in [false, true] {
        let world = World::new();
        let rests = life(async { paused(&world.plane().await, PauseMode::Disk).await });
        let second = VmId::parse(format!("{}-2", rests.id)).unwrap();
        life(async {
            let resuming = crashed(&rests, State::Resuming, State::Snapshotted, None);
            world.put(&Sandbox { run: second.clone(), ..resuming }).await;
        });
        if half_made {
            world.node.start_unowned(second.as_str());
        }
        life(async {
            let plane = world.plane().await;
            assert_eq!(state_of(&plane, &rests.id).await, Some(State::Snapshotted));
            assert_settled(&world, &plane, &rests.id).await;
            let back = plane.resume(&rests.id, None).await.unwrap().sandbox;
            assert!(back.run != second, "a run id is never used twice");
        });
    }
}

#[test]
fn a_daemon_killed_during_a_resume_from_memory_finds_the_sandbox_paused() {
    let world = World::new();
    let rests = life(async { paused(&world.plane().await, PauseMode::Memory).await });
    life(async { world.put(&crashed(&rests, State::Resuming, State::Paused, None)).await });
    life(async {
        let plane = world.plane().await;
        assert_eq!(state_of(&plane, &rests.id).await, Some(State::Paused));
        assert_settled(&world, &plane, &rests.id).await;
    });
}

#[test]
fn a_snapshot_that_a_resume_could_not_remove_is_gone_after_a_restart() {
    let world = World::new();
    let left = SnapshotId::parse("s0left").unwrap();
    let sandbox = life(async { world.plane().await.create(mini()).await.unwrap() });
    world.node.put_snapshot(&left, &sandbox.run);
    life(async {
        let _plane = world.plane().await;
        assert_eq!((world.node.snapshot_ids(), world.node.running()), (vec![], vec![sandbox.run.clone()]));
    });
}

#[test]
fn what_rests_survives_a_restart() {
    for mode in ALL {
        let world = World::new();
        let rests = life(async { paused(&world.plane().await, mode).await });
        life(async {
            let plane = world.plane().await;
            assert_eq!(plane.get(&rests.id).await.unwrap(), rests);
            plane.resume(&rests.id, None).await.unwrap();
            assert_settled(&world, &plane, &rests.id).await;
        });
    }
}
