//! What a sandbox may reach is what its record says, through every change of its life.

use crate::world::{World, life, mini};
use flames_core::ControlPlane;
use flames_core::SandboxId;
use flames_core::sandbox::admit::CreateSandbox;
use flames_core::sandbox::error::LifecycleError;
use flames_core::sandbox::fork::Fork;
use flames_core::sandbox::pause::PauseMode;
use flames_core::snapshot::record::SnapshotName;
use flames_node::egress::PolicySpec;
use flames_node::{Contents, EgressPolicy};
use flames_provider::ErrorKind;

fn reaching(rule: &str) -> EgressPolicy {
    let spec = PolicySpec { allow: vec![rule.to_owned()], ..PolicySpec::default() };
    EgressPolicy::new(&spec).unwrap()
}

fn created_with(policy: &EgressPolicy) -> CreateSandbox {
    CreateSandbox { network: Some(policy.clone()), ..mini() }
}

/// What the record says and what the host does; they must be the same.
async fn network_of(world: &World, plane: &ControlPlane, id: &SandboxId) -> EgressPolicy {
    let sandbox = plane.get(id).await.unwrap();
    assert_eq!(world.node.network_of(&sandbox.run).unwrap(), sandbox.network);
    sandbox.network
}

#[test]
fn a_create_that_says_nothing_reaches_nothing_and_one_that_asks_has_it_from_the_start() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let silent = plane.create(mini()).await.unwrap();
        assert!(network_of(&world, &plane, &silent.id).await.is_sealed());
        let asked = plane.create(created_with(&EgressPolicy::internet())).await.unwrap();
        assert_eq!(network_of(&world, &plane, &asked.id).await, EgressPolicy::internet());
    });
}

#[test]
fn pause_resume_fork_and_snapshot_keep_what_may_be_reached() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let policy = reaching("api.example.com:443");
        let id = plane.create(created_with(&policy)).await.unwrap().id;
        plane.pause(&id, PauseMode::Disk).await.unwrap();
        plane.resume(&id, None).await.unwrap();
        assert_eq!(network_of(&world, &plane, &id).await, policy);
        let forked = plane.fork(&id, Fork { count: 2, timeout: None }).await.unwrap();
        for fork in &forked.forks {
            assert_eq!(network_of(&world, &plane, &fork.id).await, policy);
        }
        let name = SnapshotName::parse("golden").unwrap();
        plane.snapshot(&id, Some(name), Contents::default()).await.unwrap();
        let from =
            |network| CreateSandbox { from_snapshot: Some("golden".into()), network, ..Default::default() };
        let same = plane.create(from(None)).await.unwrap();
        assert_eq!(network_of(&world, &plane, &same.id).await, policy);
        let sealed = plane.create(from(Some(EgressPolicy::default()))).await.unwrap();
        assert!(network_of(&world, &plane, &sealed.id).await.is_sealed());
    });
}

#[test]
fn a_change_holds_at_once_and_for_one_that_rests_from_its_resume_on() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let id = plane.create(mini()).await.unwrap().id;
        plane.set_network(&id, reaching("192.0.2.1")).await.unwrap();
        assert_eq!(network_of(&world, &plane, &id).await, reaching("192.0.2.1"));
        plane.pause(&id, PauseMode::Memory).await.unwrap();
        plane.set_network(&id, reaching("192.0.2.2")).await.unwrap();
        assert_eq!(network_of(&world, &plane, &id).await, reaching("192.0.2.2"));
        plane.pause(&id, PauseMode::Disk).await.unwrap();
        plane.set_network(&id, reaching("192.0.2.3")).await.unwrap();
        plane.resume(&id, None).await.unwrap();
        assert_eq!(network_of(&world, &plane, &id).await, reaching("192.0.2.3"));
    });
}

#[test]
fn a_change_that_the_host_refuses_leaves_record_and_host_as_they_were() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let id = plane.create(created_with(&reaching("192.0.2.1"))).await.unwrap().id;
        world.node.fail_networks(Some(ErrorKind::Unsupported));
        let refused = plane.set_network(&id, reaching("192.0.2.2")).await.unwrap_err();
        assert!(matches!(refused, LifecycleError::Node { .. }), "{refused:?}");
        assert_eq!(network_of(&world, &plane, &id).await, reaching("192.0.2.1"));
        world.node.fail_networks(None);
        plane.set_network(&id, reaching("192.0.2.3")).await.unwrap();
        assert_eq!(network_of(&world, &plane, &id).await, reaching("192.0.2.3"));
    });
}

#[test]
fn of_many_changes_at_once_the_last_recorded_is_the_one_that_holds() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let id = plane.create(mini()).await.unwrap().id;
        let policies: Vec<EgressPolicy> = (1..=20).map(|host| reaching(&format!("192.0.2.{host}"))).collect();
        let changes = policies.iter().map(|policy| plane.set_network(&id, policy.clone()));
        for changed in futures::future::join_all(changes).await {
            changed.unwrap();
        }
        assert!(policies.contains(&network_of(&world, &plane, &id).await));
    });
}

#[test]
fn nobody_changes_or_counts_the_network_of_a_sandbox_that_is_not_there() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let id = plane.create(created_with(&reaching("192.0.2.1"))).await.unwrap().id;
        let state = plane.network(&id).await.unwrap();
        assert_eq!((state.policy, state.traffic.unwrap().sent.packets), (reaching("192.0.2.1"), 10));
        plane.pause(&id, PauseMode::Disk).await.unwrap();
        assert_eq!(plane.network(&id).await.unwrap().traffic, None);
        plane.destroy(&id).await.unwrap();
        assert!(matches!(plane.network(&id).await.unwrap_err(), LifecycleError::NotFound(_)));
        let gone = plane.set_network(&id, EgressPolicy::internet()).await.unwrap_err();
        assert!(matches!(gone, LifecycleError::NotFound(_)), "{gone:?}");
    });
}

#[test]
fn what_a_sandbox_sent_and_was_refused_is_in_the_metrics_and_stays_in_their_sums() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        let id = plane.create(created_with(&reaching("10.0.0.1"))).await.unwrap().id;
        plane.refresh_metrics().await;
        let told = plane.monitor().metrics().encode();
        let line = |line: String| assert!(told.lines().any(|told| told == line), "{line} in:\n{told}");
        line("flames_egress_bytes_total{direction=\"out\"} 1000".to_owned());
        line(format!("flames_sandbox_egress_packets_total{{sandbox=\"{id}\",direction=\"out\"}} 10"));
        line(format!("flames_sandbox_egress_dropped_packets_total{{sandbox=\"{id}\",cause=\"default\"}} 1"));
        plane.destroy(&id).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_secs(60)).await; // the next look is due; time stands still here
        plane.refresh_metrics().await;
        let told = plane.monitor().metrics().encode();
        assert!(told.contains("flames_egress_bytes_total{direction=\"out\"} 1000"), "{told}");
        assert!(!told.contains(id.as_str()), "{told}");
    });
}
