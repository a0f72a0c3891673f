//! A sandbox that rests comes back as it was, or rests on; of those who race for it one wins.

use crate::world::{World, ending_after, life, mini, sleep, state_of};
use flames_core::ControlPlane;
use flames_core::sandbox::admit::{CreateSandbox, Timeout};
use flames_core::sandbox::error::{LifecycleError, ResumeError};
use flames_core::sandbox::pause::PauseMode;
use flames_core::sandbox::record::{Failure, OnTimeout, Sandbox};
use flames_core::sandbox::state::State;
use flames_node::{CreateStep, Identity, StartFrom, VmState};
use flames_provider::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

const ALL: [PauseMode; 3] = [PauseMode::Disk, PauseMode::DiskOnly, PauseMode::Memory];

pub(crate) async fn paused(plane: &Arc<ControlPlane>, mode: PauseMode) -> Sandbox {
    let id = plane.create(ending_after(100)).await.unwrap().id;
    plane.pause(&id, mode).await.unwrap().sandbox
}

#[test]
fn a_pause_to_disk_leaves_no_vm_and_a_resume_brings_the_same_sandbox_back() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let before = plane.create(ending_after(100)).await.unwrap();
        let rests = plane.pause(&before.id, PauseMode::Disk).await.unwrap();
        assert_eq!((rests.sandbox.state, rests.snapshot.paused_ms), (State::Snapshotted, 3.0));
        assert_eq!(world.node.running(), []);
        assert_eq!(world.node.snapshot_ids(), [rests.sandbox.snapshot.unwrap()]);

        let after = plane.resume(&before.id, None).await.unwrap().sandbox;
        assert_eq!((after.state, after.snapshot.as_ref()), (State::Running, None));
        assert_ne!(after.run, before.run);
        assert_eq!((world.node.running(), world.node.snapshot_ids()), (vec![after.run], vec![]));
        let created = world.node.created().pop().unwrap();
        assert_eq!((created.identity, created.env, created.default_user), (Identity::Same, None, None));
        assert_eq!(created.hostname, before.id.to_string());
        assert!(created.access_token == plane.access_token(&before.id));
        assert!(matches!(created.from, StartFrom::Snapshot(_)));
        plane.destroy(&before.id).await.unwrap();
        world.assert_nothing_left().await;
    });
}

#[test]
fn a_pause_in_memory_keeps_the_run_and_stops_it() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let rests = paused(&plane, PauseMode::Memory).await;
        assert_eq!(rests.state, State::Paused);
        assert_eq!(world.node.state_of(&rests.run), Some(VmState::Paused));
        let back = plane.resume(&rests.id, None).await.unwrap().sandbox;
        assert_eq!((back.state, &back.run, back.ends_at), (State::Running, &rests.run, rests.ends_at));
        assert_eq!(world.node.state_of(&rests.run), Some(VmState::Running));
    });
}

#[test]
fn one_that_rests_in_memory_can_be_brought_to_disk_and_not_to_memory_again() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let rests = paused(&plane, PauseMode::Memory).await;
        let again = plane.pause(&rests.id, PauseMode::Memory).await.unwrap_err();
        assert!(matches!(again, LifecycleError::NotRunning { state: State::Paused, .. }), "{again:?}");
        let on_disk = plane.pause(&rests.id, PauseMode::Disk).await.unwrap().sandbox;
        assert_eq!((on_disk.state, world.node.running()), (State::Snapshotted, vec![]));
        let again = plane.pause(&rests.id, PauseMode::Disk).await.unwrap_err();
        assert!(matches!(again, LifecycleError::NotRunning { state: State::Snapshotted, .. }));
    });
}

#[test]
fn what_rests_takes_no_commands_and_what_runs_is_not_resumed() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        for mode in ALL {
            let rests = paused(&plane, mode).await;
            assert!(plane.guest(&rests.id).await.is_err());
            plane.resume(&rests.id, None).await.unwrap();
            assert!(plane.guest(&rests.id).await.is_ok());
            let again = plane.resume(&rests.id, None).await.unwrap_err();
            let refused = |error: &LifecycleError| {
                matches!(error, LifecycleError::NotPaused { state: State::Running, .. })
            };
            assert!(matches!(&again, ResumeError::Sandbox(error) if refused(error)), "{again:?}");
        }
    });
}

#[test]
fn a_pause_that_the_host_refused_leaves_the_sandbox_running_and_nothing_else() {
    for mode in ALL {
        life(async {
            let world = World::new();
            let plane = world.plane().await;
            let sandbox = plane.create(ending_after(100)).await.unwrap();
            world.node.fail_stops(Some(ErrorKind::Unsupported));
            let refused = plane.pause(&sandbox.id, mode).await.unwrap_err();
            assert!(matches!(&refused, LifecycleError::Node { .. }), "{refused:?}");
            assert_eq!(state_of(&plane, &sandbox.id).await, Some(State::Running));
            assert_eq!(world.node.snapshot_ids(), []);
            world.node.fail_stops(None);
            sleep(101).await;
            world.assert_nothing_left().await;
        });
    }
}

#[test]
fn a_pause_that_failed_for_good_is_brought_back_by_the_sweep() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let id = plane.create(mini()).await.unwrap().id;
        plane.set_timeout(&id, Timeout::Never).await.unwrap();
        world.node.fail_stops(Some(ErrorKind::Unavailable));
        plane.pause(&id, PauseMode::Disk).await.unwrap_err();
        assert_eq!(state_of(&plane, &id).await, Some(State::Pausing), "the host does not answer");
        world.node.fail_stops(None);
        sleep(300).await;
        assert_eq!(state_of(&plane, &id).await, Some(State::Running));
        assert_eq!(world.node.state_of(&world.records().await[0].run), Some(VmState::Running));
    });
}

#[test]
fn a_host_that_never_answers_a_pause_does_not_hold_the_sandbox_for_ever() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let id = plane.create(mini()).await.unwrap().id;
        plane.set_timeout(&id, Timeout::Never).await.unwrap();
        world.node.hold_stops();
        let pause = tokio::spawn({
            let (plane, id) = (plane.clone(), id.clone());
            async move { plane.pause(&id, PauseMode::Disk).await }
        });
        sleep(121).await;
        world.node.release_stops();
        let late = pause.await.unwrap().unwrap_err();
        assert!(matches!(&late, LifecycleError::Node { source, .. } if source.kind() == ErrorKind::Timeout));
        assert_eq!(state_of(&plane, &id).await, Some(State::Running));
    });
}

#[test]
fn a_vm_that_dies_while_it_is_paused_fails_with_that_cause() {
    for mode in ALL {
        life(async {
            let world = World::new();
            let plane = world.plane().await;
            let sandbox = plane.create(mini()).await.unwrap();
            world.node.hold_stops();
            let pause = tokio::spawn({
                let (plane, id) = (plane.clone(), sandbox.id.clone());
                async move { plane.pause(&id, mode).await }
            });
            world.node.until(|node| node.stop_calls() == 1).await;
            world.node.kill(&sandbox.run, flames_node::ExitCause::GuestPanic);
            world.node.release_stops();
            pause.await.unwrap().unwrap_err();
            let found = plane.get(&sandbox.id).await.unwrap();
            let lost = Some(Failure::LostWhile { state: State::Pausing });
            assert_eq!((found.state, found.failure), (State::Failed, lost));
        });
    }
}

#[test]
fn a_refused_snapshot_leaves_the_sandbox_resting_and_a_later_resume_works() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let rests = paused(&plane, PauseMode::Disk).await;
        world.node.fail_creates_at(Some(CreateStep::Template));
        world.node.fail_creates_as(ErrorKind::Corrupt);
        let refused = plane.resume(&rests.id, None).await.unwrap_err();
        let corrupt = |error: &flames_node::CreateError| error.kind() == ErrorKind::Corrupt;
        assert!(matches!(&refused, ResumeError::Start { source, .. } if corrupt(source)), "{refused:?}");
        assert_eq!(state_of(&plane, &rests.id).await, Some(State::Snapshotted));
        assert_eq!(world.node.snapshot_ids(), [rests.snapshot.unwrap()]);
        world.node.fail_creates_at(None);
        assert_eq!(plane.resume(&rests.id, None).await.unwrap().sandbox.state, State::Running);
    });
}

#[test]
fn of_two_resumes_one_wins_and_the_other_does_nothing() {
    for mode in ALL {
        life(async {
            let world = World::new();
            let plane = world.plane().await;
            let rests = paused(&plane, mode).await;
            let resumes = [(); 2].map(|()| {
                let (plane, id) = (plane.clone(), rests.id.clone());
                tokio::spawn(async move { plane.resume(&id, None).await })
            });
            let mut won = 0;
            for resume in resumes {
                match resume.await.unwrap() {
                    Ok(_) => won += 1,
                    Err(ResumeError::Sandbox(LifecycleError::NotPaused { .. })) => {}
                    Err(other) => panic!("{other:?}"),
                }
            }
            assert_eq!((won, world.node.running().len()), (1, 1));
        });
    }
}

#[test]
fn of_two_pauses_one_wins_and_the_other_does_nothing() {
    for mode in ALL {
        life(async {
            let world = World::new();
            let plane = world.plane().await;
            let id = plane.create(mini()).await.unwrap().id;
            let pauses = [(); 2].map(|()| {
                let (plane, id) = (plane.clone(), id.clone());
                tokio::spawn(async move { plane.pause(&id, mode).await })
            });
            let mut won = 0;
            for pause in pauses {
                match pause.await.unwrap() {
                    Ok(_) => won += 1,
                    Err(LifecycleError::NotRunning { .. }) => {}
                    Err(other) => panic!("{other:?}"),
                }
            }
            assert_eq!((won, world.node.stop_calls()), (1, 1));
        });
    }
}

#[test]
fn a_pause_during_a_resume_is_refused_and_a_resume_during_a_pause_too() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let rests = paused(&plane, PauseMode::Disk).await;
        world.node.hold_creates();
        let resume = tokio::spawn({
            let (plane, id) = (plane.clone(), rests.id.clone());
            async move { plane.resume(&id, None).await }
        });
        world.node.until(|node| node.creating() == 1).await;
        for mode in ALL {
            let refused = plane.pause(&rests.id, mode).await.unwrap_err();
            assert!(matches!(refused, LifecycleError::NotRunning { state: State::Resuming, .. }));
        }
        world.node.release_creates();
        resume.await.unwrap().unwrap();

        world.node.hold_stops();
        let pause = tokio::spawn({
            let (plane, id) = (plane.clone(), rests.id.clone());
            async move { plane.pause(&id, PauseMode::Disk).await }
        });
        let calls = world.node.stop_calls();
        world.node.until(|node| node.stop_calls() > calls).await;
        assert!(plane.resume(&rests.id, None).await.is_err());
        world.node.release_stops();
        assert_eq!(pause.await.unwrap().unwrap().sandbox.state, State::Snapshotted);
    });
}

/// Hazard L1: a 204 after which a VM runs.
#[test]
fn a_delete_during_a_resume_wins_and_leaves_nothing() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let rests = paused(&plane, PauseMode::Disk).await;
        world.node.hold_creates();
        world.node.hold_destroys();
        let resume = tokio::spawn({
            let (plane, id) = (plane.clone(), rests.id.clone());
            async move { plane.resume(&id, None).await }
        });
        world.node.until(|node| node.creating() == 1).await;
        let delete = tokio::spawn({
            let (plane, id) = (plane.clone(), rests.id.clone());
            async move { plane.destroy(&id).await }
        });
        world.node.until(|node| node.destroy_calls() == 1).await;
        world.node.release_creates();
        world.node.until(|node| node.running().len() == 1).await;
        world.node.release_destroys();
        delete.await.unwrap().unwrap();
        assert!(resume.await.unwrap().is_err());
        world.assert_nothing_left().await;
    });
}

#[test]
fn a_delete_during_a_pause_wins_and_leaves_nothing() {
    for mode in ALL {
        life(async {
            let world = World::new();
            let plane = world.plane().await;
            let id = plane.create(mini()).await.unwrap().id;
            world.node.hold_stops();
            world.node.hold_destroys();
            let pause = tokio::spawn({
                let (plane, id) = (plane.clone(), id.clone());
                async move { plane.pause(&id, mode).await }
            });
            world.node.until(|node| node.stop_calls() == 1).await;
            let delete = tokio::spawn({
                let (plane, id) = (plane.clone(), id.clone());
                async move { plane.destroy(&id).await }
            });
            world.node.until(|node| node.destroy_calls() == 1).await;
            // The host finishes the pause although the sandbox is being ended.
            world.node.release_stops();
            let refused = pause.await.unwrap().unwrap_err();
            let lost = |error: &LifecycleError| {
                matches!(error, LifecycleError::NotFound(_) | LifecycleError::NotRunning { .. })
            };
            assert!(lost(&refused), "{refused:?}");
            world.node.release_destroys();
            delete.await.unwrap().unwrap();
            world.assert_nothing_left().await;
        });
    }
}

#[test]
fn a_delete_of_what_rests_leaves_nothing() {
    for mode in ALL {
        life(async {
            let world = World::new();
            let plane = world.plane().await;
            let rests = paused(&plane, mode).await;
            plane.destroy(&rests.id).await.unwrap();
            world.assert_nothing_left().await;
        });
    }
}

#[test]
fn a_client_that_goes_away_during_its_pause_or_resume_does_not_stop_it() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let id = plane.create(mini()).await.unwrap().id;
        world.node.hold_stops();
        let client = tokio::spawn({
            let (plane, id) = (plane.clone(), id.clone());
            async move { plane.pause(&id, PauseMode::Disk).await }
        });
        world.node.until(|node| node.stop_calls() == 1).await;
        client.abort();
        world.node.release_stops();
        world.node.until(|node| !node.snapshot_ids().is_empty()).await;
        plane.shutdown().await;
        assert_eq!(state_of(&plane, &id).await, Some(State::Snapshotted));
    });
}

#[test]
fn the_clock_of_what_rests_on_disk_stands_still() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let rests = paused(&plane, PauseMode::Disk).await;
        assert_eq!(rests.ends_at, None);
        sleep(5000).await;
        assert_eq!(state_of(&plane, &rests.id).await, Some(State::Snapshotted));
        plane.resume(&rests.id, None).await.unwrap();
        sleep(99).await;
        assert_eq!(state_of(&plane, &rests.id).await, Some(State::Running));
        sleep(2).await;
        world.assert_nothing_left().await;
    });
}

#[test]
fn what_rests_in_memory_still_ends_at_its_time() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        paused(&plane, PauseMode::Memory).await;
        sleep(101).await;
        world.assert_nothing_left().await;
    });
}

#[test]
fn a_resume_with_a_timeout_ends_then_and_one_past_the_limit_is_refused() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        for mode in ALL {
            let rests = paused(&plane, mode).await;
            let after = Timeout::After(Duration::from_secs(10));
            plane.resume(&rests.id, Some(after)).await.unwrap();
            sleep(11).await;
            assert_eq!(state_of(&plane, &rests.id).await, None);
        }
    });
}

#[test]
fn a_timeout_set_while_it_rests_counts_from_its_resume() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let rests = paused(&plane, PauseMode::Disk).await;
        plane.set_timeout(&rests.id, Timeout::After(Duration::from_secs(10))).await.unwrap();
        sleep(1000).await;
        plane.resume(&rests.id, None).await.unwrap();
        sleep(9).await;
        assert_eq!(state_of(&plane, &rests.id).await, Some(State::Running));
        sleep(2).await;
        world.assert_nothing_left().await;
    });
}

fn pausing_at_its_end() -> CreateSandbox {
    CreateSandbox { on_timeout: OnTimeout::Pause, ..ending_after(100) }
}

#[test]
fn one_that_is_to_be_paused_at_its_end_rests_then_and_has_the_default_time_after_its_resume() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let id = plane.create(pausing_at_its_end()).await.unwrap().id;
        sleep(101).await;
        assert_eq!(state_of(&plane, &id).await, Some(State::Snapshotted));
        sleep(5000).await;
        plane.resume(&id, None).await.unwrap();
        sleep(299).await;
        assert_eq!(state_of(&plane, &id).await, Some(State::Running));
        sleep(2).await;
        assert_eq!(state_of(&plane, &id).await, Some(State::Snapshotted));
    });
}

#[test]
fn one_that_could_not_be_paused_at_its_end_goes_on_and_is_paused_later() {
    goes_on_and_is_paused_later(pausing_at_its_end());
}

/// What is to be paused after 100 s, and cannot be then.
pub(crate) fn goes_on_and_is_paused_later(asked: CreateSandbox) {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let id = plane.create(asked).await.unwrap().id;
        world.node.fail_stops(Some(ErrorKind::Unavailable));
        sleep(101).await;
        assert_eq!(world.node.running().len(), 1);
        world.node.fail_stops(None);
        sleep(600).await;
        assert_eq!(state_of(&plane, &id).await, Some(State::Snapshotted));
    });
}

/// A pause that fails at once and is undone at once: without a wait nothing else would happen in this test, not even time.
#[test]
fn a_pause_at_the_end_that_always_fails_is_tried_with_growing_waits_until_it_works() {
    for on_timeout in [OnTimeout::Pause, OnTimeout::PauseDiskOnly] {
        life(async {
            let world = World::new();
            let plane = world.plane().await;
            let id = plane.create(CreateSandbox { on_timeout, ..ending_after(100) }).await.unwrap().id;
            world.node.fail_snapshots(Some(ErrorKind::Unavailable));
            let mut tries = Vec::new();
            for wait in [101, 20, 3600] {
                sleep(wait).await;
                tries.push(world.node.stop_calls() / 2); // each with the resume that undoes it
            }
            assert_eq!(state_of(&plane, &id).await, Some(State::Running), "it is not lost");
            // After 0, 1, 3, 7, 15 s; then after 31 and so on, and at last every 300 s.
            assert!((1..=2).contains(&tries[0]) && (5..=6).contains(&tries[1]), "{tries:?}");
            assert!((15..=25).contains(&tries[2]), "{tries:?}");
            world.node.fail_snapshots(None);
            sleep(301).await;
            assert_eq!(state_of(&plane, &id).await, Some(State::Snapshotted));
        });
    }
}

#[test]
fn one_that_is_late_may_get_more_time_and_its_next_end_is_tried_at_once() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let id = plane.create(pausing_at_its_end()).await.unwrap().id;
        world.node.fail_snapshots(Some(ErrorKind::Unavailable));
        sleep(1000).await;
        let before = world.node.stop_calls();
        plane.set_timeout(&id, Timeout::After(Duration::from_secs(400))).await.unwrap();
        sleep(399).await;
        assert_eq!(world.node.stop_calls(), before, "its time is not over");
        world.node.fail_snapshots(None);
        sleep(2).await;
        assert_eq!(state_of(&plane, &id).await, Some(State::Snapshotted));
    });
}

#[test]
fn one_that_can_never_be_paused_ends_at_its_time() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        plane.create(pausing_at_its_end()).await.unwrap();
        world.node.fail_stops(Some(ErrorKind::Unsupported));
        sleep(101).await;
        world.assert_nothing_left().await;
    });
}
