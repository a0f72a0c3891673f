//! What Caddy's operator and its failures can do to us, and what we must not do to them.
#![allow(clippy::unwrap_used)]

use flames_ingress::{ErrorKind, Host, IngressProvider, Route, RouteId, RouteSet, Upstream};
use flames_ingress_caddy::{CaddyConfig, CaddyIngress};
use flames_testkit::{Caddy, Port};
use reqwest::Client;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn config(server: &Caddy) -> CaddyConfig {
    CaddyConfig::new(server.admin_url().parse().unwrap(), ([127, 0, 0, 1], server.http_port()).into())
}

fn provider(server: &Caddy) -> CaddyIngress {
    CaddyIngress::new(config(server)).unwrap()
}

fn routes(host: &str) -> RouteSet {
    let upstream = Upstream::Tcp(([127, 0, 0, 1], 9).into());
    RouteSet::new([Route::new(RouteId::parse("one").unwrap(), Host::parse(host).unwrap(), upstream)]).unwrap()
}

async fn read(server: &Caddy, path: &str) -> Value {
    let answer = Client::new().get(format!("{}/config/{path}", server.admin_url())).send().await.unwrap();
    answer.json().await.unwrap()
}

async fn write(server: &Caddy, path: &str, value: &Value) {
    let url = format!("{}/config/{path}", server.admin_url());
    let answer = Client::new().post(url).json(value).send().await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
}

#[tokio::test]
async fn a_caddy_that_is_down_is_unavailable_within_seconds() {
    let port = Port::reserve();
    let admin = format!("http://user:hunter2@127.0.0.1:{}", port.number()).parse().unwrap();
    let provider = CaddyIngress::new(CaddyConfig::new(admin, ([127, 0, 0, 1], 1).into())).unwrap();
    let started = Instant::now();
    for error in [provider.apply(&routes("a.x")).await.unwrap_err(), provider.routes().await.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.is_retryable());
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_paused_caddy_is_a_timeout_within_the_bound_and_recovers() {
    let Some(server) = Caddy::start().await else { return };
    let config = CaddyConfig { timeout: Duration::from_secs(1), ..config(&server) };
    let provider = CaddyIngress::new(config).unwrap();
    provider.apply(&routes("a.x")).await.unwrap();
    server.server().pause();
    let started = Instant::now();
    assert_eq!(provider.apply(&routes("b.x")).await.unwrap_err().kind(), ErrorKind::Timeout);
    assert!(started.elapsed() < Duration::from_secs(4));
    server.server().cont();
    provider.apply(&routes("b.x")).await.unwrap();
    assert_eq!(provider.routes().await.unwrap(), routes("b.x"));
}

#[tokio::test]
async fn a_killed_caddy_is_right_again_after_the_next_apply() {
    let Some(server) = Caddy::start().await else { return };
    let provider = provider(&server);
    provider.apply(&routes("a.x")).await.unwrap();
    server.server().kill9();
    assert_eq!(provider.routes().await.unwrap_err().kind(), ErrorKind::Unavailable);
    server.server().restart().await;
    provider.apply(&routes("b.x")).await.unwrap();
    assert_eq!(provider.routes().await.unwrap(), routes("b.x"));
}

#[tokio::test]
async fn a_block_that_is_not_ours_is_refused_and_not_touched() {
    let Some(server) = Caddy::start().await else { return };
    let foreign = json!({ "listen": ["127.0.0.1:0"], "routes": [] });
    write(&server, "apps", &json!({ "http": { "servers": { "flames": foreign } } })).await;
    let error = provider(&server).apply(&routes("a.x")).await.unwrap_err();
    assert_eq!((error.kind(), error.id()), (ErrorKind::Conflict, "flames"));
    assert_eq!(provider(&server).routes().await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(read(&server, "apps/http/servers/flames").await, foreign);
}

#[tokio::test]
async fn the_rest_of_the_configuration_is_left_alone() {
    let Some(server) = Caddy::start().await else { return };
    let other = json!({ "listen": ["127.0.0.1:0"], "routes": [{ "handle": [] }] });
    write(
        &server,
        "apps",
        &json!({ "http": { "grace_period": 1_000_000_000, "servers": { "other": other } } }),
    )
    .await;
    provider(&server).apply(&routes("a.x")).await.unwrap();
    provider(&server).apply(&RouteSet::default()).await.unwrap();
    assert_eq!(read(&server, "apps/http/servers/other").await, other);
    assert_eq!(read(&server, "apps/http/grace_period").await, 1_000_000_000);
}

#[tokio::test]
async fn an_edited_block_is_corrupt_and_the_next_apply_mends_it() {
    let Some(server) = Caddy::start().await else { return };
    let provider = provider(&server);
    provider.apply(&routes("a.x")).await.unwrap();
    write(&server, "apps/http/servers/flames/routes/0/terminal", &json!(false)).await;
    assert_eq!(provider.routes().await.unwrap_err().kind(), ErrorKind::Corrupt);
    provider.apply(&routes("a.x")).await.unwrap();
    assert_eq!(provider.routes().await.unwrap(), routes("a.x"));
}

#[tokio::test]
async fn a_block_that_caddy_cannot_load_leaves_the_old_one_in_force() {
    let Some(server) = Caddy::start().await else { return };
    let good = provider(&server);
    good.apply(&routes("a.x")).await.unwrap();
    let config = CaddyConfig { listen: "203.0.113.1:80".parse().unwrap(), ..config(&server) };
    let bad = CaddyIngress::new(config).unwrap();
    bad.apply(&routes("b.x")).await.unwrap_err();
    assert_eq!(good.routes().await.unwrap(), routes("a.x"));
}

#[test]
fn a_bad_setting_is_named() {
    let good = CaddyConfig::new("http://127.0.0.1:2019".parse().unwrap(), ([127, 0, 0, 1], 80).into());
    let bad = [
        ("admin", CaddyConfig { admin: "https://a.x".parse().unwrap(), ..good.clone() }),
        ("server", CaddyConfig { server: "a/b".to_owned(), ..good.clone() }),
        ("listen", CaddyConfig { listen: ([127, 0, 0, 1], 0).into(), ..good.clone() }),
    ];
    for (setting, config) in bad {
        let error = CaddyIngress::new(config).unwrap_err();
        assert_eq!((error.kind(), error.id()), (ErrorKind::InvalidInput, setting));
    }
}
