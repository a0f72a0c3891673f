//! Creates over the fake VMM: what is refused, what is undone, what is told.

use crate::fake_agent::Agent;
use crate::harness::{Home, assert_nothing_left, count, request};
use flames_node::{
    CreateStep, ErrorKind, ExitCause, FailurePoint, LeakKind, MiB, NetworkMode, Node, StartFrom,
    TemplateName, VmId, VmState,
};
use flames_vmm::fake::{FakeWorld, Phase};
use std::time::Duration;

fn home(world: &FakeWorld) -> Home {
    Home::fake(world, Agent::Willing, FailurePoint::none())
}

#[tokio::test]
async fn a_created_run_is_listed_inspected_and_counted_as_owned() {
    let world = FakeWorld::new();
    let home = home(&world);
    let created = home.node.create(request("run-1")).await.unwrap();
    let listed = home.node.list().await;
    assert_eq!(listed, [home.node.inspect(&created.run).await.unwrap()]);
    assert_eq!(listed[0].facts, created.facts);
    assert_eq!(created.facts.netns, None);
    assert!(created.facts.host_port.is_some());
    assert_eq!(count(&home.node, LeakKind::Disk).await, (1, 0));
    assert_eq!(home.node.capacity().await.runs, 1);
    home.close().await;
}

#[tokio::test]
async fn a_run_id_is_never_given_twice() {
    let world = FakeWorld::new();
    let home = home(&world);
    home.node.create(request("run-1")).await.unwrap();
    let error = home.node.create(request("run-1")).await.unwrap_err();
    assert_eq!((error.step(), error.kind()), (CreateStep::Admit, ErrorKind::AlreadyExists));
    assert_eq!(home.node.list().await.len(), 1);
    home.close().await;
}

#[tokio::test]
async fn absurd_requests_are_refused_before_anything_is_made() {
    let world = FakeWorld::new();
    let home = home(&world);
    let mut bad = vec![request("run-1"); 8];
    bad[0].vcpus = 0;
    bad[1].vcpus = 255;
    bad[2].memory = MiB(0);
    bad[3].memory = MiB(u32::MAX);
    bad[4].disk = MiB(0);
    bad[5].disk = MiB(u32::MAX);
    bad[6].hostname = "a\nb".into();
    bad[7].env.get_or_insert_default().insert("A=B".into(), String::new());
    for request in bad {
        let error = home.node.create(request).await.unwrap_err();
        assert_eq!((error.step(), error.kind()), (CreateStep::Admit, ErrorKind::InvalidInput), "{error:?}");
        assert!(error.cause().detail_text().is_some(), "says what is allowed: {error:?}");
    }
    home.close().await;
}

#[tokio::test]
async fn an_unknown_template_is_not_found_and_the_known_ones_are_named() {
    let world = FakeWorld::new();
    let home = home(&world);
    let mut request = request("run-1");
    request.from = StartFrom::Template(TemplateName::parse("nope").unwrap());
    let error = home.node.create(request).await.unwrap_err();
    assert_eq!((error.step(), error.kind()), (CreateStep::Template, ErrorKind::NotFound));
    assert!(error.cause().to_string().contains("mini"), "{}", error.cause());
    home.close().await;
}

#[tokio::test]
async fn a_missing_kernel_is_named_with_its_mend() {
    let world = FakeWorld::new();
    let home = home(&world);
    std::fs::remove_file(home.config.assets_dir.join("vmlinux")).unwrap();
    let error = home.node.create(request("run-1")).await.unwrap_err();
    assert_eq!((error.step(), error.kind()), (CreateStep::Admit, ErrorKind::Unavailable));
    let told = error.cause().to_string();
    assert!(told.contains("vmlinux") && told.contains("make assets"), "{told}");
    home.close().await;
}

#[tokio::test]
async fn a_guest_that_does_not_take_entropy_is_never_handed_out() {
    let world = FakeWorld::new();
    let home = Home::fake(&world, Agent::WithoutEntropy, FailurePoint::none());
    let error = home.node.create(request("run-1")).await.unwrap_err();
    assert_eq!(error.step(), CreateStep::AgentInit);
    assert_eq!(world.alive(), []);
    home.close().await;
}

#[tokio::test]
async fn a_guest_that_never_reports_is_ended_at_its_deadline() {
    let world = FakeWorld::new();
    world.set_latency(Phase::Ready, Duration::from_secs(600));
    let home = home(&world);
    let mut request = request("run-1");
    request.boot_deadline = Duration::from_millis(50);
    let error = home.node.create(request).await.unwrap_err();
    assert_eq!((error.step(), error.kind()), (CreateStep::Boot, ErrorKind::Timeout));
    assert_eq!(world.alive(), []);
    home.close().await;
}

#[tokio::test]
async fn a_create_whose_caller_goes_away_is_undone() {
    let world = FakeWorld::new();
    world.set_latency(Phase::Ready, Duration::from_secs(600));
    let home = home(&world);
    let create = home.node.create(request("run-1"));
    assert!(tokio::time::timeout(Duration::from_millis(100), create).await.is_err());
    // Destroying waits for the undo of a create under way.
    home.node.destroy(&VmId::parse("run-1").unwrap()).await.unwrap();
    assert_eq!(world.alive(), []);
    assert_nothing_left(&home.node, home.root.path()).await;
    home.close().await;
}

#[tokio::test]
async fn a_destroy_during_a_create_ends_both_and_leaves_nothing() {
    let world = FakeWorld::new();
    world.set_latency(Phase::Ready, Duration::from_secs(600));
    let home = home(&world);
    let node = home.node.clone();
    let create = tokio::spawn(async move { node.create(request("run-1")).await });
    while world.alive().is_empty() {
        tokio::task::yield_now().await;
    }
    home.node.destroy(&VmId::parse("run-1").unwrap()).await.unwrap();
    assert_eq!(create.await.unwrap().unwrap_err().kind(), ErrorKind::Conflict);
    home.close().await;
}

#[tokio::test]
async fn destroy_is_idempotent_and_gives_the_same_exit_to_all_who_ask_at_once() {
    let world = FakeWorld::new();
    let home = home(&world);
    let run = home.node.create(request("run-1")).await.unwrap().run;
    let (a, b) = tokio::join!(home.node.destroy(&run), home.node.destroy(&run));
    assert_eq!(a.unwrap().cause, ExitCause::Stopped);
    assert!(matches!(b.unwrap().cause, ExitCause::Stopped | ExitCause::Unknown));
    assert_eq!(home.node.destroy(&run).await.unwrap().cause, ExitCause::Unknown);
    home.close().await;
}

#[tokio::test]
async fn a_vmm_that_dies_by_itself_is_told_and_its_resources_wait_for_destroy() {
    let world = FakeWorld::new();
    let home = home(&world);
    let mut exits = home.node.exits();
    let run = home.node.create(request("run-1")).await.unwrap().run;
    assert!(world.kill(&run, ExitCause::GuestPanic));
    let exit = exits.recv().await.unwrap();
    assert_eq!((exit.run, exit.exit.cause), (run.clone(), ExitCause::GuestPanic));
    assert_eq!(count(&home.node, LeakKind::RunDir).await, (1, 0));
    home.node.destroy(&run).await.unwrap();
    home.close().await;
}

#[tokio::test]
async fn pause_and_resume_show_in_the_list() {
    let world = FakeWorld::new();
    let home = home(&world);
    let run = home.node.create(request("run-1")).await.unwrap().run;
    home.node.pause(&run).await.unwrap();
    assert_eq!(home.node.list().await[0].state, VmState::Paused);
    home.node.resume(&run).await.unwrap();
    assert_eq!(home.node.list().await[0].state, VmState::Running);
    home.close().await;
}

#[tokio::test]
async fn without_root_other_ports_than_the_agents_are_asked_of_the_agent() {
    let world = FakeWorld::new();
    let home = home(&world);
    assert_eq!(home.config.network, NetworkMode::User);
    let run = home.node.create(request("run-1")).await.unwrap().run;
    home.node.connect(&run, 49983).await.unwrap();
    // This agent opens no tunnel.
    assert_eq!(home.node.connect(&run, 8080).await.unwrap_err().kind(), ErrorKind::Unavailable);
    home.close().await;
}

#[tokio::test]
async fn what_concerns_an_unknown_run_is_not_found() {
    let world = FakeWorld::new();
    let home = home(&world);
    let nobody = VmId::parse("run-0").unwrap();
    assert_eq!(home.node.guest(&nobody).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(home.node.inspect(&nobody).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(home.node.console(&nobody, 10).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(home.node.pause(&nobody).await.unwrap_err().kind(), ErrorKind::NotFound);
    home.close().await;
}
