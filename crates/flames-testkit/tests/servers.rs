//! The servers start, survive what tests do to them, and leave nothing behind.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use flames_testkit::{Caddy, Nats, Postgres, Redis};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

async fn answers(port: u16, question: &str) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        stream.write_all(question.as_bytes()).await.ok()?;
        stream.read_u8().await.ok()
    };
    timeout(Duration::from_millis(500), ask).await.is_ok_and(|byte| byte.is_some())
}

#[tokio::test]
async fn postgres_keeps_its_port_and_what_it_acknowledged_over_kill9() {
    let started = Instant::now();
    let Some(postgres) = Postgres::start().await else { return };
    eprintln!("postgres ready after {:?}", started.elapsed());
    let url = postgres.new_database();
    postgres.sql_in(&url, "CREATE TABLE t (n int); INSERT INTO t VALUES (7)");
    postgres.server().kill9();
    assert!(TcpStream::connect(("127.0.0.1", postgres.port())).await.is_err());
    postgres.server().restart().await;
    assert_eq!(postgres.sql_in(&url, "SELECT n FROM t").trim(), "7");
}

#[tokio::test]
async fn a_paused_server_does_not_answer_until_it_goes_on() {
    let Some(redis) = Redis::start().await else { return };
    redis.server().pause();
    assert!(!answers(redis.port(), "PING\r\n").await);
    redis.server().cont();
    assert!(answers(redis.port(), "PING\r\n").await);
}

#[tokio::test]
async fn a_dropped_server_is_gone() {
    let Some(nats) = Nats::start().await else { return };
    let port = nats.port();
    assert!(answers(port, "").await);
    drop(nats);
    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err());
}

#[tokio::test]
async fn caddy_answers_on_its_admin_port_and_restarts() {
    let Some(caddy) = Caddy::start().await else { return };
    assert!(caddy.admin_url().starts_with("http://127.0.0.1:"));
    caddy.server().restart().await;
}

/// Not a promise but the victim of the next test: starts servers, says where, and waits to be killed.
#[tokio::test]
#[ignore = "run by the test below as a child process"]
async fn victim() {
    let (Some(postgres), Some(redis)) = (Postgres::start().await, Redis::start().await) else { return };
    let data = postgres.sql("SHOW data_directory");
    println!("victim {} {} {}", postgres.port(), redis.port(), data.trim());
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_killed_test_leaves_no_server_and_no_file() {
    if Postgres::start().await.is_none() || Redis::start().await.is_none() {
        return;
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "victim", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let line = lines.find_map(|line| line.split_once("victim ").map(|(_, rest)| rest.to_owned())).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let [postgres, redis, data] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
    let gone = || async {
        !Path::new(data).exists()
            && TcpStream::connect(("127.0.0.1", postgres.parse::<u16>().unwrap())).await.is_err()
            && TcpStream::connect(("127.0.0.1", redis.parse::<u16>().unwrap())).await.is_err()
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    while !gone().await {
        assert!(Instant::now() < deadline, "left over: {line}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
