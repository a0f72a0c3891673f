//! The real agent in a real guest: its disks in their order, its boot channel, its port.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use flames_vmm::{ExitCause, PrepareFor, StopDeadlines, VmmDriver};
use flames_vmm_qemu::{QemuConfig, QemuDriver};
use std::time::Duration;
use support::agent::AgentVm;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn the_agent_serves_over_the_forwarded_port() {
    let Some(parts) = AgentVm::make("mini").await else { return };
    let driver = QemuDriver::new(QemuConfig::default());
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
    let driver = QemuDriver::new(QemuConfig::default());
    let booting = driver.prepare(parts.spec.clone(), PrepareFor::Boot).await.unwrap().boot().await.unwrap();
    let ready = tokio::time::timeout(Duration::from_secs(30), booting.ready()).await.unwrap();
    let error = ready.expect_err("the guest has no root file system");
    assert!(error.to_string().contains("the agent cannot start"), "{error}");
}

async fn ask(port: u16, request: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}
