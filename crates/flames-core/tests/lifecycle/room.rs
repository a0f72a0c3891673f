//! A machine's memory is given away once: what does not fit is refused at once, and fits again later.

use crate::world::{World, life, mini};
use flames_core::sandbox::error::{CreateSandboxError, ForkError, ResumeError};
use flames_core::sandbox::fork::Fork;
use flames_core::sandbox::pause::PauseMode;
use flames_core::sandbox::state::State;
use flames_node::CreateStep;
use std::time::Duration;

/// What `mini` counts when its kernel is booted, and as a clone.
pub(crate) const BOOTED: u32 = 256 + 32;
pub(crate) const CLONE: u32 = 64 + 32;

#[test]
fn of_a_burst_as_many_succeed_as_fit_and_the_others_are_refused_with_a_time_to_come_back() {
    life(async {
        let world = World::new();
        let plane = world.plane_with_memory(20 * BOOTED).await;
        let burst: Vec<_> = (0..100)
            .map(|_| {
                let plane = plane.clone();
                tokio::spawn(async move { plane.create(mini()).await })
            })
            .collect();
        let (mut made, mut refused) = (Vec::new(), 0);
        for create in burst {
            match create.await.unwrap() {
                Ok(sandbox) => made.push(sandbox.id),
                Err(CreateSandboxError::NoRoom(full)) => {
                    refused += 1;
                    assert!(full.retry_after >= Duration::from_secs(1));
                }
                Err(other) => panic!("{other:?}"),
            }
        }
        assert_eq!((made.len(), refused), (20, 80));
        assert_eq!((world.node.running().len(), world.records().await.len()), (20, 20));
        plane.destroy(&made[0]).await.unwrap();
        plane.create(mini()).await.unwrap();
        assert!(plane.create(mini()).await.is_err());
    });
}

#[test]
fn what_failed_gives_its_memory_back() {
    life(async {
        let world = World::new();
        let plane = world.plane_with_memory(BOOTED).await;
        for step in CreateStep::ALL {
            world.node.fail_creates_at(Some(step));
            assert!(matches!(plane.create(mini()).await, Err(CreateSandboxError::Start(_))), "{step}");
        }
        world.node.fail_creates_at(None);
        let sandbox = plane.create(mini()).await.unwrap();
        world.node.kill(&sandbox.run, flames_node::ExitCause::GuestPanic);
        world.node.until(|node| node.destroy_calls() == 1).await;
        tokio::task::yield_now().await;
        plane.create(mini()).await.unwrap();
    });
}

#[test]
fn what_rests_on_disk_holds_no_memory_and_needs_some_to_come_back() {
    life(async {
        let world = World::new();
        let plane = world.plane_with_memory(BOOTED).await;
        let rests = plane.create(mini()).await.unwrap().id;
        plane.pause(&rests, PauseMode::Disk).await.unwrap();
        let other = plane.create(mini()).await.unwrap().id;
        let refused = plane.resume(&rests, None).await.unwrap_err();
        assert!(matches!(refused, ResumeError::NoRoom(_)), "{refused:?}");
        assert_eq!(plane.get(&rests).await.unwrap().state, State::Snapshotted);
        plane.destroy(&other).await.unwrap();
        plane.resume(&rests, None).await.unwrap();
    });
}

#[test]
fn forks_fit_together_or_not_at_all() {
    life(async {
        let world = World::new();
        let plane = world.plane_with_memory(BOOTED + 3 * CLONE).await;
        let source = plane.create(mini()).await.unwrap();
        let fork = |count| Fork { count, timeout: None };
        let refused = plane.fork(&source.id, fork(4)).await.unwrap_err();
        assert!(matches!(refused, ForkError::NoRoom(_)), "{refused:?}");
        assert_eq!(world.node.stop_calls(), 0, "refused before the source stood still");
        plane.fork(&source.id, fork(3)).await.unwrap();
        assert!(matches!(plane.fork(&source.id, fork(1)).await, Err(ForkError::NoRoom(_))));
    });
}

#[test]
fn what_lives_at_a_start_holds_its_memory() {
    let world = World::new();
    let sandbox = life(async { world.plane_with_memory(BOOTED).await.create(mini()).await.unwrap() });
    life(async {
        let plane = world.plane_with_memory(BOOTED).await;
        assert!(matches!(plane.create(mini()).await, Err(CreateSandboxError::NoRoom(_))));
        plane.destroy(&sandbox.id).await.unwrap();
        plane.create(mini()).await.unwrap();
    });
}
