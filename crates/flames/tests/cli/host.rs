//! What the kernel knows of a home: processes, namespaces, mounts, devices.

use rustix::process::{Pid, Signal, geteuid, kill_process};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub(crate) fn is_root() -> bool {
    geteuid().is_root()
}

/// Sends `INT`, `TERM` or `KILL`.
pub(crate) fn signal(process: u32, name: &str) {
    let signal = match name {
        "INT" => Signal::INT,
        "TERM" => Signal::TERM,
        "KILL" => Signal::KILL,
        other => panic!("{other}"),
    };
    let process = Pid::from_raw(i32::try_from(process).unwrap()).unwrap();
    // One that is gone already is as good as ended.
    let _ = kill_process(process, signal);
}

/// The VMMs whose files are below a folder, by process id. A jailed one names none of them: it is known by where its
/// errors go.
pub(crate) fn vmms(root: &Path) -> Vec<u32> {
    let root = root.canonicalize().unwrap_or_else(|_| root.to_owned());
    let ours = |process: &u32| {
        let name = std::fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
        let errors = std::fs::read_link(format!("/proc/{process}/fd/2")).unwrap_or_default();
        (name.starts_with("qemu") || name.starts_with("firecracker")) && errors.starts_with(&root)
    };
    let processes = std::fs::read_dir("/proc").unwrap();
    let numbers = processes.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    numbers.filter(ours).collect()
}

/// The start of the names of all network namespaces that a node with this data directory makes.
pub(crate) fn namespace_prefix(data: &Path) -> String {
    let digest = Sha256::digest(data.as_os_str().as_encoded_bytes());
    format!("fl-{}-", hex::encode(&digest[..4]))
}

/// The network namespaces of a node.
pub(crate) fn namespaces(data: &Path) -> Vec<String> {
    let names = std::fs::read_dir("/run/netns").into_iter().flatten();
    let names = names.filter_map(|entry| entry.unwrap().file_name().into_string().ok());
    names.filter(|name| name.starts_with(&namespace_prefix(data))).collect()
}

/// What a home has outside of its files. A TAP lives in its namespace, and the kernel removes it with that; one
/// that was left in the host's namespace would be found by its number, which no test knows: so there may be none.
pub(crate) fn footprint(root: &Path, data: &Path) -> Vec<String> {
    let root_text = root.to_str().unwrap();
    let prefix = namespace_prefix(data);
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mounts = mounts.lines().filter(|mount| mount.contains(root_text) || mount.contains(&prefix));
    let mut found: Vec<String> = vmms(root).iter().map(|process| format!("VMM {process}")).collect();
    found.extend(namespaces(data).into_iter().map(|name| format!("namespace {name}")));
    found.extend(mounts.map(|mount| format!("mount {mount}")));
    found.extend(host_taps().into_iter().map(|tap| format!("TAP {tap}")));
    found
}

/// TAP devices of ours in the host's own network namespace, where none belongs.
fn host_taps() -> Vec<String> {
    let devices = std::fs::read_dir("/sys/class/net").into_iter().flatten();
    let devices = devices.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    devices.filter(|name| name.starts_with("fl-") || name.starts_with("tap")).collect()
}

/// Removes what a failed test has left, so that it harms no other.
pub(crate) fn clear(root: &Path, data: &Path) {
    for process in vmms(root) {
        signal(process, "KILL");
    }
    for name in namespaces(data) {
        let _ = std::process::Command::new("ip").args(["netns", "del", &name]).status();
    }
}

/// Runs `ip`, which must succeed.
pub(crate) fn ip(arguments: &str) {
    let output = std::process::Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The data directories of the embedded daemons that live now.
pub(crate) fn embedded(data: &Path) -> Vec<PathBuf> {
    let folders = std::fs::read_dir(data.join("embedded")).into_iter().flatten();
    folders.map(|entry| entry.unwrap().path()).collect()
}

/// Waits for what has no event: a process of somebody else's, a file, a namespace. Fails after 30 s.
pub(crate) fn wait_for(what: &str, reached: impl Fn() -> bool) {
    wait_within(Duration::from_secs(30), what, reached);
}

/// The same for what takes longer.
pub(crate) fn wait_within(longest: Duration, what: &str, reached: impl Fn() -> bool) {
    let deadline = Instant::now() + longest;
    while !reached() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        #[allow(clippy::disallowed_methods, reason = "nothing tells this process about others")]
        std::thread::sleep(Duration::from_millis(20));
    }
}
