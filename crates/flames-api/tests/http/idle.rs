//! Idle limits: shown, checked, and held off by whoever still reads an answer.

use crate::house::{House, json_request, request};
use axum::body::Body;
use axum::http::{Method, Request};
use axum::response::Response;
use flames_core::SandboxId;
use flames_core::events::Since;
use futures::StreamExt;
use serde_json::{Value, json};
use tower::ServiceExt;

#[tokio::test]
async fn an_idle_limit_is_shown_and_a_sandbox_has_none_unless_asked() {
    let house = House::local().await;
    let limited = house.post("/v1/sandboxes", &json!({ "template": "mini", "idle_timeout_s": 300 })).await;
    assert_eq!((limited.status.as_u16(), &limited.json()["idle_timeout_s"]), (201, &json!(300)));
    let shown = house.get(limited.headers["location"].to_str().unwrap()).await.json();
    assert_eq!(shown["idle_timeout_s"], 300);
    let unlimited = house.post("/v1/sandboxes", &json!({ "template": "mini" })).await.json();
    assert_eq!(unlimited["idle_timeout_s"], Value::Null);
}

#[tokio::test]
async fn an_idle_limit_of_nothing_is_refused_with_what_would_be_right() {
    let house = House::local().await;
    let answer = house.post("/v1/sandboxes", &json!({ "template": "mini", "idle_timeout_s": 0 })).await;
    let problem = answer.is_problem(400, "invalid_request");
    assert_eq!(problem.id.as_deref(), Some("idle_timeout_s"));
    assert!(
        problem.detail.contains("at least 1 s") && problem.detail.contains("leave it out"),
        "{problem:?}"
    );
    assert_eq!(house.node.running(), []);
}

#[tokio::test]
async fn whoever_follows_a_command_or_reads_a_file_keeps_its_sandbox_and_nobody_else_does() {
    let house = House::local().await;
    let (followed, read) = (idling(&house).await, idling(&house).await);
    let command = json!({ "command": ["sleep", "1000"] }).to_string();
    let command = open(&house, json_request(&format!("/v1/sandboxes/{followed}/exec"), command)).await;
    let path = format!("/v1/sandboxes/{read}/files?path=a");
    let file = open(&house, request(Method::GET, &path, Body::empty())).await;

    let unused = idling(&house).await;
    until_gone(&house, &unused).await;
    for used in [&followed, &read] {
        assert_eq!(house.get(&format!("/v1/sandboxes/{used}")).await.json()["state"], "running");
    }
    drop((command, file));
    until_gone(&house, &followed).await;
    until_gone(&house, &read).await;
}

/// A sandbox that ends when it was idle for two seconds.
async fn idling(house: &House) -> String {
    let answer = house.post("/v1/sandboxes", &json!({ "template": "mini", "idle_timeout_s": 2 })).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.json()["id"].as_str().unwrap().to_owned()
}

/// An answer whose body nobody has read yet.
async fn open(house: &House, request: Request<Body>) -> Response {
    let response = house.router().oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200);
    response
}

async fn until_gone(house: &House, id: &str) {
    let (plane, id) = (&house.api.plane, SandboxId::parse(id).unwrap());
    let mut changes = plane.changes(Since::Now).await.unwrap();
    while plane.get(&id).await.is_ok() {
        changes.next().await.unwrap().unwrap();
    }
}
