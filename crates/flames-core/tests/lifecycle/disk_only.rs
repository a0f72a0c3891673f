//! A sandbox that rests on its disk alone: it boots when it comes back, and is the same one.

use crate::pause::paused;
use crate::world::{World, ending_after, life, mini, sleep, state_of};
use flames_core::sandbox::admit::CreateSandbox;
use flames_core::sandbox::error::{ForkError, LifecycleError, ResumeError};
use flames_core::sandbox::fork::Fork;
use flames_core::sandbox::pause::PauseMode;
use flames_core::sandbox::record::{OnTimeout, Origin};
use flames_core::sandbox::state::State;
use flames_core::snapshot::record::SnapshotName;
use flames_node::{Contents, CreateStep, Identity, Node, StartFrom};

async fn contents(world: &World) -> Vec<Contents> {
    world.node.snapshots().await.unwrap().into_iter().map(|info| info.contents).collect()
}

#[test]
fn a_pause_of_the_disk_alone_leaves_no_vm_and_a_resume_boots_the_same_sandbox() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let rests = paused(&plane, PauseMode::DiskOnly).await;
        assert_eq!((rests.state, rests.kept), (State::Snapshotted, Contents::DiskOnly));
        assert_eq!((world.node.running(), contents(&world).await), (vec![], vec![Contents::DiskOnly]));
        sleep(5000).await;
        assert_eq!(state_of(&plane, &rests.id).await, Some(State::Snapshotted), "its clock stands still");

        let after = plane.resume(&rests.id, None).await.unwrap().sandbox;
        assert_eq!((after.state, after.kept), (State::Running, Contents::default()));
        assert_eq!((after.metadata, after.id), (rests.metadata, rests.id.clone()));
        assert_eq!(world.node.snapshot_ids(), [], "it belongs to nobody any more");
        let created = world.node.created().pop().unwrap();
        assert_eq!((created.identity, created.env, created.default_user), (Identity::Same, None, None));
        assert_eq!(created.hostname, rests.id.to_string());
        assert!(created.access_token == plane.access_token(&rests.id));
        assert!(matches!(created.from, StartFrom::Snapshot(_)));
        plane.destroy(&rests.id).await.unwrap();
        world.assert_nothing_left().await;
    });
}

#[test]
fn one_that_rests_in_memory_can_be_brought_to_its_disk_alone() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let rests = paused(&plane, PauseMode::Memory).await;
        let on_disk = plane.pause(&rests.id, PauseMode::DiskOnly).await.unwrap().sandbox;
        assert_eq!((on_disk.state, on_disk.kept), (State::Snapshotted, Contents::DiskOnly));
        let again = plane.pause(&rests.id, PauseMode::Memory).await.unwrap_err();
        assert!(matches!(again, LifecycleError::NotRunning { state: State::Snapshotted, .. }), "{again:?}");
    });
}

#[test]
fn one_whose_boot_failed_rests_on_with_its_disk() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let rests = paused(&plane, PauseMode::DiskOnly).await;
        world.node.fail_creates_at(Some(CreateStep::Boot));
        let refused = plane.resume(&rests.id, None).await.unwrap_err();
        assert!(matches!(refused, ResumeError::Start { .. }), "{refused:?}");
        let found = plane.get(&rests.id).await.unwrap();
        assert_eq!((found.state, found.kept), (State::Snapshotted, Contents::DiskOnly));
        world.node.fail_creates_at(None);
        plane.resume(&rests.id, None).await.unwrap();
    });
}

#[test]
fn a_daemon_that_restarts_meanwhile_finds_it_resting_and_brings_it_back() {
    let world = World::new();
    let rests = life(async { paused(&world.plane().await, PauseMode::DiskOnly).await });
    life(async {
        let plane = world.plane().await;
        assert_eq!(plane.get(&rests.id).await.unwrap(), rests);
        sleep(200).await;
        assert_eq!(contents(&world).await, [Contents::DiskOnly], "the sweep leaves it alone");
        plane.resume(&rests.id, None).await.unwrap();
        plane.destroy(&rests.id).await.unwrap();
        world.assert_nothing_left().await;
    });
}

#[test]
fn one_that_is_to_rest_so_at_its_end_does_and_no_fork_is_made_of_it() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let asked = CreateSandbox { on_timeout: OnTimeout::PauseDiskOnly, ..ending_after(100) };
        let id = plane.create(asked).await.unwrap().id;
        sleep(101).await;
        let rests = plane.get(&id).await.unwrap();
        assert_eq!((rests.state, rests.kept), (State::Snapshotted, Contents::DiskOnly));
        let refused = plane.fork(&id, Fork { count: 1, timeout: None }).await.unwrap_err();
        let resting = |error: &LifecycleError| {
            matches!(error, LifecycleError::NotRunning { state: State::Snapshotted, .. })
        };
        assert!(matches!(&refused, ForkError::Source(error) if resting(error)), "{refused:?}");
    });
}

#[test]
fn a_boot_from_a_disk_needs_the_room_of_a_boot() {
    life(async {
        let world = World::new();
        let plane = world.plane_with_memory(crate::room::BOOTED + crate::room::CLONE).await;
        let source = plane.create(mini()).await.unwrap();
        let golden = Some(SnapshotName::parse("golden").unwrap());
        let taken = plane.snapshot(&source.id, golden, Contents::DiskOnly).await.unwrap();
        assert_eq!(plane.get_snapshot("golden").await.unwrap().contents, Contents::DiskOnly);
        let clone = CreateSandbox { from_snapshot: Some("golden".into()), ..CreateSandbox::default() };
        plane.create(clone.clone()).await.unwrap_err();
        plane.destroy(&source.id).await.unwrap();
        let clone = plane.create(clone).await.unwrap();
        assert_eq!(clone.origin, Some(Origin::Snapshot(taken.id)));
    });
}
