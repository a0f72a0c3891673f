//! After a daemon's death: what lives is adopted, the rest is gone.

use crate::fake_agent::{Agent, FakeWithAgent};
use crate::harness::{Home, assert_nothing_left, count, qemu, request};
use flames_node::{ExitCause, FailurePoint, LeakKind, LocalNode, NetworkMode, Node, VmId};
use flames_vmm::fake::FakeWorld;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command};

#[tokio::test]
async fn a_restarted_daemon_adopts_what_lives_and_removes_what_died_meanwhile() {
    let world = FakeWorld::new();
    let home = Home::fake(&world, Agent::Willing, FailurePoint::none());
    let living = home.node.create(request("run-1")).await.unwrap();
    let dead = home.node.create(request("run-2")).await.unwrap().run;
    world.kill(&dead, ExitCause::GuestPanic);

    let again = LocalNode::open(home.config.clone(), FakeWithAgent::new(&world, Agent::Willing)).unwrap();
    let adoption = again.adopt().await.unwrap();
    assert_eq!(adoption.gone, [dead]);
    assert_eq!(adoption.adopted.len(), 1);
    assert_eq!(adoption.adopted[0].facts, living.facts);
    again.guest(&living.run).await.unwrap().health().await.unwrap();

    again.destroy(&living.run).await.unwrap();
    assert_eq!(world.alive(), []);
    assert_nothing_left(&again, home.root.path()).await;
}

#[tokio::test]
async fn a_create_that_was_under_way_when_the_daemon_died_is_undone() {
    let world = FakeWorld::new();
    let home = Home::fake(&world, Agent::Willing, FailurePoint::none());
    let run = home.node.create(request("run-1")).await.unwrap();
    let record = run.facts.run_dir.join("run.json");
    let creating = std::fs::read_to_string(&record).unwrap().replace("handed-out", "creating");
    std::fs::write(&record, creating).unwrap();

    let again = LocalNode::open(home.config.clone(), FakeWithAgent::new(&world, Agent::Willing)).unwrap();
    assert_eq!(count(&again, LeakKind::RunDir).await, (0, 1));
    assert_eq!(again.adopt().await.unwrap().gone, [run.run]);
    assert_eq!(world.alive(), []);
    assert_nothing_left(&again, home.root.path()).await;
}

#[tokio::test]
async fn a_run_directory_with_half_a_record_is_reaped() {
    let world = FakeWorld::new();
    let home = Home::fake(&world, Agent::Willing, FailurePoint::none());
    let dir = home.config.data_dir.join("vms/run-9");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("run.json"), "{\"run\":").unwrap();
    let reaped = home.node.reap().await.unwrap();
    assert_eq!(reaped.removed[&LeakKind::RunDir], ["run-9"]);
    home.close().await;
}

/// A program that works in a run directory as a VMM does.
fn stray(dir: &Path) -> Child {
    std::fs::create_dir(dir).unwrap();
    let log = std::fs::File::create(dir.join("vmm.log")).unwrap();
    Command::new("sleep").arg("600").stdout(log).spawn().unwrap()
}

#[tokio::test]
async fn a_vmm_whose_daemon_died_before_its_handle_was_written_is_ended() {
    let home = Home::fake(&FakeWorld::new(), Agent::Willing, FailurePoint::none());
    let mut vmm = stray(&home.config.data_dir.join("vms/run-9"));
    assert_eq!(count(&home.node, LeakKind::Process).await, (0, 1));
    assert_eq!(home.node.adopt().await.unwrap().gone, [VmId::parse("run-9").unwrap()]);
    assert_eq!(vmm.try_wait().unwrap().and_then(|status| status.signal()), Some(9));
    home.close().await;
}

#[tokio::test]
async fn a_vmm_whose_directory_is_gone_is_reaped_and_a_stranger_is_not() {
    let home = Home::fake(&FakeWorld::new(), Agent::Willing, FailurePoint::none());
    let vms = home.config.data_dir.join("vms");
    let mut vmm = stray(&vms.join("run-9"));
    std::fs::remove_dir_all(vms.join("run-9")).unwrap();
    let mut stranger = stray(&home.root.path().join("run-9"));
    let reaped = home.node.reap().await.unwrap();
    assert_eq!(reaped.removed[&LeakKind::Process], ["run-9"]);
    assert_eq!(vmm.try_wait().unwrap().and_then(|status| status.signal()), Some(9));
    assert_eq!(stranger.try_wait().unwrap(), None);
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    home.close().await;
}

#[tokio::test]
async fn secrets_on_disk_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let world = FakeWorld::new();
    let home = Home::fake(&world, Agent::Willing, FailurePoint::none());
    let facts = home.node.create(request("run-1")).await.unwrap().facts;
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&facts.run_dir), 0o700);
    assert_eq!(mode(&facts.run_dir.join("run.json")), 0o600);
    assert_eq!(mode(&facts.disk), 0o600);
    home.close().await;
}

/// The first daemon has a runtime of its own, which ends with everything in it, as a process would.
#[test]
fn vm_survives_a_daemon_and_is_adopted_with_its_network_and_token() {
    let first = tokio::runtime::Runtime::new().unwrap();
    let Some(home) = first.block_on(async { Home::real(NetworkMode::Namespaces, FailurePoint::none()) })
    else {
        return;
    };
    let created = first.block_on(home.node.create(request("run-1"))).unwrap();
    let Home { node, config, root } = home;
    first.block_on(node.shutdown());
    drop(node);
    first.shutdown_timeout(std::time::Duration::from_secs(5));

    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let again = LocalNode::open(config, qemu()).unwrap();
        let adoption = again.adopt().await.unwrap();
        assert_eq!(adoption.adopted[0].facts, created.facts);
        assert!(again.guest(&created.run).await.unwrap().processes().await.unwrap().is_empty());
        again.destroy(&created.run).await.unwrap();
        again.shutdown().await;
        assert_nothing_left(&again, root.path()).await;
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn vm_killed_while_no_daemon_ran_is_cleared_away() {
    let Some(home) = Home::real(NetworkMode::Namespaces, FailurePoint::none()) else { return };
    let created = home.node.create(request("run-1")).await.unwrap();
    let mut exits = home.node.exits();
    let pid = i32::try_from(created.facts.pid).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    exits.recv().await.unwrap();
    home.node.shutdown().await;
    let again = LocalNode::open(home.config.clone(), qemu()).unwrap();
    assert_eq!(again.adopt().await.unwrap().gone, [VmId::parse("run-1").unwrap()]);
    again.shutdown().await;
    assert_nothing_left(&again, home.root.path()).await;
}
