//! Snapshots of a disk alone: what they hold, and what starts from them.

use crate::fake_agent::Agent;
use crate::harness::{Home, output, qemu, request};
use flames_node::{
    AfterSnapshot, BootPath, Contents, CreateVm, ErrorKind, FailurePoint, Identity, Keep, LocalNode,
    NetworkMode, Node, SnapshotId, StartFrom, TakeSnapshot, TakenSnapshot, VmId, VmState,
};
use flames_vmm::fake::FakeWorld;
use std::path::PathBuf;

fn id(text: &str) -> SnapshotId {
    SnapshotId::parse(text).unwrap()
}

fn take(then: AfterSnapshot) -> TakeSnapshot {
    TakeSnapshot { id: id("s1"), then, keep: Keep::UntilRemoved, contents: Contents::DiskOnly }
}

async fn snapshot(node: &LocalNode, run: &VmId, then: AfterSnapshot) -> TakenSnapshot {
    let taken = node.snapshot(run, take(then)).await.unwrap();
    eprintln!("{:?}", taken.timings);
    taken
}

/// The same sandbox again.
fn back(run: &str) -> CreateVm {
    let from = StartFrom::Snapshot(id("s1"));
    CreateVm { from, identity: Identity::Same, env: None, default_user: None, ..request(run) }
}

fn part(home: &Home, name: &str) -> PathBuf {
    home.root.path().join("data/snapshots/s1").join(name)
}

#[tokio::test]
async fn a_snapshot_of_the_disk_alone_has_no_memory_and_who_starts_from_it_boots_and_is_told_the_same() {
    let (home, heard) = Home::fake_heard(&FakeWorld::default(), Agent::Willing);
    let run = home.node.create(request("run-1")).await.unwrap();
    std::fs::write(&run.facts.disk, "written").unwrap();
    let taken = snapshot(&home.node, &run.run, AfterSnapshot::End).await;
    assert_eq!((taken.info.contents, taken.timings.memory_ms), (Contents::DiskOnly, 0.0));
    assert!(home.node.list().await.is_empty(), "the run has ended");
    assert!(part(&home, "disk.ext4").exists() && !part(&home, "memory").exists());

    let again = home.node.create(back("run-2")).await.unwrap();
    assert_eq!(again.path, BootPath::Cold);
    assert!(again.why.contains("disk alone"), "{}", again.why);
    assert_eq!(std::fs::read_to_string(&again.facts.disk).unwrap(), "written");
    let told = heard.lock().unwrap().pop().unwrap();
    assert_eq!(told.env_vars.unwrap()["SET"], "inside");
    assert_eq!((told.default_user.as_deref(), told.default_workdir.as_deref()), (Some("root"), Some("/srv")));
    assert!(!told.renew_machine_id);

    // It has its disk and its image for itself: the snapshot goes at once.
    assert_eq!(home.node.snapshots().await.unwrap()[0].clones, 0);
    home.node.remove_snapshot(&id("s1")).await.unwrap();
    assert!(!part(&home, "").exists());
    home.close().await;
}

#[tokio::test]
async fn what_a_create_from_a_disk_says_of_itself_is_taken_and_another_size_is_refused() {
    let (home, heard) = Home::fake_heard(&FakeWorld::default(), Agent::Willing);
    let run = home.node.create(request("run-1")).await.unwrap().run;
    snapshot(&home.node, &run, AfterSnapshot::GoOn).await;
    assert_eq!(home.node.inspect(&run).await.unwrap().state, VmState::Running);
    let from = StartFrom::Snapshot(id("s1"));
    home.node.create(CreateVm { from, ..request("run-2") }).await.unwrap();
    let told = heard.lock().unwrap().pop().unwrap();
    assert_eq!(told.env_vars.unwrap(), request("run-2").env.unwrap());
    assert!(told.renew_machine_id, "somebody else");
    let refused = home.node.create(CreateVm { vcpus: 2, ..back("run-3") }).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    home.close().await;
}

#[tokio::test]
async fn a_guest_whose_agent_is_too_old_goes_on_and_nothing_is_left() {
    let (home, _) = Home::fake_heard(&FakeWorld::default(), Agent::Old);
    let run = home.node.create(request("run-1")).await.unwrap().run;
    for was in [VmState::Running, VmState::Paused] {
        if was == VmState::Paused {
            home.node.pause(&run).await.unwrap();
        }
        let refused = home.node.snapshot(&run, take(AfterSnapshot::End)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unavailable);
        assert!(refused.to_string().contains("older than"), "{refused}");
        assert_eq!(home.node.inspect(&run).await.unwrap().state, was);
        assert!(home.node.snapshots().await.unwrap().is_empty());
    }
    home.close().await;
}

#[tokio::test]
async fn an_altered_disk_is_refused_and_a_later_daemon_still_knows_a_whole_one() {
    let world = FakeWorld::default();
    let (home, _) = Home::fake_heard(&world, Agent::Willing);
    let run = home.node.create(request("run-1")).await.unwrap().run;
    snapshot(&home.node, &run, AfterSnapshot::End).await;
    let home = home.restarted(crate::fake_agent::FakeWithAgent::new(&world, Agent::Willing));
    assert_eq!(home.node.snapshots().await.unwrap()[0].contents, Contents::DiskOnly);
    let again = home.node.create(back("run-2")).await.unwrap().run;
    home.node.destroy(&again).await.unwrap();
    let mut altered = std::fs::read(part(&home, "disk.ext4")).unwrap();
    altered[4096] ^= 1;
    std::fs::write(part(&home, "disk.ext4"), altered).unwrap();
    let refused = home.node.create(back("run-3")).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corrupt);
    home.node.remove_snapshot(&id("s1")).await.unwrap();
    home.close().await;
}

/// Nothing is synced by the guest's program: what it wrote a moment ago must be there all the same.
#[tokio::test(flavor = "multi_thread")]
async fn vm_comes_back_from_its_disk_with_its_files_and_without_its_processes() {
    let Some(home) = Home::real(NetworkMode::User, FailurePoint::none()) else { return };
    let run = home.node.create(request("run-1")).await.unwrap().run;
    let guest = home.node.guest(&run).await.unwrap();
    let state = "cat /proc/sys/kernel/random/boot_id; cat /etc/machine-id";
    let before = output(&guest, state).await;
    let wrote =
        "head -c 5000000 /dev/urandom >/root/big; echo here >/dev/shm/gone; (sleep 7777 &) >/dev/null 2>&1";
    output(&guest, wrote).await;
    let sum = output(&guest, "sha256sum /root/big").await;
    drop(guest);
    snapshot(&home.node, &run, AfterSnapshot::End).await;

    let home = home.restarted(qemu());
    home.node.adopt().await.unwrap();
    let again = home.node.create(back("run-2")).await.unwrap();
    assert_eq!(again.path, BootPath::Cold);
    home.node.remove_snapshot(&id("s1")).await.unwrap();
    let guest = home.node.guest(&again.run).await.unwrap();
    assert_eq!(output(&guest, "sha256sum /root/big").await, sum);
    let rest = "echo $GREETING; cat /dev/shm/gone 2>/dev/null; grep -hx sleep /proc/[0-9]*/comm";
    assert_eq!(output(&guest, rest).await, "hello\n");
    let after = output(&guest, state).await;
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let (before, after) = (lines(&before), lines(&after));
    assert_ne!(before[0], after[0], "it was booted");
    assert_eq!(before[1], after[1], "it is the same sandbox");
    let clean = "dmesg | grep -c 'recovery complete'";
    assert_eq!(output(&guest, clean).await.trim(), "0", "a frozen file system has no journal to replay");
    home.close().await;
}

/// A writer that never stops is not cut off: it waits, and goes on after a snapshot that leaves the guest running, and
/// one of a guest that rests in memory leaves it resting.
#[tokio::test(flavor = "multi_thread")]
async fn vm_that_writes_all_the_time_goes_on_after_a_snapshot_of_its_disk() {
    let Some(home) = Home::real(NetworkMode::User, FailurePoint::none()) else { return };
    let run = home.node.create(request("run-1")).await.unwrap().run;
    let guest = home.node.guest(&run).await.unwrap();
    output(&guest, "(while :; do echo x >>/root/log; done) >/dev/null 2>&1 & echo first >/root/file").await;
    snapshot(&home.node, &run, AfterSnapshot::GoOn).await;
    assert_eq!(output(&guest, "echo second >/root/file; sync; cat /root/file").await, "second\n");
    let from = StartFrom::Snapshot(id("s1"));
    let created = home.node.create(CreateVm { from, ..request("run-2") }).await.unwrap();
    let clone = home.node.guest(&created.run).await.unwrap();
    assert_eq!(output(&clone, "cat /root/file; test -s /root/log && echo log").await, "first\nlog\n");
    home.node.remove_snapshot(&id("s1")).await.unwrap();

    home.node.pause(&run).await.unwrap();
    snapshot(&home.node, &run, AfterSnapshot::GoOn).await;
    assert_eq!(home.node.inspect(&run).await.unwrap().state, VmState::Paused);
    home.node.resume(&run).await.unwrap();
    assert_eq!(output(&guest, "echo third >/root/file; sync; cat /root/file").await, "third\n");
    home.node.remove_snapshot(&id("s1")).await.unwrap();
    home.close().await;
}
