//! The servers start, survive what tests do to them, and leave nothing behind.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use flames_testkit::{Caddy, Nats, Postgres, Redis};
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
