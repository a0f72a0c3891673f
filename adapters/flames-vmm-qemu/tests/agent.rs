//! The real agent in a real guest: its disks in their order, its boot channel, its port.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use flames_vmm::{ExitCause, PrepareFor, StopDeadlines, VmmDriver};
use flames_vmm_qemu::QemuDriver;
use std::time::{Duration, Instant};
use support::agent::AgentVm;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn the_agent_serves_over_the_forwarded_port() {
    let Some(parts) = AgentVm::make("mini").await else { return };
    let driver = QemuDriver::new(support::config());
    let prepared = driver.prepare(parts.spec.clone(), PrepareFor::Boot).await.unwrap();
    let (vm, ready) = prepared.boot().await.unwrap().ready().await.unwrap();
    assert!(!ready.version.is_empty());

    let answer = ask(parts.port, "GET /health HTTP/1.1\r\nHost: guest\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    assert_eq!(vm.stop(StopDeadlines::KILL).await.unwrap().cause, ExitCause::Stopped);
}

#[tokio::test]
async fn an_image_that_is_none_is_an_error_with_the_agents_words() {
    let Some(mut parts) = AgentVm::make("mini").await else { return };
    let garbage = parts.spec.run_dir.join("garbage.erofs");
    std::fs::write(&garbage, vec![0; 1 << 20]).unwrap();
    parts.spec.disks[1].path = garbage;
    let driver = QemuDriver::new(support::config());
    let booting = driver.prepare(parts.spec.clone(), PrepareFor::Boot).await.unwrap().boot().await.unwrap();
    let ready = tokio::time::timeout(Duration::from_secs(30), booting.ready()).await.unwrap();
    let error = ready.expect_err("the guest has no root file system");
    assert!(error.to_string().contains("the agent cannot start"), "{error}");
}

#[tokio::test]
async fn a_graceful_stop_leaves_what_was_written_on_a_clean_disk() {
    let Some(parts) = AgentVm::make("mini").await else { return };
    if !support::runs("dumpe2fs") || !support::runs("debugfs") {
        flames_provider::conformance::skip("qemu", "install e2fsprogs");
        return;
    }
    let driver = QemuDriver::new(support::config());
    let prepared = driver.prepare(parts.spec.clone(), PrepareFor::Boot).await.unwrap();
    let (vm, _ready) = prepared.boot().await.unwrap().ready().await.unwrap();
    // As a daemon that restarts: the agent must notice who speaks to it now.
    let handle = vm.handle();
    drop(vm);
    let vm = driver.adopt(&handle).await.unwrap().expect("it lives");
    let init = r#"{"accessToken":"t0ken","hostname":"written-before-stop"}"#;
    let answer = ask(parts.port, &control("/flames/v1/init", init)).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    let started = Instant::now();
    let exit = vm.stop(StopDeadlines { graceful: PATIENCE, forced: PATIENCE }).await.unwrap();
    assert_eq!(exit.cause, ExitCause::GuestShutdown, "{exit:?}");
    assert!(started.elapsed() < PATIENCE / 3, "the guest had gone, and stop still waited");
    assert!(!exit.last_output.contains("flames-guest:"), "{exit:?}");

    let disk = parts.own_disk();
    let head = output("dumpe2fs", &["-h", disk]);
    assert!(head.contains("Filesystem state:         clean"), "{head}");
    assert!(!head.contains("needs_recovery"), "{head}");
    assert_eq!(output("debugfs", &["-R", "cat /upper/etc/hostname", disk]), "written-before-stop\n");
    // Read-only, so it would complain of a journal to replay.
    output("e2fsck", &["-n", "-f", disk]);
}

#[tokio::test]
async fn clones_serve_over_ports_of_their_own_from_disks_of_their_own() {
    let Some(source) = AgentVm::make("mini").await else { return };
    let driver = QemuDriver::new(support::config());
    let prepared = driver.prepare(source.spec.clone(), PrepareFor::Boot).await.unwrap();
    let (vm, _ready) = prepared.boot().await.unwrap().ready().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    vm.pause().await.unwrap();
    let parts = vm.snapshot(folder.path()).await.unwrap();
    let clones = [source.clone_of_disk("mini").await, source.clone_of_disk("mini").await];
    vm.resume().await.unwrap();

    let mut running = Vec::new();
    for (clone, hostname) in clones.iter().zip(["first", "second"]) {
        let prepared = driver.prepare(clone.spec.clone(), PrepareFor::Restore(parts.clone())).await.unwrap();
        running.push(prepared.restore().await.unwrap());
        let init = format!(r#"{{"accessToken":"t0ken","hostname":"{hostname}"}}"#);
        let answer = ask(clone.port, &control("/flames/v1/init", &init)).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    for (clone, vm) in clones.iter().zip(running) {
        let exit = vm.stop(StopDeadlines { graceful: PATIENCE, forced: PATIENCE }).await.unwrap();
        assert_eq!(exit.cause, ExitCause::GuestShutdown, "{exit:?}");
        output("e2fsck", &["-n", "-f", clone.own_disk()]);
    }
    let hostname = |vm: &AgentVm| output("debugfs", &["-R", "cat /upper/etc/hostname", vm.own_disk()]);
    assert_eq!((hostname(&clones[0]).as_str(), hostname(&clones[1]).as_str()), ("first\n", "second\n"));
    let answer = ask(source.port, "GET /health HTTP/1.1\r\nHost: guest\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    vm.stop(StopDeadlines::KILL).await.unwrap();
}

/// Longer than a guest takes to end, on a busy host without hardware virtualisation.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a program prints; it must succeed.
fn output(program: &str, arguments: &[&str]) -> String {
    let output = std::process::Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn control(path: &str, body: &str) -> String {
    let token = "0".repeat(64);
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: guest\r\nConnection: close\r\nContent-Type: application/json\r\n\
         X-Flames-Control: {token}\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

async fn ask(port: u16, request: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}
