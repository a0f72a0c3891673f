//! Who may call what.

use crate::house::{House, request};
use axum::body::Body;
use axum::http::{Method, Request, header};
use flames_api::auth::Trust;
use flames_core::ApiKey;
use serde_json::{Value, json};
use std::num::NonZeroU32;

/// Every path and method of the document, with something in place of its parameters.
fn routes() -> Vec<(Method, String, bool)> {
    let document: Value = serde_json::from_str(&flames_api::openapi_json()).unwrap();
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let path =
            path.replace("{pid}", "1").replace("{port}", "80").replace("{id}", "iabc").replace("{name}", "x");
        for (method, operation) in item.as_object().unwrap() {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let open = operation["security"]
                .as_array()
                .is_some_and(|schemes| schemes.iter().all(|one| one == &json!({})));
            found.push((method, path.clone(), open));
        }
    }
    found
}

fn keyed(method: Method, path: &str, name: &str, value: &str) -> Request<Body> {
    let mut request = request(method, path, Body::empty());
    request
        .headers_mut()
        .insert(header::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    request
}

#[tokio::test]
async fn every_route_but_those_said_to_be_open_wants_a_key_that_exists() {
    let house = House::new(Trust::ApiKey).await;
    let routes = routes();
    assert!(routes.len() > 15);
    for (method, path, open) in routes {
        let bare = house.send(request(method.clone(), &path, Body::empty())).await;
        if open {
            assert!(bare.status.is_success(), "{method} {path}");
            continue;
        }
        let problem = bare.is_problem(401, "unauthenticated");
        assert!(problem.mend.is_some());
        let wrong = house.send(keyed(method, &path, "x-api-key", "e2b_00")).await;
        wrong.is_problem(401, "unauthenticated");
    }
}

#[tokio::test]
async fn a_key_opens_as_a_header_and_as_a_bearer_token_until_it_is_revoked() {
    let house = House::new(Trust::ApiKey).await;
    let (key, info) = house.api.keys.create("mine").await.unwrap();
    let bearer = format!("Bearer {}", key.expose());
    let both = [("x-api-key", key.expose()), ("authorization", bearer.as_str())];
    for (name, value) in both {
        let answer = house.send(keyed(Method::GET, "/v1/sandboxes", name, value)).await;
        assert_eq!(answer.status, 200, "{name}");
    }
    house.api.keys.revoke(&info.id).await.unwrap();
    for (name, value) in both {
        house.send(keyed(Method::GET, "/v1/sandboxes", name, value)).await.is_problem(401, "unauthenticated");
    }
}

#[tokio::test]
async fn whoever_can_open_the_socket_needs_no_key() {
    let house = House::local().await;
    assert_eq!(house.get("/v1/sandboxes").await.status, 200);
    assert_eq!(house.post("/v1/keys", &json!({ "name": "second" })).await.status, 201);
}

#[tokio::test]
async fn a_key_neither_makes_keys_nor_reads_files_of_the_host() {
    let house = House::new(Trust::ApiKey).await;
    let (key, _) = house.api.keys.create("mine").await.unwrap();
    for (path, body) in [
        ("/v1/keys", json!({ "name": "another" })),
        ("/v1/templates", json!({ "name": "x", "directory": "/etc" })),
    ] {
        let mut request = crate::house::json_request(path, body.to_string());
        request.headers_mut().insert("x-api-key", key.expose().parse().unwrap());
        house.send(request).await.is_problem(403, "local_only");
    }
    house.send(keyed(Method::GET, "/v1/keys", "x-api-key", key.expose())).await.is_problem(403, "local_only");
    assert_eq!(house.api.keys.list().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_key_above_its_rate_is_told_when_to_come_back_and_another_goes_on() {
    let house = House::with_rate(Trust::ApiKey, NonZeroU32::new(3)).await;
    let (greedy, _) = house.api.keys.create("greedy").await.unwrap();
    let (modest, _) = house.api.keys.create("modest").await.unwrap();
    let ask = |key: &ApiKey| house.send(keyed(Method::GET, "/v1/sandboxes", "x-api-key", key.expose()));
    // Two windows may meet: then twice as many pass, and not one more.
    let mut refused = None;
    for _ in 0..7 {
        let answer = ask(&greedy).await;
        if answer.status == 429 {
            refused = Some(answer);
        }
    }
    let refused = refused.expect("seven requests at three a minute");
    refused.is_problem(429, "rate_limited");
    let seconds: u64 = refused.headers[header::RETRY_AFTER].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds), "{seconds}");
    assert_eq!(ask(&modest).await.status, 200);
}
