//! What a sandbox may reach, over HTTP: asked for, told, changed, and refused with what is wrong.

use crate::house::{Answer, House, json_request};
use axum::body::Body;
use axum::http::{Method, Request, header};
use flames_provider::ErrorKind;
use serde_json::{Value, json};

async fn put(house: &House, id: &str, policy: &Value) -> Answer {
    let request = Request::builder().method(Method::PUT).uri(format!("/v1/sandboxes/{id}/network"));
    let request = request.header(header::CONTENT_TYPE, "application/json");
    house.send(request.body(Body::from(policy.to_string())).unwrap()).await
}

async fn created(house: &House, network: &Value) -> String {
    let answer = house.post("/v1/sandboxes", &json!({ "template": "mini", "network": network })).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.json()["id"].as_str().unwrap().to_owned()
}

async fn told(house: &House, id: &str) -> Value {
    let answer = house.get(&format!("/v1/sandboxes/{id}/network")).await;
    assert_eq!(answer.status.as_u16(), 200);
    serde_json::from_slice(&answer.body).unwrap()
}

#[tokio::test]
async fn a_create_without_network_reaches_nothing_and_one_with_it_is_told_back() {
    let house = House::local().await;
    let silent = house.create(json!({})).await;
    assert_eq!(told(&house, &silent).await["policy"], json!({ "internet": false }));
    let asked = json!({ "internet": true, "allow": ["10.1.0.0/16:443/tcp", "*.example.com"], "deny": ["192.0.2.0/24"] });
    let id = created(&house, &asked).await;
    assert_eq!(told(&house, &id).await["policy"], asked);
    let view: Value = serde_json::from_slice(&house.get(&format!("/v1/sandboxes/{id}")).await.body).unwrap();
    assert_eq!(view["network"], asked);
}

#[tokio::test]
async fn a_change_replaces_everything_and_the_answer_holds_the_figures() {
    let house = House::local().await;
    let id = created(&house, &json!({ "internet": true })).await;
    let answer = put(&house, &id, &json!({ "allow": ["192.0.2.1"] })).await;
    assert_eq!(answer.status.as_u16(), 200);
    let view: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(view["policy"], json!({ "internet": false, "allow": ["192.0.2.1/32"] }));
    assert_eq!(view["traffic"]["sent"], json!({ "packets": 10, "bytes": 1000 }));
    assert_eq!(view["traffic"]["dropped"]["default"]["packets"], 1);
    assert_eq!(view["traffic"]["rules"][0], json!({ "rule": "192.0.2.1/32", "effect": "allow", "hits": 0 }));
}

#[tokio::test]
async fn a_wrong_policy_is_refused_by_its_place_and_nothing_changes() {
    let house = House::local().await;
    let id = house.create(json!({})).await;
    let many: Vec<String> = (0..=256).map(|index| format!("10.0.{}.{}", index / 256, index % 256)).collect();
    for (policy, place, words) in [
        (json!({ "allow": ["10.0.0.0/33"] }), "network.allow[0]", "is no network"),
        (json!({ "allow": ["1.1.1.1", "a.com:99999"] }), "network.allow[1]", "is no port"),
        (json!({ "allow": ["https://a.com"] }), "network.allow[0]", "URL"),
        (json!({ "allow": ["127.0.0.1"] }), "network.allow[0]", "no sandbox ever reaches"),
        (json!({ "deny": ["1.1.1.1"] }), "network.deny[0]", "denied already"),
        (
            json!({ "internet": true, "allow": ["1.1.1.1"], "deny": ["1.1.1.1"] }),
            "network.deny[0]",
            "allow wins",
        ),
        (json!({ "allow": many }), "network.allow and deny", "257 rules, more than 256"),
        (json!({ "dns": ["dns.example.com"] }), "network.dns[0]", "no address"),
        (json!({ "budget_bytes": 0 }), "network.budget_bytes", "0 bytes"),
    ] {
        let of_change = put(&house, &id, &policy).await.is_problem(400, "invalid_request");
        let body = json!({ "template": "mini", "network": policy }).to_string();
        let of_create =
            house.send(json_request("/v1/sandboxes", body)).await.is_problem(400, "invalid_request");
        assert_eq!(of_change, of_create);
        assert_eq!(of_change.id.as_deref(), Some(place));
        assert!(of_change.detail.contains(words), "{}", of_change.detail);
        assert!(of_change.mend.is_some());
    }
    let unknown = put(&house, &id, &json!({ "allowed": [] })).await.is_problem(400, "invalid_request");
    assert!(unknown.detail.contains("unknown field `allowed`"), "{}", unknown.detail);
    assert_eq!(told(&house, &id).await["policy"], json!({ "internet": false }));
    assert_eq!(house.node.running().len(), 1);
}

#[tokio::test]
async fn a_sandbox_that_is_not_there_and_a_host_that_cannot_are_told_apart() {
    let house = House::local().await;
    put(&house, "i0000000000000000000a", &json!({})).await.is_problem(404, "sandbox_not_found");
    house.get("/v1/sandboxes/i0000000000000000000a/network").await.is_problem(404, "sandbox_not_found");
    let id = house.create(json!({})).await;
    house.node.fail_networks(Some(ErrorKind::Unsupported));
    let refused = put(&house, &id, &json!({ "internet": true })).await.is_problem(501, "unsupported");
    assert!(refused.mend.unwrap().contains("run the daemon as root"));
}
