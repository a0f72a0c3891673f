//! A create takes a machine that is ready as who it is, and loses none of them.

use crate::world::{World, life, mini};
use flames_core::ControlPlane;
use flames_core::sandbox::admit::CreateSandbox;
use flames_core::sandbox::error::CreateSandboxError;
use flames_core::sandbox::record::Sandbox;
use flames_core::sandbox::state::State;
use flames_node::{BootLevel, BootPath, TemplateName};
use flames_provider::ErrorKind;
use flames_provider::decorate::{Fault, FaultPlan, When};

/// The commits of a first start, of a pool, and of the one write that a taken machine needs.
const HAND_OUT_COMMIT: u64 = 3;

async fn with_pool(world: &World, plane: &ControlPlane, ready: u32) {
    let template = TemplateName::parse("mini").unwrap();
    plane.set_pool(&template, &serde_json::Map::new()).await.unwrap();
    world.node.make_ready(ready);
}

/// What a record is after it was written and read: JSON keeps the last digit of a duration only nearly.
fn as_stored(sandbox: &Sandbox) -> Sandbox {
    serde_json::from_slice(&serde_json::to_vec(sandbox).unwrap()).unwrap()
}

#[test]
fn a_create_gets_the_sandbox_that_waits_with_one_write() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        with_pool(&world, &plane, 1).await;
        let env = [("A".to_owned(), "1".to_owned())].into();
        let taken = plane.create(CreateSandbox { env, ..mini() }).await.unwrap();
        assert_eq!((taken.state, taken.path), (State::Running, Some(BootPath::Warm)));
        assert!(taken.run.as_str().starts_with(taken.id.as_str()), "{taken:?}");
        assert_eq!(world.node.running(), std::slice::from_ref(&taken.run));
        assert_eq!(world.records().await, [as_stored(&taken)]);
        let asked = world.node.taken().remove(0);
        assert_eq!((asked.env.len(), asked.default_user.as_deref()), (1, Some("user")));
    });
}

#[test]
fn a_create_without_a_machine_that_waits_makes_one() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        with_pool(&world, &plane, 1).await;
        let (first, second) = (plane.create(mini()).await.unwrap(), plane.create(mini()).await.unwrap());
        assert_eq!((first.path, second.path), (Some(BootPath::Warm), Some(BootPath::Cold)));
        let told = world.node.created().remove(0).env.unwrap();
        assert_eq!(told["E2B_SANDBOX_ID"], second.id.as_str());
    });
}

#[test]
fn a_create_by_name_or_of_another_level_takes_no_machine_as_it_is() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        with_pool(&world, &plane, 2).await;
        let named = CreateSandbox { id: Some(flames_core::SandboxId::random()), ..mini() };
        let slow = CreateSandbox { level: Some(BootLevel::Fast), ..mini() };
        for request in [named, slow] {
            assert_eq!(plane.create(request).await.unwrap().path, Some(BootPath::Cold));
        }
        assert!(world.node.taken().is_empty());
    });
}

#[test]
fn a_machine_that_was_taken_and_cannot_be_recorded_is_destroyed() {
    for fault in [Fault::Error(ErrorKind::Unavailable), Fault::LostAck] {
        life(async {
            let world = World::new();
            let plan = FaultPlan::seeded(1).rule("commit", When::Nth(HAND_OUT_COMMIT), fault);
            let plane = world.plane_with_faults(plan).await;
            with_pool(&world, &plane, 1).await;
            let refused = plane.create(mini()).await.unwrap_err();
            assert!(matches!(refused, CreateSandboxError::HandOut(_)), "{refused:?}");
            assert_eq!((world.records().await, world.node.running()), (vec![], vec![]));
        });
    }
}

#[test]
fn a_machine_that_was_taken_by_a_daemon_which_died_before_its_record_is_destroyed_by_the_next() {
    life(async {
        let world = World::new();
        let plane = world.plane().await;
        with_pool(&world, &plane, 1).await;
        let request = flames_node::TakeReady {
            network: flames_node::EgressPolicy::default(),
            template: TemplateName::parse("mini").unwrap(),
            vcpus: 1,
            memory: flames_node::MiB(256),
            disk: flames_node::MiB(256),
            env: Default::default(),
            default_user: None,
            default_workdir: None,
        };
        flames_node::Node::take_ready(world.node.as_ref(), request).await.unwrap();
        drop(plane);
        let _next = world.plane().await;
        assert_eq!(world.node.running(), []);
    });
}
