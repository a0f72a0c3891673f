//! Requests that cannot be met: which status, which code, and always as a problem.

use crate::house::{House, json_request, request};
use axum::body::Body;
use axum::http::{Method, Request, header};
use flames_node::CreateStep;
use serde_json::{Value, json};

#[tokio::test]
async fn an_unknown_path_and_a_wrong_method_are_problems() {
    let house = House::local().await;
    house.get("/v1/nothing").await.is_problem(404, "unknown_path");
    house.get("/").await.is_problem(404, "unknown_path");
    house.delete("/v1/sandboxes").await.is_problem(405, "wrong_method");
}

#[tokio::test]
async fn a_body_that_is_not_what_the_route_takes_is_refused_by_what_is_wrong() {
    let house = House::local().await;
    let post = |body: &'static str| house.send(json_request("/v1/sandboxes", body));
    post("{\"template\":").await.is_problem(400, "invalid_request");
    let unknown = post(r#"{"template":"mini","memroy_mib":1}"#).await.is_problem(400, "invalid_request");
    assert!(unknown.detail.contains("memroy_mib"), "{unknown:?}");
    post(r#"{"template":7}"#).await.is_problem(400, "invalid_request");
    post(r#"{"template":"mini","memory_mib":-1}"#).await.is_problem(400, "invalid_request");
    post("").await.is_problem(400, "invalid_request");
    let untyped = Request::post("/v1/sandboxes").body(Body::from(r#"{"template":"mini"}"#)).unwrap();
    house.send(untyped).await.is_problem(415, "wrong_media_type");
    assert_eq!(house.node.running(), []);
}

#[tokio::test]
async fn a_body_above_a_mebibyte_is_refused() {
    let house = House::local().await;
    let large = json!({ "template": "x".repeat(1 << 20) }).to_string();
    house.send(json_request("/v1/sandboxes", large)).await.is_problem(413, "body_too_large");
}

#[tokio::test]
async fn standard_input_above_a_mebibyte_is_refused() {
    let house = House::local().await;
    let id = house.create(json!({})).await;
    let path = format!("/v1/sandboxes/{id}/processes/1/stdin");
    let answer = house.send(request(Method::POST, &path, Body::from(vec![0; (1 << 20) + 1]))).await;
    answer.is_problem(413, "body_too_large");
}

#[tokio::test]
async fn a_field_out_of_its_range_is_named() {
    let house = House::local().await;
    let refused = [
        (json!({ "template": "../x" }), "template"),
        (json!({ "template": "mini", "vcpus": 0 }), "vcpus"),
        (json!({ "template": "mini", "memory_mib": 4_000_000_000_u32 }), "memory_mib"),
        (json!({ "template": "mini", "disk_mib": 1 }), "disk_mib"),
        (json!({ "template": "mini", "user": "a:b" }), "user"),
        (json!({ "template": "mini", "idle_timeout_s": 0 }), "idle_timeout_s"),
        (json!({ "template": "mini", "workdir": "x" }), "workdir"),
        (json!({ "template": "mini", "env": { "A=B": "" } }), "env"),
        (json!({ "template": "mini", "metadata": { "": "x" } }), "metadata"),
    ];
    for (body, field) in refused {
        let problem = house.post("/v1/sandboxes", &body).await.is_problem(400, "invalid_request");
        assert_eq!(
            (problem.resource.as_deref(), problem.id.as_deref()),
            (Some("field"), Some(field)),
            "{body}"
        );
    }
    assert_eq!(house.node.running(), []);
}

#[tokio::test]
async fn an_id_that_is_none_is_400_and_one_that_nobody_has_is_404() {
    let house = House::local().await;
    for path in ["", "/logs", "/files?path=x", "/directories?path=x", "/processes"] {
        house.get(&format!("/v1/sandboxes/UPPER{path}")).await.is_problem(400, "invalid_request");
        let missing =
            house.get(&format!("/v1/sandboxes/iabc{path}")).await.is_problem(404, "sandbox_not_found");
        assert_eq!((missing.resource.as_deref(), missing.id.as_deref()), (Some("sandbox"), Some("iabc")));
    }
    house.delete("/v1/sandboxes/iabc").await.is_problem(404, "sandbox_not_found");
    house.get("/v1/sandboxes/..%2fkeys").await.is_problem(400, "invalid_request");
    house.delete("/v1/templates/nope").await.is_problem(404, "not_found");
    house.delete("/v1/keys/nope").await.is_problem(404, "not_found");
}

#[tokio::test]
async fn parameters_that_make_no_sense_are_refused() {
    let house = House::local().await;
    let id = house.create(json!({})).await;
    for query in ["state=happy", "limit=0", "limit=1001", "limit=x", "cursor=made-up", "colour=red"] {
        house.get(&format!("/v1/sandboxes?{query}")).await.is_problem(400, "invalid_request");
    }
    for path in ["files", "directories?path=/&depth=0", "directories?path=/&depth=33", "logs?limit_bytes=-1"]
    {
        house.get(&format!("/v1/sandboxes/{id}/{path}")).await.is_problem(400, "invalid_request");
    }
    let signal =
        house.post(&format!("/v1/sandboxes/{id}/processes/x/signal"), &json!({ "signal": "SIGTERM" })).await;
    signal.is_problem(400, "invalid_request");
    for command in [json!([]), json!([""])] {
        let exec = house.post(&format!("/v1/sandboxes/{id}/exec"), &json!({ "command": command })).await;
        exec.is_problem(400, "invalid_request");
    }
    for size in [json!({}), json!({"columns": 0, "rows": 24}), json!({"columns": 80, "rows": 70_000})] {
        let exec = json!({ "command": ["sh"], "terminal": size });
        let exec = house.post(&format!("/v1/sandboxes/{id}/exec"), &exec).await;
        exec.is_problem(400, "invalid_request");
    }
}

#[tokio::test]
async fn a_host_that_cannot_start_it_is_503_with_a_time_to_come_back() {
    let house = House::local().await;
    house.node.fail_creates_at(Some(CreateStep::Boot));
    let answer = house.post("/v1/sandboxes", &json!({ "template": "mini" })).await;
    let problem = answer.is_problem(503, "unavailable");
    assert!(answer.headers.contains_key(header::RETRY_AFTER));
    assert!(problem.mend.unwrap().contains("doctor"));
    assert_eq!(house.get("/v1/sandboxes").await.json()["sandboxes"], Value::Array(vec![]));
}

#[tokio::test]
async fn a_sandbox_that_does_not_run_takes_no_commands() {
    let house = House::local().await;
    let id = house.create(json!({})).await;
    let run = house.node.running().remove(0);
    house.node.kill(&run, flames_node::ExitCause::GuestPanic);
    house.node.until(|node| node.destroy_calls() == 1).await;
    let exec = house.post(&format!("/v1/sandboxes/{id}/exec"), &json!({ "command": ["true"] })).await;
    exec.is_problem(409, "sandbox_not_running");
    let shown = house.get(&format!("/v1/sandboxes/{id}")).await.json();
    assert_eq!((&shown["state"], &shown["failure"]["cause"]), (&"failed".into(), &"vm_exited".into()));
}

#[tokio::test]
async fn what_the_agent_refuses_keeps_its_meaning() {
    let house = House::local().await;
    let id = house.create(json!({})).await;
    for (agent, status, code) in [
        (404, 404, "guest_not_found"),
        (409, 409, "guest_already_exists"),
        (400, 400, "guest_invalid_argument"),
        (401, 400, "guest_unknown_user"),
        (403, 403, "guest_permission_denied"),
        (507, 507, "guest_resource_exhausted"),
        (500, 502, "guest_internal"),
    ] {
        house.get(&format!("/v1/sandboxes/{id}/files?path={agent}")).await.is_problem(status, code);
    }
}
