//! A VMM that ends by itself: the sandbox fails with the cause, and only its own run's end counts.

use crate::world::{World, life, mini, sleep, state_of};
use flames_core::sandbox::admit::Timeout;
use flames_core::sandbox::error::{GuestCallError, LifecycleError};
use flames_core::sandbox::record::Failure;
use flames_core::sandbox::state::State;
use flames_node::{ExitCause, VmId};

#[test]
fn a_vm_that_died_leaves_a_failed_record_with_the_cause_and_nothing_on_the_host() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let sandbox = plane.create(mini()).await.unwrap();
        world.node.kill(&sandbox.run, ExitCause::GuestPanic);
        world.node.until(|node| node.destroy_calls() == 1).await;
        let failed = plane.get(&sandbox.id).await.unwrap();
        assert_eq!(failed.state, State::Failed);
        match failed.failure {
            Some(Failure::VmExited { exit }) => {
                assert_eq!((exit.cause, exit.last_output.as_str()), (ExitCause::GuestPanic, "last words"));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(world.node.running(), []);
    });
}

#[test]
fn a_failed_sandbox_takes_no_commands_has_no_end_and_can_be_removed() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let sandbox = plane.create(mini()).await.unwrap();
        world.node.kill(&sandbox.run, ExitCause::Crashed { code: Some(1), signal: None });
        world.node.until(|node| node.destroy_calls() == 1).await;
        let refused = plane.guest(&sandbox.id).await.unwrap_err();
        let not_running =
            |error: &LifecycleError| matches!(error, LifecycleError::NotRunning { state: State::Failed, .. });
        assert!(matches!(&refused, GuestCallError::Sandbox(error) if not_running(error)), "{refused}");
        assert!(not_running(&plane.set_timeout(&sandbox.id, Timeout::Never).await.unwrap_err()));
        sleep(3600).await;
        assert_eq!(state_of(&plane, &sandbox.id).await, Some(State::Failed));
        plane.destroy(&sandbox.id).await.unwrap();
        world.assert_nothing_left().await;
    });
}

#[test]
fn the_end_of_another_run_is_ignored() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let sandbox = plane.create(mini()).await.unwrap();
        for other in [format!("{}-2", sandbox.id), "i0stranger-1".into(), "no-sandbox".into()] {
            world.node.tell_exit(&VmId::parse(other).unwrap(), ExitCause::GuestPanic);
        }
        sleep(300 - 1).await;
        assert_eq!(state_of(&plane, &sandbox.id).await, Some(State::Running));
    });
}

/// Whoever stopped a VM brings its record along: a look at the record for each end would fall behind many destroys.
#[test]
fn an_end_by_somebody_of_this_house_is_left_to_whoever_asked_for_it() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let stopped = plane.create(mini()).await.unwrap();
        let crashed = plane.create(mini()).await.unwrap();
        world.node.tell_exit(&stopped.run, ExitCause::Stopped);
        world.node.kill(&crashed.run, ExitCause::GuestPanic);
        world.node.until(|node| node.destroy_calls() == 1).await;
        assert_eq!(state_of(&plane, &crashed.id).await, Some(State::Failed));
        assert_eq!(state_of(&plane, &stopped.id).await, Some(State::Running));
    });
}

#[test]
fn an_end_that_nobody_told_is_found_by_the_sweep() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let sandbox = plane.create(mini()).await.unwrap();
        world.node.vanish(&sandbox.run);
        sleep(200).await;
        let failed = plane.get(&sandbox.id).await.unwrap();
        assert_eq!((failed.state, failed.failure), (State::Failed, Some(Failure::LostWhileDown)));
    });
}

#[test]
fn a_vm_that_the_host_could_not_clear_away_is_cleared_by_the_sweep() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let sandbox = plane.create(mini()).await.unwrap();
        world.node.fail_destroys(1);
        world.node.tell_exit(&sandbox.run, ExitCause::Unknown);
        world.node.until(|node| node.destroy_calls() == 1).await;
        assert_eq!(world.node.running(), std::slice::from_ref(&sandbox.run));
        sleep(200).await;
        assert_eq!(world.node.running(), []);
        assert_eq!(state_of(&plane, &sandbox.id).await, Some(State::Failed));
    });
}
