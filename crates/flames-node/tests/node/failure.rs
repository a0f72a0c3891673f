//! A create that fails at any step leaves nothing.

use crate::fake_agent::Agent;
use crate::harness::{Home, assert_nothing_left, request};
use flames_node::{CreateStep, FailurePoint, NetworkMode, Node};
use flames_vmm::fake::FakeWorld;

#[tokio::test]
async fn a_create_that_fails_at_any_step_leaves_nothing() {
    for step in CreateStep::ALL {
        let world = FakeWorld::new();
        let home = Home::fake(&world, Agent::Willing, FailurePoint::after(step));
        let error = home.node.create(request("run-1")).await.unwrap_err();
        assert_eq!(error.step(), step, "{error:?}");
        assert_eq!(world.alive(), [], "after {step}");
        assert_nothing_left(&home.node, home.root.path()).await;
        home.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn vm_create_that_fails_at_any_step_leaves_nothing() {
    for network in [NetworkMode::Namespaces, NetworkMode::User] {
        for step in CreateStep::ALL {
            let Some(home) = Home::real(network, FailurePoint::after(step)) else { return };
            let error = home.node.create(request("run-1")).await.unwrap_err();
            assert_eq!(error.step(), step, "{error:?}");
            home.close().await;
        }
    }
}
