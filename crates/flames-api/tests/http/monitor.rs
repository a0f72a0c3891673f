//! Metrics, alerts and use.

use crate::house::{House, json_request, request};
use axum::body::Body;
use axum::http::{Method, header};
use flames_api::auth::Trust;
use flames_core::monitor::AlertRules;
use flames_metrics::alert::{Rule, Signal, defaults};
use flames_node::{CreateStep, Execution};
use flames_testkit::Exposition;
use serde_json::json;
use std::time::Duration;

async fn scrape(house: &House) -> Exposition {
    let answer = house.get("/metrics").await;
    assert_eq!(answer.status, 200);
    let kind = answer.headers[header::CONTENT_TYPE].to_str().unwrap();
    assert!(kind.starts_with("application/openmetrics-text; version=1.0.0"), "{kind}");
    let text = String::from_utf8(answer.body).unwrap();
    Exposition::parse(&text).unwrap_or_else(|problem| panic!("{problem}\n{text}"))
}

#[tokio::test]
async fn a_scrape_shows_creates_states_stages_and_requests() {
    let house = House::local().await;
    let id = house.create(json!({})).await;
    house.create(json!({})).await;
    house.post("/v1/sandboxes", &json!({ "template": "NOT A NAME" })).await;
    house.delete(&format!("/v1/sandboxes/{id}")).await;
    house.get("/nowhere").await;
    let seen = scrape(&house).await;
    assert_eq!(seen.value("flames_creates_total", &[("outcome", "ok")]), Some(2.0));
    let rejected = [("outcome", "rejected"), ("error", "invalid input")];
    assert_eq!(seen.value("flames_creates_total", &rejected), Some(1.0));
    assert_eq!(seen.sum("flames_create_seconds_count", &[("path", "cold")]), 2.0);
    let stage = [("stage", "record"), ("template", "mini"), ("path", "cold")];
    assert_eq!(seen.value("flames_create_stage_seconds_count", &stage), Some(2.0));
    assert_eq!(seen.value("flames_operation_seconds_count", &[("operation", "destroy")]), Some(1.0));
    assert_eq!(seen.value("flames_sandboxes", &[("state", "running")]), Some(1.0));
    assert_eq!(seen.value("flames_sandboxes", &[("state", "failed")]), Some(0.0));
    let request = |route, method, status| {
        seen.value("flames_http_requests_total", &[("route", route), ("method", method), ("status", status)])
    };
    assert_eq!(request("/v1/sandboxes", "POST", "201"), Some(2.0));
    assert_eq!(request("/v1/sandboxes", "POST", "400"), Some(1.0));
    assert_eq!(request("/v1/sandboxes/{id}", "DELETE", "204"), Some(1.0));
    assert_eq!(request("unknown", "GET", "404"), Some(1.0));
}

#[tokio::test]
async fn sandboxes_paths_and_made_up_methods_make_no_new_series() {
    let house = House::local().await;
    let first = house.create(json!({})).await;
    for path in ["/v1/sandboxes/x", "/nowhere/1"] {
        house.get(path).await;
    }
    house.send(request(Method::from_bytes(b"BREW").unwrap(), "/nowhere", Body::empty())).await;
    house.delete(&format!("/v1/sandboxes/{first}")).await;
    scrape(&house).await;
    let before = scrape(&house).await;
    for n in 0..30 {
        let id = house.create(json!({ "n": n.to_string() })).await;
        house.get(&format!("/nowhere/{id}")).await;
        house
            .send(request(
                Method::from_bytes(format!("BREW{n}").as_bytes()).unwrap(),
                "/nowhere",
                Body::empty(),
            ))
            .await;
        house.delete(&format!("/v1/sandboxes/{id}")).await;
    }
    let after = scrape(&house).await;
    assert_eq!(after.series.len(), before.series.len());
    let text = format!("{:?}", after.series);
    assert!(!text.contains(&first), "a sandbox's id is a label");
}

#[tokio::test]
async fn a_scrape_over_tcp_needs_a_key() {
    let house = House::new(Trust::ApiKey).await;
    house.get("/metrics").await.is_problem(401, "unauthenticated");
    let key = house.api.keys.ensure_first().await.unwrap().unwrap();
    let bearer = format!("Bearer {}", key.expose());
    let mut scrape = request(Method::GET, "/metrics", Body::empty());
    scrape.headers_mut().insert(header::AUTHORIZATION, bearer.parse().unwrap());
    assert_eq!(house.send(scrape).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn an_alert_fires_and_is_resolved() {
    let house = House::local().await;
    let quick = |rule: Rule| Rule {
        window: Duration::from_secs(30),
        hold: Duration::from_secs(10),
        keep_firing: Duration::from_secs(10),
        min_count: 1,
        ..rule
    };
    let rules = defaults(Execution::Emulated)
        .into_iter()
        .filter(|rule| rule.signal == Signal::AllocationSuccess)
        .map(quick)
        .collect();
    let mut turns = house.api.plane.watch_alerts(AlertRules { rules, every: Duration::from_secs(1) });
    tokio::time::sleep(Duration::from_secs(2)).await;
    house.node.fail_creates_at(Some(CreateStep::Boot));
    let failed = house.send(json_request("/v1/sandboxes", json!({ "template": "mini" }).to_string())).await;
    assert!(failed.status.is_server_error(), "{failed:?}");
    let fired = turns.recv().await.unwrap();
    let shown = house.get("/v1/alerts").await.json();
    assert_eq!(shown["alerts"][0]["rule"], "allocation-success");
    assert_eq!((&shown["alerts"][0]["state"], &shown["rules"][0]["below"]), (&json!("firing"), &json!(0.95)));
    let resolved = turns.recv().await.unwrap();
    assert_eq!((fired.state.name(), resolved.state.name()), ("firing", "resolved"));
    assert!(resolved.resolved_at > Some(resolved.since));
    let seen = scrape(&house).await;
    assert_eq!(seen.value("flames_alerts_total", &[("state", "firing")]), Some(1.0));
    assert_eq!(seen.value("flames_alerts_total", &[("state", "resolved")]), Some(1.0));
    assert_eq!(seen.value("flames_alerts_firing", &[]), Some(0.0));
}

#[tokio::test]
async fn top_shows_what_each_sandbox_uses() {
    let house = House::local().await;
    let id = house.create(json!({})).await;
    let top = house.get("/v1/top").await.json();
    // The machines of these tests say that they are process 1, which every host has.
    assert_eq!((&top["usage"][0]["sandbox"], &top["usage"][0]["pid"]), (&json!(id), &json!(1)));
    assert_eq!(top["pools"], json!([]));
}
