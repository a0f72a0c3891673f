//! Forks: all of them or none, and the source goes on.

use crate::world::{World, life, mini, state_of};
use flames_core::sandbox::admit::CreateSandbox;
use flames_core::sandbox::error::{ForkError, LifecycleError};
use flames_core::sandbox::fork::Fork;
use flames_core::sandbox::pause::PauseMode;
use flames_core::sandbox::record::Origin;
use flames_core::sandbox::state::State;
use flames_node::Identity;
use flames_provider::ErrorKind;
use std::collections::{BTreeMap, HashSet};

fn forks(count: u32) -> Fork {
    Fork { count, timeout: None }
}

#[test]
fn every_fork_runs_with_an_id_and_a_token_of_its_own_and_the_source_goes_on() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let metadata = BTreeMap::from([("team".to_owned(), "a".to_owned())]);
        let source = plane.create(CreateSandbox { metadata: metadata.clone(), ..mini() }).await.unwrap();
        let forked = plane.fork(&source.id, forks(20)).await.unwrap();
        assert_eq!(forked.snapshot.paused_ms, 3.0);
        let (mut ids, mut tokens) = (HashSet::from([source.id.clone()]), HashSet::new());
        tokens.insert(plane.access_token(&source.id).expose().to_owned());
        for fork in &forked.forks {
            assert_eq!((fork.state, &fork.metadata), (State::Running, &metadata));
            assert_eq!(fork.origin, Some(Origin::Fork(source.id.clone())));
            ids.insert(fork.id.clone());
        }
        for asked in &world.node.created()[1..] {
            assert_eq!((asked.identity, &asked.env), (Identity::New, &None));
            tokens.insert(asked.access_token.expose().to_owned());
        }
        assert_eq!((ids.len(), tokens.len(), world.node.running().len()), (21, 21, 21));
        assert_eq!(world.node.snapshot_ids(), [], "the capture does not outlive the fork");
        assert_eq!(state_of(&plane, &source.id).await, Some(State::Running));
    });
}

#[test]
fn a_count_of_none_or_of_too_many_is_refused_by_its_field() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let source = plane.create(mini()).await.unwrap();
        for count in [0, 21, u32::MAX] {
            match plane.fork(&source.id, forks(count)).await.unwrap_err() {
                ForkError::Source(LifecycleError::Invalid(invalid)) => assert_eq!(invalid.field, "count"),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(world.node.stop_calls(), 0);
    });
}

#[test]
fn one_fork_that_fails_takes_the_others_with_it_and_says_how_many_and_why() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let source = plane.create(mini()).await.unwrap();
        world.node.fail_creates_after(3);
        match plane.fork(&source.id, forks(5)).await.unwrap_err() {
            ForkError::Clones { id, failed, count, .. } => {
                assert_eq!((id, failed, count), (source.id.clone(), 2, 5));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!((world.node.running(), world.node.snapshot_ids()), (vec![source.run], vec![]));
        assert_eq!(world.records().await.len(), 1);
    });
}

#[test]
fn a_source_that_cannot_be_captured_goes_on_and_nothing_is_left() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let source = plane.create(mini()).await.unwrap();
        world.node.fail_stops(Some(ErrorKind::Unsupported));
        let refused = plane.fork(&source.id, forks(2)).await.unwrap_err();
        assert!(matches!(refused, ForkError::Capture { .. }), "{refused:?}");
        assert_eq!((world.node.running(), world.records().await.len()), (vec![source.run], 1));
    });
}

#[test]
fn only_what_runs_is_forked() {
    life(async {
        let plane = World::new().plane().await;
        for mode in [PauseMode::Disk, PauseMode::Memory] {
            let id = plane.create(mini()).await.unwrap().id;
            plane.pause(&id, mode).await.unwrap();
            let refused = plane.fork(&id, forks(1)).await.unwrap_err();
            assert!(matches!(refused, ForkError::Source(LifecycleError::NotRunning { .. })), "{refused:?}");
        }
    });
}

#[test]
fn a_source_that_ends_during_the_capture_is_told_as_such() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let source = plane.create(mini()).await.unwrap();
        world.node.hold_stops();
        let fork = tokio::spawn({
            let (plane, id) = (plane.clone(), source.id.clone());
            async move { plane.fork(&id, forks(2)).await }
        });
        world.node.until(|node| node.stop_calls() == 1).await;
        plane.destroy(&source.id).await.unwrap();
        world.node.release_stops();
        let refused = fork.await.unwrap().unwrap_err();
        assert!(matches!(refused, ForkError::Source(LifecycleError::NotFound(_))), "{refused:?}");
        world.assert_nothing_left().await;
    });
}

#[test]
fn a_client_that_goes_away_leaves_no_forks() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let source = plane.create(mini()).await.unwrap();
        world.node.hold_creates();
        let client = tokio::spawn({
            let (plane, id) = (plane.clone(), source.id.clone());
            async move { plane.fork(&id, forks(4)).await }
        });
        world.node.until(|node| node.creating() == 4).await;
        client.abort();
        let _ = client.await;
        world.node.release_creates();
        plane.shutdown().await;
        assert_eq!((world.node.running(), world.records().await.len()), (vec![source.run], 1));
    });
}

#[test]
fn a_daemon_killed_during_a_fork_leaves_the_source_alone() {
    let world = World::new();
    let source = life(async { world.plane().await.create(mini()).await.unwrap() });
    world.node.hold_creates();
    life(async {
        let plane = world.plane().await;
        let id = source.id.clone();
        tokio::spawn(async move { plane.fork(&id, forks(4)).await });
        world.node.until(|node| node.creating() == 4).await;
    });
    life(async {
        let _plane = world.plane().await;
        assert_eq!((world.node.running(), world.node.snapshot_ids()), (vec![source.run.clone()], vec![]));
        assert_eq!(world.records().await.len(), 1);
    });
}
