//! A create ends with a sandbox that runs, or with nothing.

use crate::world::{World, life, mini, sleep};
use flames_core::sandbox::error::CreateSandboxError;
use flames_core::sandbox::state::State;
use flames_node::CreateStep;
use flames_provider::ErrorKind;
use flames_provider::decorate::{Fault, FaultPlan, When};
use std::collections::HashSet;

/// The commits of a first start and a first create, in order.
const RECORD_COMMIT: u64 = 2;
const HAND_OUT_COMMIT: u64 = 3;

#[test]
fn a_create_that_fails_at_any_step_names_it_and_leaves_no_record_and_no_run() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        for step in CreateStep::ALL {
            world.node.fail_creates_at(Some(step));
            match plane.create(mini()).await {
                Err(CreateSandboxError::Start(error)) => assert_eq!(error.step(), step),
                other => panic!("{step}: {other:?}"),
            }
            world.assert_nothing_left().await;
        }
        world.node.fail_creates_at(None);
        assert_eq!(plane.create(mini()).await.unwrap().state, State::Running);
    });
}

#[test]
fn a_create_whose_record_cannot_be_written_starts_nothing() {
    life(async {
        let world = World::new();
        let fault = Fault::Error(ErrorKind::Unavailable);
        let plan = FaultPlan::seeded(1).rule("commit", When::Nth(RECORD_COMMIT), fault);
        let plane = world.plane_with_faults(plan).await;
        let refused = plane.create(mini()).await.unwrap_err();
        assert!(matches!(refused, CreateSandboxError::Record(_)), "{refused:?}");
        world.assert_nothing_left().await;
    });
}

#[test]
fn a_create_that_cannot_be_handed_out_is_taken_down_again() {
    for fault in [Fault::Error(ErrorKind::Unavailable), Fault::LostAck] {
        life(async {
            let world = World::new();
            let plan = FaultPlan::seeded(1).rule("commit", When::Nth(HAND_OUT_COMMIT), fault);
            let plane = world.plane_with_faults(plan).await;
            let refused = plane.create(mini()).await.unwrap_err();
            assert!(matches!(refused, CreateSandboxError::HandOut(_)), "{refused:?}");
            world.assert_nothing_left().await;
        });
    }
}

#[test]
fn a_record_that_a_failed_create_could_not_remove_is_gone_after_the_sweep() {
    life(async {
        let world = World::new();
        let fault = Fault::Error(ErrorKind::Unavailable);
        let plane = world
            .plane_with_faults(FaultPlan::seeded(1).rule("commit", When::Nth(HAND_OUT_COMMIT), fault))
            .await;
        world.node.fail_creates_at(Some(CreateStep::Boot));
        plane.create(mini()).await.unwrap_err();
        assert_eq!(world.records().await.len(), 1);
        sleep(200).await;
        assert_eq!(world.node.running(), []);
        let left = world.records().await;
        assert!(left.iter().all(|sandbox| sandbox.state == State::Failed), "{left:?}");
    });
}

#[test]
fn a_client_that_goes_away_while_its_sandbox_boots_leaves_nothing() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        world.node.hold_creates();
        let client = tokio::spawn({
            let plane = plane.clone();
            async move { plane.create(mini()).await }
        });
        world.node.until(|node| node.creating() == 1).await;
        client.abort();
        assert!(client.await.unwrap_err().is_cancelled());
        world.node.release_creates();
        world.node.until(|node| node.destroy_calls() == 1).await;
        plane.shutdown().await;
        world.assert_nothing_left().await;
    });
}

#[test]
fn creates_at_once_all_run_under_ids_of_their_own() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let creates: Vec<_> = (0..50)
            .map(|_| {
                let plane = plane.clone();
                tokio::spawn(async move { plane.create(mini()).await.unwrap() })
            })
            .collect();
        let mut ids = HashSet::new();
        for create in creates {
            let sandbox = create.await.unwrap();
            assert_eq!(sandbox.state, State::Running);
            ids.insert(sandbox.id);
        }
        assert_eq!((ids.len(), world.node.running().len()), (50, 50));
    });
}

#[test]
fn a_create_during_the_shutdown_is_refused_and_one_before_it_ends_well() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        world.node.hold_creates();
        let early = tokio::spawn({
            let plane = plane.clone();
            async move { plane.create(mini()).await }
        });
        world.node.until(|node| node.creating() == 1).await;
        let shutdown = tokio::spawn({
            let plane = plane.clone();
            async move { plane.shutdown().await }
        });
        tokio::task::yield_now().await;
        let late = plane.create(mini()).await.unwrap_err();
        assert!(matches!(late, CreateSandboxError::ShuttingDown));
        world.node.release_creates();
        shutdown.await.unwrap();
        assert_eq!(early.await.unwrap().unwrap().state, State::Running);
    });
}
