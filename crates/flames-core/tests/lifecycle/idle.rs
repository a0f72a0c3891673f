//! A sandbox with an idle limit ends when nobody has used it for so long, and not while somebody does.

use crate::pause::goes_on_and_is_paused_later;
use crate::world::{World, ending_after, life, mini, sleep, state_of};
use flames_core::sandbox::admit::{CreateSandbox, Timeout};
use flames_core::sandbox::pause::PauseMode;
use flames_core::sandbox::record::OnTimeout;
use flames_core::sandbox::state::State;
use std::time::Duration;

/// Without another end.
fn idle_after(seconds: u64) -> CreateSandbox {
    CreateSandbox { timeout: Some(Timeout::Never), idle_timeout_s: Some(seconds), ..mini() }
}

fn resting_when_idle_for(seconds: u64) -> CreateSandbox {
    CreateSandbox { on_timeout: OnTimeout::Pause, ..idle_after(seconds) }
}

#[test]
fn a_sandbox_that_nobody_uses_ends_at_its_idle_limit_and_not_before() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let id = plane.create(idle_after(100)).await.unwrap().id;
        sleep(99).await;
        assert_eq!(state_of(&plane, &id).await, Some(State::Running));
        sleep(2).await;
        world.assert_nothing_left().await;
    });
}

#[test]
fn a_request_into_it_begins_its_limit_anew() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let id = plane.create(idle_after(100)).await.unwrap().id;
        for _ in 0..3 {
            sleep(99).await;
            drop(plane.guest(&id).await.unwrap());
        }
        sleep(99).await;
        assert_eq!(state_of(&plane, &id).await, Some(State::Running));
        sleep(2).await;
        world.assert_nothing_left().await;
    });
}

#[test]
fn while_a_stream_is_open_it_goes_on_and_its_limit_begins_at_the_end_of_the_last() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let id = plane.create(idle_after(100)).await.unwrap().id;
        let followed = plane.guest(&id).await.unwrap().into_work();
        sleep(1050).await;
        let forwarded = plane.work(&id);
        drop(followed);
        sleep(550).await;
        assert_eq!(state_of(&plane, &id).await, Some(State::Running));
        drop(forwarded);
        sleep(99).await;
        assert_eq!(state_of(&plane, &id).await, Some(State::Running));
        sleep(2).await;
        world.assert_nothing_left().await;
    });
}

#[test]
fn to_measure_it_is_no_use_of_it() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let id = plane.create(idle_after(100)).await.unwrap().id;
        sleep(50).await;
        let _measures = plane.guest_unnoticed(&id).await.unwrap();
        plane.get(&id).await.unwrap();
        sleep(51).await;
        world.assert_nothing_left().await;
    });
}

#[test]
fn a_timeout_that_is_set_is_a_use() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let id = plane.create(idle_after(100)).await.unwrap().id;
        let long = Timeout::After(Duration::from_secs(1000));
        sleep(50).await;
        plane.set_timeout(&id, long).await.unwrap();
        sleep(99).await;
        plane.extend_timeout(&id, long).await.unwrap();
        sleep(99).await;
        assert_eq!(state_of(&plane, &id).await, Some(State::Running));
        sleep(2).await;
        world.assert_nothing_left().await;
    });
}

#[test]
fn an_open_stream_does_not_put_its_timeout_off() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let asked = CreateSandbox { idle_timeout_s: Some(100), ..ending_after(10) };
        let id = plane.create(asked).await.unwrap().id;
        let _open = plane.work(&id);
        sleep(11).await;
        world.assert_nothing_left().await;
    });
}

#[test]
fn one_that_is_to_be_paused_rests_when_it_is_idle_and_again_after_its_resume() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let id = plane.create(resting_when_idle_for(100)).await.unwrap().id;
        for _ in 0..2 {
            sleep(99).await;
            assert_eq!(state_of(&plane, &id).await, Some(State::Running));
            sleep(2).await;
            assert_eq!(state_of(&plane, &id).await, Some(State::Snapshotted));
            sleep(5000).await;
            assert_eq!(plane.resume(&id, None).await.unwrap().sandbox.ends_at, None);
        }
    });
}

#[test]
fn one_that_was_paused_in_memory_is_not_ended_for_being_idle() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let id = plane.create(idle_after(100)).await.unwrap().id;
        plane.pause(&id, PauseMode::Memory).await.unwrap();
        sleep(1000).await;
        assert_eq!(state_of(&plane, &id).await, Some(State::Paused));
        plane.resume(&id, None).await.unwrap();
        sleep(99).await;
        assert_eq!(state_of(&plane, &id).await, Some(State::Running));
        sleep(2).await;
        world.assert_nothing_left().await;
    });
}

#[test]
fn one_that_could_not_be_paused_goes_on_and_is_paused_later() {
    goes_on_and_is_paused_later(resting_when_idle_for(100));
}

#[test]
fn after_a_restart_of_the_daemon_its_limit_begins_anew() {
    let world = World::new();
    let id = life(async {
        let plane = world.plane().await;
        let id = plane.create(idle_after(100)).await.unwrap().id;
        sleep(60).await;
        id
    });
    life(async {
        let plane = world.plane().await;
        sleep(99).await;
        assert_eq!(state_of(&plane, &id).await, Some(State::Running));
        sleep(2).await;
        world.assert_nothing_left().await;
    });
}

#[test]
fn a_fork_has_the_limit_of_its_source() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let source = plane.create(idle_after(100)).await.unwrap();
        let never = Some(Timeout::Never);
        let forked = plane.fork(&source.id, flames_core::sandbox::fork::Fork { count: 1, timeout: never });
        assert_eq!(forked.await.unwrap().forks[0].idle_timeout_s, source.idle_timeout_s);
        sleep(101).await;
        world.assert_nothing_left().await;
    });
}
