//! After a daemon's death at any moment: what lives is owned again, what is half done is finished or undone.

use crate::world::{World, ending_after, life, mini, sleep, state_of};
use flames_core::sandbox::record::{Failure, Sandbox};
use flames_core::sandbox::state::State;
use flames_node::VmId;

#[test]
fn a_running_sandbox_is_adopted_and_still_ends_at_its_time() {
    let world = World::new();
    life(async { world.plane().await.create(ending_after(100)).await.unwrap() });
    life(async {
        let sandbox = world.records().await.remove(0);
        let plane = world.plane().await;
        assert_eq!(plane.get(&sandbox.id).await.unwrap(), sandbox);
        assert_eq!(world.node.running(), std::slice::from_ref(&sandbox.run));
        assert!(plane.guest(&sandbox.id).await.is_ok());
        sleep(101).await;
        world.assert_nothing_left().await;
    });
}

#[test]
fn a_sandbox_keeps_its_access_token() {
    let world = World::new();
    let (id, token) = life(async {
        let plane = world.plane().await;
        let id = plane.create(mini()).await.unwrap().id;
        let token = plane.access_token(&id);
        (id, token)
    });
    life(async {
        let plane = world.plane().await;
        assert!(plane.access_token(&id) == token);
        let other = plane.create(mini()).await.unwrap().id;
        assert!(plane.access_token(&other) != token);
    });
}

#[test]
fn a_sandbox_whose_vm_died_meanwhile_is_failed_and_says_so() {
    let world = World::new();
    let sandbox = life(async { world.plane().await.create(mini()).await.unwrap() });
    world.node.vanish(&sandbox.run);
    life(async {
        let found = world.plane().await.get(&sandbox.id).await.unwrap();
        assert_eq!((found.state, found.failure), (State::Failed, Some(Failure::LostWhileDown)));
    });
}

#[test]
fn a_create_that_was_under_way_is_undone() {
    let world = World::new();
    world.node.hold_creates();
    life(async {
        let plane = world.plane().await;
        tokio::spawn(async move { plane.create(mini()).await });
        world.node.until(|node| node.creating() == 1).await;
        assert_eq!(world.records().await[0].state, State::Starting);
    });
    life(async {
        let _plane = world.plane().await;
        world.assert_nothing_left().await;
    });
}

#[test]
fn a_vm_that_came_up_and_was_not_handed_out_yet_is_undone() {
    let world = World::new();
    let sandbox = life(async { world.plane().await.create(mini()).await.unwrap() });
    life(async {
        world.put(&Sandbox { state: State::Starting, ..sandbox.clone() }).await;
        let _plane = world.plane().await;
        world.assert_nothing_left().await;
    });
}

#[test]
fn a_destroy_that_was_under_way_is_finished() {
    let world = World::new();
    life(async {
        let plane = world.plane().await;
        let id = plane.create(mini()).await.unwrap().id;
        world.node.hold_destroys();
        tokio::spawn(async move { plane.destroy(&id).await });
        world.node.until(|node| node.destroy_calls() == 1).await;
    });
    world.node.release_destroys();
    life(async {
        let _plane = world.plane().await;
        world.assert_nothing_left().await;
    });
}

#[test]
fn a_run_that_no_record_owns_is_destroyed() {
    let world = World::new();
    world.node.start_unowned("i0stranger-1");
    world.node.start_unowned("not-ours");
    life(async {
        let _plane = world.plane().await;
        world.assert_nothing_left().await;
    });
}

#[test]
fn a_failed_sandbox_whose_vm_still_lives_loses_it_and_keeps_its_record() {
    let world = World::new();
    let sandbox = life(async { world.plane().await.create(mini()).await.unwrap() });
    life(async {
        world.put(&Sandbox { state: State::Failed, ..sandbox.clone() }).await;
        let plane = world.plane().await;
        assert_eq!(state_of(&plane, &sandbox.id).await, Some(State::Failed));
        assert_eq!(world.node.running(), Vec::<VmId>::new());
    });
}

#[test]
fn a_failed_sandbox_keeps_its_record_when_its_time_is_over() {
    let world = World::new();
    let sandbox = life(async { world.plane().await.create(ending_after(10)).await.unwrap() });
    life(async {
        world.put(&Sandbox { state: State::Failed, ..sandbox.clone() }).await;
        let plane = world.plane().await;
        sleep(11).await;
        assert_eq!(state_of(&plane, &sandbox.id).await, Some(State::Failed));
    });
}

#[test]
fn two_restarts_change_nothing_more_than_one() {
    let world = World::new();
    life(async { world.plane().await.create(mini()).await.unwrap() });
    let kept = life(async { world.records().await.remove(0) });
    for _ in 0..2 {
        life(async {
            let _plane = world.plane().await;
            assert_eq!(world.records().await, std::slice::from_ref(&kept));
            assert_eq!(world.node.running(), std::slice::from_ref(&kept.run));
        });
    }
}
