//! A destroy is accepted in every state, happens once, and is finished by somebody.

use crate::world::{World, life, mini, sleep, state_of};
use flames_core::SandboxId;
use flames_core::sandbox::error::LifecycleError;
use flames_core::sandbox::record::Sandbox;
use flames_core::sandbox::state::State;
use flames_node::VmId;

#[test]
fn destroys_at_once_all_succeed_and_the_run_is_gone() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let id = plane.create(mini()).await.unwrap().id;
        let destroys: Vec<_> = (0..8)
            .map(|_| {
                let (plane, id) = (plane.clone(), id.clone());
                tokio::spawn(async move { plane.destroy(&id).await })
            })
            .collect();
        for destroy in destroys {
            let ended = destroy.await.unwrap();
            assert!(matches!(ended, Ok(()) | Err(LifecycleError::NotFound(_))), "{ended:?}");
        }
        world.assert_nothing_left().await;
    });
}

#[test]
fn a_second_destroy_during_the_first_waits_for_the_same_end() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let id = plane.create(mini()).await.unwrap().id;
        world.node.hold_destroys();
        let destroys = [(); 2].map(|()| {
            let (plane, id) = (plane.clone(), id.clone());
            tokio::spawn(async move { plane.destroy(&id).await })
        });
        world.node.until(|node| node.destroy_calls() == 2).await;
        world.node.release_destroys();
        for destroy in destroys {
            destroy.await.unwrap().unwrap();
        }
        world.assert_nothing_left().await;
    });
}

#[test]
fn a_destroy_while_its_sandbox_boots_ends_the_create_and_leaves_nothing() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        world.node.hold_creates();
        let create = tokio::spawn({
            let plane = plane.clone();
            async move { plane.create(mini()).await }
        });
        world.node.until(|node| node.creating() == 1).await;
        let id = world.records().await.remove(0).id;
        plane.destroy(&id).await.unwrap();
        assert!(create.await.unwrap().is_err());
        world.assert_nothing_left().await;
    });
}

#[test]
fn a_sandbox_that_came_up_while_it_was_destroyed_is_not_handed_out() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        world.node.hold_creates();
        world.node.hold_destroys();
        let create = tokio::spawn({
            let plane = plane.clone();
            async move { plane.create(mini()).await }
        });
        world.node.until(|node| node.creating() == 1).await;
        let id = world.records().await.remove(0).id;
        let destroy = tokio::spawn({
            let plane = plane.clone();
            async move { plane.destroy(&id).await }
        });
        world.node.until(|node| node.destroy_calls() == 1).await;
        world.node.release_creates();
        world.node.until(|node| node.running().len() == 1).await;
        world.node.release_destroys();
        destroy.await.unwrap().unwrap();
        assert!(create.await.unwrap().is_err());
        world.assert_nothing_left().await;
    });
}

#[test]
fn a_destroy_is_accepted_in_every_state_and_a_second_finds_nothing() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        for state in State::ALL {
            let sandbox = plane.create(mini()).await.unwrap();
            world.put(&Sandbox { state, ..sandbox.clone() }).await;
            plane.destroy(&sandbox.id).await.unwrap_or_else(|error| panic!("{state:?}: {error}"));
            world.assert_nothing_left().await;
            let again = plane.destroy(&sandbox.id).await;
            assert!(matches!(again, Err(LifecycleError::NotFound(_))), "{state:?}: {again:?}");
        }
    });
}

#[test]
fn a_sandbox_that_never_was_is_not_found() {
    life(async {
        let plane = World::new().plane().await;
        let id = SandboxId::random();
        assert!(matches!(plane.destroy(&id).await, Err(LifecycleError::NotFound(missing)) if missing == id));
    });
}

#[test]
fn a_first_command_recorded_during_a_destroy_does_not_stop_it() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let id = plane.create(mini()).await.unwrap().id;
        world.node.hold_destroys();
        let destroy = tokio::spawn({
            let (plane, id) = (plane.clone(), id.clone());
            async move { plane.destroy(&id).await }
        });
        world.node.until(|node| node.destroy_calls() == 1).await;
        plane.record_first_command(&id, 7.0).await.unwrap();
        world.node.release_destroys();
        destroy.await.unwrap().unwrap();
        world.assert_nothing_left().await;
    });
}

#[test]
fn a_destroy_that_the_host_refused_stays_stopping_until_the_sweep_finishes_it() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let id = plane.create(mini()).await.unwrap().id;
        world.node.fail_destroys(1);
        assert!(matches!(plane.destroy(&id).await, Err(LifecycleError::Node { .. })));
        assert_eq!(state_of(&plane, &id).await, Some(State::Stopping));
        sleep(200).await;
        world.assert_nothing_left().await;
    });
}

#[test]
fn a_client_that_goes_away_during_its_destroy_does_not_stop_it() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let sandbox = plane.create(mini()).await.unwrap();
        world.node.hold_destroys();
        let client = tokio::spawn({
            let (plane, id) = (plane.clone(), sandbox.id.clone());
            async move { plane.destroy(&id).await }
        });
        world.node.until(|node| node.destroy_calls() == 1).await;
        client.abort();
        world.node.release_destroys();
        plane.shutdown().await;
        world.assert_nothing_left().await;
    });
}

#[test]
fn a_stuck_create_of_nobody_is_failed_by_the_sweep_and_its_run_is_gone() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let sandbox = plane.create(mini()).await.unwrap();
        world.put(&Sandbox { state: State::Starting, ..sandbox.clone() }).await;
        sleep(200).await;
        assert_eq!(state_of(&plane, &sandbox.id).await, Some(State::Failed));
        assert_eq!(world.node.running(), Vec::<VmId>::new());
    });
}
