//! Snapshots that users keep: whole or not there, whatever happens.

use crate::world::{World, life, mini, sleep, state_of};
use flames_core::ControlPlane;
use flames_core::sandbox::admit::CreateSandbox;
use flames_core::sandbox::error::{CreateSandboxError, LifecycleError, SnapshotError};
use flames_core::sandbox::pause::PauseMode;
use flames_core::sandbox::record::{Origin, Sandbox};
use flames_core::sandbox::state::State;
use flames_core::snapshot::record::{Snapshot, SnapshotName, SnapshotStatus};
use flames_node::{Contents, Identity, SnapshotId, StartFrom, TemplateName, VmState};
use flames_provider::ErrorKind;
use flames_provider::decorate::{Fault, FaultPlan, When};
use std::collections::BTreeMap;
use std::sync::Arc;

fn name(text: &str) -> Option<SnapshotName> {
    Some(SnapshotName::parse(text).unwrap())
}

async fn source_and_snapshot(plane: &Arc<ControlPlane>) -> (Sandbox, Snapshot) {
    let source = plane.create(mini()).await.unwrap();
    let snapshot = plane.snapshot(&source.id, name("golden"), Contents::default()).await.unwrap();
    (source, snapshot)
}

fn from(snapshot: &str) -> CreateSandbox {
    CreateSandbox { from_snapshot: Some(snapshot.to_owned()), ..CreateSandbox::default() }
}

#[test]
fn a_snapshot_leaves_its_source_running_and_is_listed_with_what_it_is() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let (source, snapshot) = source_and_snapshot(&plane).await;
        assert_eq!(world.node.state_of(&source.run), Some(VmState::Running));
        assert_eq!(state_of(&plane, &source.id).await, Some(State::Running));
        assert_eq!(plane.snapshots().await.unwrap(), std::slice::from_ref(&snapshot));
        assert_eq!((snapshot.status, snapshot.size_bytes), (SnapshotStatus::Ready, 4096));
        assert_eq!((&snapshot.source, snapshot.timings.seal_ms), (&source.id, 4.0));
        assert_eq!(world.node.snapshot_of(&snapshot.id), Some(source.run));
        for key in [snapshot.id.as_str(), "golden"] {
            assert_eq!(plane.get_snapshot(key).await.unwrap(), snapshot);
        }
        sleep(200).await;
        assert_eq!(plane.snapshots().await.unwrap().len(), 1, "the sweep leaves it alone");
    });
}

#[test]
fn clones_come_from_it_any_number_of_times_also_after_the_source_is_gone() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let (source, snapshot) = source_and_snapshot(&plane).await;
        plane.destroy(&source.id).await.unwrap();
        for key in [snapshot.id.as_str(), "golden"] {
            let clone = plane.create(from(key)).await.unwrap();
            assert_eq!(clone.origin, Some(Origin::Snapshot(snapshot.id.clone())));
            assert_eq!((&clone.template, clone.resources), (&source.template, source.resources));
            let asked = world.node.created().pop().unwrap();
            assert_eq!(asked.from, StartFrom::Snapshot(snapshot.id.clone()));
            assert_eq!((asked.identity, asked.env, asked.default_user), (Identity::New, None, None));
            assert_eq!(asked.hostname, clone.id.to_string());
            assert!(asked.access_token == plane.access_token(&clone.id));
            assert!(asked.access_token != plane.access_token(&source.id));
        }
        assert_eq!(plane.get_snapshot("golden").await.unwrap().clones, 2);
    });
}

#[test]
fn a_clone_may_have_an_environment_of_its_own_but_no_other_size() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        source_and_snapshot(&plane).await;
        let env = BTreeMap::from([("A".to_owned(), "b".to_owned())]);
        plane.create(CreateSandbox { env: env.clone(), ..from("golden") }).await.unwrap();
        assert_eq!(world.node.created().pop().unwrap().env, Some(env));
        for (request, field) in [
            (CreateSandbox { vcpus: Some(2), ..from("golden") }, "vcpus"),
            (CreateSandbox { memory_mib: Some(512), ..from("golden") }, "memory_mib"),
            (CreateSandbox { template: "base".into(), ..from("golden") }, "template"),
        ] {
            match plane.create(request).await.unwrap_err() {
                CreateSandboxError::Invalid(invalid) => assert_eq!(invalid.field, field),
                other => panic!("{other:?}"),
            }
        }
        let same = CreateSandbox { memory_mib: Some(256), template: "mini".into(), ..from("golden") };
        plane.create(same).await.unwrap();
    });
}

#[test]
fn a_name_that_is_taken_is_refused_and_free_again_once_its_snapshot_is_removed() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let (source, _) = source_and_snapshot(&plane).await;
        let refused = plane.snapshot(&source.id, name("golden"), Contents::default()).await.unwrap_err();
        assert!(matches!(&refused, SnapshotError::NameTaken(name) if name == "golden"), "{refused:?}");
        assert_eq!((world.node.snapshot_ids().len(), world.snapshot_records().await), (1, 2));
        assert_eq!(world.node.stop_calls(), 1, "the source did not stand still for it");
        plane.remove_snapshot("golden").await.unwrap();
        plane.snapshot(&source.id, name("golden"), Contents::default()).await.unwrap();
    });
}

#[test]
fn of_two_snapshots_with_one_name_one_wins() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let source = plane.create(mini()).await.unwrap();
        let both = [(); 2].map(|()| {
            let (plane, id) = (plane.clone(), source.id.clone());
            tokio::spawn(async move { plane.snapshot(&id, name("golden"), Contents::default()).await })
        });
        let mut won = 0;
        for one in both {
            won += usize::from(one.await.unwrap().is_ok());
        }
        assert_eq!((won, world.node.snapshot_ids().len()), (1, 1));
    });
}

#[test]
fn only_what_runs_is_captured() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        for mode in [PauseMode::Disk, PauseMode::Memory] {
            let id = plane.create(mini()).await.unwrap().id;
            let rests = plane.pause(&id, mode).await.unwrap().sandbox;
            let refused = plane.snapshot(&id, None, Contents::default()).await.unwrap_err();
            match refused {
                SnapshotError::Sandbox(LifecycleError::NotRunning { id: told, state }) => {
                    assert_eq!((told, state), (id, rests.state));
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(world.snapshot_records().await, 0);
    });
}

#[test]
fn a_capture_that_the_host_refused_leaves_nothing_and_the_source_running() {
    for kind in [ErrorKind::Unavailable, ErrorKind::Unsupported] {
        life(async {
            let world = World::new();
            let plane = world.plane().await;
            let source = plane.create(mini()).await.unwrap();
            world.node.fail_stops(Some(kind));
            let refused = plane.snapshot(&source.id, name("golden"), Contents::default()).await.unwrap_err();
            assert!(matches!(refused, SnapshotError::Sandbox(LifecycleError::Node { .. })), "{refused:?}");
            assert_eq!((world.node.snapshot_ids(), world.snapshot_records().await), (vec![], 0));
            assert_eq!(state_of(&plane, &source.id).await, Some(State::Running));
        });
    }
}

#[test]
fn a_snapshot_that_cannot_be_recorded_is_removed_again() {
    for fault in [Fault::Error(ErrorKind::Unavailable), Fault::LostAck] {
        for nth in [4, 5] {
            life(async {
                let world = World::new();
                let plan = FaultPlan::seeded(1).rule("commit", When::Nth(nth), fault);
                let plane = world.plane_with_faults(plan).await;
                let source = plane.create(mini()).await.unwrap();
                plane.snapshot(&source.id, name("golden"), Contents::default()).await.unwrap_err();
                sleep(60).await;
                assert_eq!((world.node.snapshot_ids(), world.snapshot_records().await), (vec![], 0));
            });
        }
    }
}

#[test]
fn a_removed_snapshot_is_gone_and_its_clones_go_on() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        source_and_snapshot(&plane).await;
        let clone = plane.create(from("golden")).await.unwrap();
        plane.remove_snapshot("golden").await.unwrap();
        assert_eq!((world.node.snapshot_ids(), world.snapshot_records().await), (vec![], 0));
        assert_eq!(state_of(&plane, &clone.id).await, Some(State::Running));
        let gone = plane.remove_snapshot("golden").await.unwrap_err();
        assert!(matches!(&gone, SnapshotError::NotFound(name) if name == "golden"));
        let gone = plane.create(from("golden")).await.unwrap_err();
        assert!(matches!(gone, CreateSandboxError::Snapshot(SnapshotError::NotFound(_))));
    });
}

#[test]
fn a_snapshot_is_not_removed_while_a_create_from_it_is_under_way() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        source_and_snapshot(&plane).await;
        world.node.hold_creates();
        let create = tokio::spawn({
            let plane = plane.clone();
            async move { plane.create(from("golden")).await }
        });
        world.node.until(|node| node.creating() == 1).await;
        let refused = plane.remove_snapshot("golden").await.unwrap_err();
        assert!(matches!(refused, SnapshotError::Busy(_)), "{refused:?}");
        world.node.release_creates();
        create.await.unwrap().unwrap();
        plane.remove_snapshot("golden").await.unwrap();
    });
}

#[test]
fn a_snapshot_in_the_making_is_neither_used_nor_removed_nor_swept() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let source = plane.create(mini()).await.unwrap();
        world.node.hold_stops();
        let taking = tokio::spawn({
            let (plane, id) = (plane.clone(), source.id.clone());
            async move { plane.snapshot(&id, name("golden"), Contents::default()).await }
        });
        world.node.until(|node| node.stop_calls() == 1).await;
        sleep(60).await;
        let refused = plane.create(from("golden")).await.unwrap_err();
        assert!(matches!(refused, CreateSandboxError::Snapshot(SnapshotError::Unfinished(_))));
        let refused = plane.remove_snapshot("golden").await.unwrap_err();
        assert!(matches!(refused, SnapshotError::Unfinished(_)));
        world.node.release_stops();
        taking.await.unwrap().unwrap();
        plane.create(from("golden")).await.unwrap();
    });
}

#[test]
fn a_daemon_killed_while_it_takes_a_snapshot_leaves_neither_files_nor_a_record_nor_a_name() {
    let world = World::new();
    world.node.hold_stops();
    let source = life(async {
        let plane = world.plane().await;
        let source = plane.create(mini()).await.unwrap();
        let id = source.id.clone();
        tokio::spawn(async move { plane.snapshot(&id, name("golden"), Contents::default()).await });
        world.node.until(|node| node.stop_calls() == 1).await;
        source
    });
    world.node.release_stops();
    world.node.put_snapshot(&SnapshotId::parse("s0half").unwrap(), &source.run);
    life(async {
        let plane = world.plane().await;
        assert_eq!((world.node.snapshot_ids(), world.snapshot_records().await), (vec![], 0));
        plane.snapshot(&source.id, name("golden"), Contents::default()).await.unwrap();
    });
}

#[test]
fn a_snapshot_whose_files_are_gone_says_so_and_can_be_removed() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let (_, snapshot) = source_and_snapshot(&plane).await;
        world.node.lose_snapshot(&snapshot.id);
        assert_eq!(plane.get_snapshot("golden").await.unwrap().status, SnapshotStatus::Missing);
        plane.create(from("golden")).await.unwrap_err();
        plane.remove_snapshot("golden").await.unwrap();
        assert_eq!(world.snapshot_records().await, 0);
    });
}

#[test]
fn a_template_is_kept_while_clones_live_and_its_snapshots_outlive_it() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let removable = TemplateName::parse("removable").unwrap();
        let source = plane.create(CreateSandbox { template: "removable".into(), ..mini() }).await.unwrap();
        plane.snapshot(&source.id, name("golden"), Contents::default()).await.unwrap();
        let refused = plane.remove_template(&removable).await.unwrap_err();
        assert_eq!((refused.kind(), refused.id()), (ErrorKind::Conflict, "removable"));
        assert!(refused.detail_text().unwrap().contains("1 sandbox"), "{refused:?}");
        let unknown = TemplateName::parse("unknown").unwrap();
        let both = [unknown.clone(), removable.clone()];
        assert_eq!(
            plane.remove_templates(&both).await.unwrap_err().id(),
            "removable",
            "before any is removed"
        );
        plane.pause(&source.id, PauseMode::Disk).await.unwrap();
        assert_eq!(plane.remove_templates(&both).await.unwrap_err().id(), "unknown");
        plane.remove_template(&removable).await.unwrap();
        plane.resume(&source.id, None).await.unwrap();
        plane.create(from("golden")).await.unwrap();
    });
}
