//! A sandbox ends at its time: not before, not long after, and not because of another one.

use crate::world::{World, ending_after, life, sleep, state_of};
use flames_core::sandbox::admit::{CreateSandbox, Timeout};
use flames_core::sandbox::state::State;
use std::time::Duration;

#[test]
fn a_sandbox_ends_at_its_time_and_not_before() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let id = plane.create(ending_after(100)).await.unwrap().id;
        sleep(99).await;
        assert_eq!(state_of(&plane, &id).await, Some(State::Running));
        sleep(2).await;
        world.assert_nothing_left().await;
    });
}

#[test]
fn a_timeout_that_was_extended_in_time_is_honoured() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let id = plane.create(ending_after(100)).await.unwrap().id;
        sleep(99).await;
        plane.set_timeout(&id, Timeout::After(Duration::from_secs(50))).await.unwrap();
        sleep(49).await;
        assert_eq!(state_of(&plane, &id).await, Some(State::Running));
        sleep(2).await;
        world.assert_nothing_left().await;
    });
}

#[test]
fn a_timeout_that_was_shortened_ends_the_sandbox_early() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let id = plane.create(ending_after(1000)).await.unwrap().id;
        plane.set_timeout(&id, Timeout::After(Duration::from_secs(5))).await.unwrap();
        sleep(6).await;
        world.assert_nothing_left().await;
    });
}

#[test]
fn a_sandbox_without_an_end_goes_on() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let forever = CreateSandbox { timeout: Some(Timeout::Never), ..ending_after(1) };
        let id = plane.create(forever).await.unwrap().id;
        sleep(24 * 3600).await;
        assert_eq!(state_of(&plane, &id).await, Some(State::Running));
    });
}

#[test]
fn an_expiry_that_the_host_refused_is_finished_by_the_sweep() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let id = plane.create(ending_after(10)).await.unwrap().id;
        world.node.fail_destroys(1);
        sleep(11).await;
        assert_eq!(state_of(&plane, &id).await, Some(State::Stopping));
        sleep(200).await;
        world.assert_nothing_left().await;
    });
}

#[test]
fn one_that_is_slow_to_end_does_not_keep_another_alive() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let slow = plane.create(ending_after(10)).await.unwrap();
        let next = plane.create(ending_after(20)).await.unwrap();
        world.node.hold_destroys();
        sleep(21).await;
        assert_eq!(state_of(&plane, &slow.id).await, Some(State::Stopping));
        assert_eq!(state_of(&plane, &next.id).await, Some(State::Stopping));
        world.node.release_destroys();
        plane.shutdown().await;
        world.assert_nothing_left().await;
    });
}
