//! Clones of one snapshot, as real microVMs: the promises of hazards C1 to C12, each shown from outside or by what
//! runs inside.

use crate::harness::{Home, output, qemu, request, shell};
use flames_node::{
    AccessToken, AfterSnapshot, BootPath, Contents, CreateVm, CreatedVm, ErrorKind, FailurePoint,
    GuestClient, GuestErrorKind, Identity, Keep, LocalNode, NetworkMode, Node, ProcessEvent, SnapshotId,
    StartFrom, TakeSnapshot, TakenSnapshot, TemplateName, VmId, WriteFile,
};
use futures::StreamExt;
use std::collections::HashSet;
use std::path::PathBuf;
use std::time::{Instant, SystemTime};

fn home() -> Option<Home> {
    Home::real(NetworkMode::Namespaces, FailurePoint::none())
}

fn snapshot_id(text: &str) -> SnapshotId {
    SnapshotId::parse(text).unwrap()
}

/// A create from a snapshot; each run has a token and a hostname of its own.
fn clone_of(snapshot: &str, run: &str, identity: Identity) -> CreateVm {
    CreateVm {
        from: StartFrom::Snapshot(snapshot_id(snapshot)),
        identity,
        hostname: run.to_owned(),
        env: None,
        access_token: AccessToken::new(format!("token-of-{run}")),
        ..request(run)
    }
}

async fn snapshot(node: &LocalNode, run: &VmId, id: &str, then: AfterSnapshot) -> TakenSnapshot {
    let request =
        TakeSnapshot { id: snapshot_id(id), then, keep: Keep::UntilRemoved, contents: Contents::default() };
    let taken = node.snapshot(run, request).await.unwrap();
    eprintln!("{:?}", taken.timings);
    taken
}

async fn start(node: &LocalNode, request: CreateVm) -> (VmId, GuestClient) {
    let created = node.create(request).await.unwrap();
    let guest = node.guest(&created.run).await.unwrap();
    (created.run, guest)
}

fn unix_nanos() -> i128 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos().try_into().unwrap()
}

/// A template whose `date` tells nanoseconds.
fn base() -> StartFrom {
    StartFrom::Template(TemplateName::parse("base").unwrap())
}

/// How far the guest's clock is from the host's, as far as anybody can tell from outside: the time it gives must lie
/// between asking and hearing.
pub(crate) async fn skew_ms(guest: &GuestClient) -> f64 {
    let before = unix_nanos();
    let told: i128 = {
        let text = output(guest, "date +%s.%N").await;
        let (seconds, nanos) = text.trim().split_once('.').unwrap();
        seconds.parse::<i128>().unwrap() * 1_000_000_000 + nanos.parse::<i128>().unwrap()
    };
    let after = unix_nanos();
    let outside = (before - told).max(told - after).max(0);
    outside as f64 / 1e6
}

fn part(home: &Home, id: &str, name: &str) -> PathBuf {
    home.root.path().join("data/snapshots").join(id).join(name)
}

const FIFTY: usize = 50;

/// A program that has loaded everything before the snapshot, and draws when it is told to: a UUID, the system call,
/// the client random of a TLS hello (bytes 11 to 43).
const DRAWS_LATER: &str = r#"
import os, ssl, sys, uuid
incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
open("/tmp/loaded", "w").close()
open("/tmp/go").read()
client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="x")
try:
    client.do_handshake()
except ssl.SSLWantReadError:
    pass
hello = outgoing.read()[11:43]
print(uuid.uuid4(), os.getrandom(32).hex(), hello.hex(), sep="\n", file=open("/tmp/drawn", "w"))
"#;

/// C1, C2, C3: what clones must not share.
#[tokio::test(flavor = "multi_thread")]
async fn vm_fifty_clones_share_no_randomness_no_id_and_no_stale_clock() {
    let Some(home) = home() else { return };
    let (source, guest) = start(&home.node, CreateVm { from: base(), ..request("source") }).await;
    let program = WriteFile { path: "/tmp/draw.py".into(), user: None };
    let content = futures::stream::iter([Ok(DRAWS_LATER.into())]).boxed();
    guest.write_file(&program, content).await.unwrap();
    output(
        &guest,
        "mkfifo /tmp/go /tmp/drawn /tmp/loaded; (python3 /tmp/draw.py >/tmp/log 2>&1 &); cat /tmp/loaded",
    )
    .await;
    snapshot(&home.node, &source, "s1", AfterSnapshot::GoOn).await;
    let began = Instant::now();
    let clones = futures::stream::iter(0..FIFTY).map(|number| {
        let node = home.node.clone();
        async move {
            let run = format!("clone-{number}");
            let (_, guest) = start(&node, clone_of("s1", &run, Identity::New)).await;
            let draw = "head -c 32 /dev/urandom | od -An -tx1 -w32; cat /etc/machine-id; hostname; \
                        echo >/tmp/go; cat /tmp/drawn";
            let drawn = output(&guest, draw).await;
            (drawn.lines().map(str::to_owned).collect::<Vec<_>>(), skew_ms(&guest).await)
        }
    });
    let drawn: Vec<_> = clones.buffer_unordered(8).collect().await;
    eprintln!("{FIFTY} clones: {:?}", began.elapsed());
    assert_eq!(home.node.list().await.len(), FIFTY + 1, "all alive at once");
    let names = ["/dev/urandom", "machine id", "hostname", "uuid", "getrandom", "tls client random"];
    for (index, name) in names.iter().enumerate() {
        let values: HashSet<&String> = drawn.iter().map(|(lines, _)| &lines[index]).collect();
        assert_eq!(values.len(), FIFTY, "{name}: {values:?}");
        assert!(values.iter().all(|value| value.len() >= 7), "{name}: {values:?}");
    }
    let worst = drawn.iter().map(|(_, skew)| *skew).fold(0.0, f64::max);
    assert!(worst < 50.0, "a clock is off by {worst} ms");
    home.close().await;
}

/// C3 after a pause: the guest's clock stood still meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn vm_that_was_paused_has_the_right_time_again() {
    let Some(home) = home() else { return };
    let (run, guest) = start(&home.node, CreateVm { from: base(), ..request("run-1") }).await;
    home.node.pause(&run).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await; // the time that must pass is the point
    home.node.resume(&run).await.unwrap();
    let skew = skew_ms(&guest).await;
    assert!(skew < 50.0, "{skew} ms");
    home.close().await;
}

/// C6: a clone's disk begins as the source's was, and nobody's writes reach another.
#[tokio::test(flavor = "multi_thread")]
async fn vm_disks_of_clones_diverge_and_the_sources_stays_its_own() {
    let Some(home) = home() else { return };
    let (source, guest) = start(&home.node, request("source")).await;
    output(&guest, "echo before >/root/file; head -c 3000000 /dev/urandom >/root/big").await;
    let sum = output(&guest, "sha256sum /root/big").await;
    snapshot(&home.node, &source, "s1", AfterSnapshot::GoOn).await;
    output(&guest, "echo source >/root/file").await;
    let (_, one) = start(&home.node, clone_of("s1", "one", Identity::New)).await;
    let (_, two) = start(&home.node, clone_of("s1", "two", Identity::New)).await;
    assert_eq!(output(&one, "cat /root/file").await, "before\n");
    output(&one, "echo one >/root/file; sync").await;
    assert_eq!(output(&two, "cat /root/file; sha256sum /root/big").await, format!("before\n{sum}"));
    output(&two, "echo two >/root/file; rm /root/big; sync").await;
    assert_eq!(output(&one, "cat /root/file; sha256sum /root/big").await, format!("one\n{sum}"));
    assert_eq!(output(&guest, "cat /root/file; sha256sum /root/big").await, format!("source\n{sum}"));
    home.close().await;
}

/// C7: clones write to their own memory only, and a snapshot that is removed stays until its last clone is gone.
#[tokio::test(flavor = "multi_thread")]
async fn vm_clones_leave_the_snapshots_parts_as_they_were_and_keep_them_while_they_live() {
    let Some(home) = home() else { return };
    let (source, _) = start(&home.node, request("source")).await;
    snapshot(&home.node, &source, "s1", AfterSnapshot::End).await;
    assert!(home.node.list().await.is_empty(), "the source has ended");
    let before = std::fs::read(part(&home, "s1", "memory")).unwrap();
    let (clone, guest) = start(&home.node, clone_of("s1", "one", Identity::New)).await;
    output(
        &guest,
        "head -c 20000000 /dev/urandom >/dev/shm/fill || head -c 20000000 /dev/urandom >/tmp/fill",
    )
    .await;
    assert!(before == std::fs::read(part(&home, "s1", "memory")).unwrap(), "a clone wrote to shared memory");
    assert_eq!(home.node.snapshots().await.unwrap()[0].clones, 1);

    home.node.remove_snapshot(&snapshot_id("s1")).await.unwrap();
    assert!(home.node.snapshots().await.unwrap().is_empty());
    let refused = home.node.create(clone_of("s1", "two", Identity::New)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotFound);
    assert!(part(&home, "s1", "memory").exists(), "somebody maps it");
    assert_eq!(output(&guest, "echo alive").await, "alive\n");
    // Also what is captured of the clone comes from there.
    snapshot(&home.node, &clone, "s2", AfterSnapshot::GoOn).await;
    let (_, grandchild) = start(&home.node, clone_of("s2", "three", Identity::New)).await;
    assert_eq!(output(&grandchild, "ls /dev/shm/fill /tmp/fill 2>/dev/null | wc -l").await.trim(), "1");
    home.node.destroy(&clone).await.unwrap();
    let gone = async {
        while part(&home, "s1", "memory").exists() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), gone).await.expect("its last clone is gone");
    home.node.remove_snapshot(&snapshot_id("s2")).await.unwrap();
    home.close().await;
}

/// C8: tokens and environment come after the restore; what a clone knows opens nothing of its siblings.
#[tokio::test(flavor = "multi_thread")]
async fn vm_tokens_of_clones_do_not_open_each_other_or_the_source() {
    let Some(home) = home() else { return };
    let (source, _) = start(&home.node, request("source")).await;
    snapshot(&home.node, &source, "s1", AfterSnapshot::GoOn).await;
    let mut runs = vec![(source, request("source").access_token)];
    for name in ["one", "two"] {
        let request = clone_of("s1", name, Identity::New);
        let token = request.access_token.clone();
        runs.push((start(&home.node, request).await.0, token));
    }
    for (run, _) in &runs {
        for (other, token) in &runs {
            let guest = home.guest_with_token(run, token.clone());
            let listed = guest.processes().await;
            match run == other {
                true => drop(listed.unwrap()),
                false => assert_eq!(listed.unwrap_err().kind(), GuestErrorKind::Unauthenticated),
            }
        }
    }
    let control: HashSet<String> = runs.iter().map(|(run, _)| home.control_token(run)).collect();
    assert_eq!(control.len(), 3, "each has a control token of its own");
    home.close().await;
}

/// C9: what is missing, truncated, altered or of another VMM is refused by name, and a template boots instead.
#[tokio::test(flavor = "multi_thread")]
async fn vm_snapshots_that_are_damaged_or_foreign_are_refused_and_nothing_is_left() {
    let Some(home) = home() else { return };
    let (source, _) = start(&home.node, request("source")).await;
    for id in ["altered", "truncated", "missing", "foreign"] {
        snapshot(&home.node, &source, id, AfterSnapshot::GoOn).await;
    }
    home.node.destroy(&source).await.unwrap();
    let flip = |path: PathBuf| {
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    };
    flip(part(&home, "altered", "memory"));
    let state = std::fs::read(part(&home, "truncated", "device_state")).unwrap();
    std::fs::write(part(&home, "truncated", "device_state"), &state[..state.len() - 7]).unwrap();
    std::fs::remove_file(part(&home, "missing", "disk.ext4")).unwrap();
    let manifest = part(&home, "foreign", "manifest.json");
    let text = std::fs::read_to_string(&manifest).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    json["host"]["vmm_version"] = "0.9".into();
    std::fs::write(&manifest, json.to_string()).unwrap();

    let home = home.restarted(qemu()); // a daemon that has not seen them before
    home.node.adopt().await.unwrap();
    let cases = [
        ("altered", ErrorKind::Corrupt, "memory"),
        ("truncated", ErrorKind::Corrupt, "device_state"),
        ("missing", ErrorKind::Corrupt, "disk.ext4"),
        ("foreign", ErrorKind::Unsupported, "0.9"),
    ];
    for (id, kind, word) in cases {
        let error = home.node.create(clone_of(id, "clone", Identity::New)).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{id}: {error:?}");
        let told = error.cause().to_string();
        assert!(told.contains(word) && told.contains(id), "{told}");
        home.node.remove_snapshot(&snapshot_id(id)).await.unwrap();
    }
    home.close().await;
}

/// C11: whoever was connected to the source learns in the clone that nobody is there, and is not disturbed in the source.
#[tokio::test(flavor = "multi_thread")]
async fn vm_connections_of_the_source_go_on_and_are_closed_in_the_clone() {
    let Some(home) = home() else { return };
    let (source, guest) = start(&home.node, request("source")).await;
    let mut stream = guest.start(&shell("echo on; exec sleep 1000")).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap(), ProcessEvent::Stdout("on\n".into()));
    snapshot(&home.node, &source, "s1", AfterSnapshot::GoOn).await;
    let (_, clone) = start(&home.node, clone_of("s1", "clone", Identity::New)).await;
    let established =
        "grep -c ' 01 ' /proc/net/tcp /proc/net/tcp6 2>/dev/null | cut -d: -f2 | paste -sd+ | head -c 3";
    let of_clone = output(&clone, established).await;
    assert!(["1", "0+1", "1+0"].contains(&of_clone.trim()), "only this very call is connected: {of_clone}");
    home.node.pause(&source).await.unwrap();
    home.node.resume(&source).await.unwrap();
    assert_eq!(output(&guest, "echo still").await, "still\n");
    drop(stream);
    home.close().await;
}

/// C12: there is nothing to capture before the agent reported.
#[tokio::test(flavor = "multi_thread")]
async fn vm_that_still_boots_cannot_be_captured() {
    let Some(home) = home() else { return };
    let node = home.node.clone();
    let create = tokio::spawn(async move { node.create(request("run-1")).await });
    let run = VmId::parse("run-1").unwrap();
    let take = TakeSnapshot {
        id: snapshot_id("s1"),
        then: AfterSnapshot::GoOn,
        keep: Keep::UntilRemoved,
        contents: Contents::default(),
    };
    assert_eq!(home.node.snapshot(&run, take).await.unwrap_err().kind(), ErrorKind::NotFound);
    create.await.unwrap().unwrap();
    home.close().await;
}

/// A sandbox that goes on is the same: processes, memory, ids and environment, with a new token all the same.
#[tokio::test(flavor = "multi_thread")]
async fn vm_that_goes_on_from_disk_is_the_same_sandbox() {
    let Some(home) = home() else { return };
    let (run, guest) = start(&home.node, request("life-1")).await;
    let facts = "cat /etc/machine-id /proc/sys/kernel/random/boot_id; echo $GREETING; cat /tmp/kept";
    output(
        &guest,
        "echo kept >/tmp/kept; (while sleep 0.2; do echo tick >>/tmp/ticks; done) >/dev/null 2>&1 &",
    )
    .await;
    let before = output(&guest, facts).await;
    snapshot(&home.node, &run, "s1", AfterSnapshot::End).await;
    let home = home.restarted(qemu());
    home.node.adopt().await.unwrap();
    let (_, again) = start(&home.node, clone_of("s1", "life-2", Identity::Same)).await;
    assert_eq!(output(&again, facts).await, before);
    let ticks = "wc -l </tmp/ticks";
    let first: u32 = output(&again, ticks).await.trim().parse().unwrap();
    let mut later = first;
    while later == first {
        later = output(&again, ticks).await.trim().parse().unwrap();
    }
    home.close().await;
}

/// A template's own snapshot: taken once, used by every later create, refused and replaced when it is damaged.
#[tokio::test(flavor = "multi_thread")]
async fn vm_creates_restore_the_templates_snapshot_and_boot_when_it_is_refused() {
    let Some(home) = home() else { return };
    let home = home.taking_template_snapshots(qemu());
    let created = home.node.create(request("run-1")).await.unwrap();
    assert_eq!(created.path, BootPath::Cold, "{}", created.why);
    let folder = home.root.path().join("data/template-snapshots");
    let restored = wait_for_restored(&home).await;
    eprintln!("{} {:?}", restored.why, restored.timings);
    for run in home.node.list().await {
        home.node.destroy(&run.run).await.unwrap();
    }
    let dir = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).next().unwrap();
    std::fs::write(dir.join("device_state"), b"junk").unwrap();
    let home = home.restarted(qemu());
    home.node.adopt().await.unwrap();
    let booted = home.node.create(request("run-after")).await.unwrap();
    assert_eq!(booted.path, BootPath::Cold);
    assert!(booted.why.contains("refused"), "{}", booted.why);
    home.close().await;
}

/// Creates until one finds the snapshot that is taken in the background.
async fn wait_for_restored(home: &Home) -> CreatedVm {
    for number in 0..100 {
        let created = home.node.create(request(&format!("probe-{number}"))).await.unwrap();
        if created.path == BootPath::Restored {
            return created;
        }
        home.node.destroy(&created.run).await.unwrap();
    }
    panic!("the template's snapshot never came");
}
