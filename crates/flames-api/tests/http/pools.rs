//! Warm pools and boot levels through the API.

use crate::house::House;
use axum::body::Body;
use axum::http::{Method, Request, header};
use serde_json::{Value, json};

fn put(template: &str, written: &Value) -> Request<Body> {
    put_at(format!("/v1/pools/{template}"), written)
}

fn put_at(path: String, written: &Value) -> Request<Body> {
    Request::builder()
        .method(Method::PUT)
        .uri(path)
        .header(header::CONTENT_TYPE, "application/json")
        .body(written.to_string().into())
        .unwrap()
}

#[tokio::test]
async fn a_pool_that_cannot_be_meant_is_refused_with_every_mistake() {
    let house = House::local().await;
    let refused =
        house.send(put("mini", &json!({ "minimum": 9, "maximum": 2, "refill_concurrency": 0 }))).await;
    let refused = refused.is_problem(400, "invalid_request");
    assert_eq!((refused.resource.as_deref(), refused.id.as_deref()), (Some("pool"), Some("mini")));
    assert!(
        refused.detail.contains("minimum") && refused.detail.contains("refill_concurrency"),
        "{refused:?}"
    );
    let refused = house.send(put("mini", &json!({ "strategy": "best" }))).await;
    assert!(refused.is_problem(400, "invalid_request").detail.contains("round-robin"));
    house.send(put("unknown", &json!({}))).await.is_problem(404, "not_found");
    house.send(put("../x", &json!({}))).await;
    assert_eq!(house.node.pool_configs(), []);
}

#[tokio::test]
async fn a_pool_is_set_and_what_is_not_there_is_404() {
    let house = House::local().await;
    let kept = house.send(put("mini", &json!({ "preset": "minimal", "maximum": 7 }))).await;
    assert_eq!((kept.status.as_u16(), &kept.json()["maximum"]), (200, &7.into()));
    assert_eq!(house.node.pool_configs()[0].maximum, 7);
    house.get("/v1/pools/base").await.is_problem(404, "pool_not_found");
    house.delete("/v1/pools/base").await.is_problem(404, "pool_not_found");
}

#[tokio::test]
async fn a_create_says_its_level_and_its_path_and_an_unknown_level_is_refused() {
    let house = House::local().await;
    let made = house.post("/v1/sandboxes", &json!({ "template": "mini", "level": "fast" })).await.json();
    assert_eq!((&made["level"], &made["path"]), (&"fast".into(), &"cold".into()));
    let refused = house.post("/v1/sandboxes", &json!({ "template": "mini", "level": "warp" })).await;
    assert_eq!(refused.is_problem(400, "invalid_request").id.as_deref(), Some("level"));
}

#[tokio::test]
async fn the_level_of_a_template_is_set_shown_and_refused() {
    let house = House::local().await;
    let set = |name: &str, level: &Value| {
        put_at(format!("/v1/templates/{name}/settings"), &json!({ "level": level }))
    };
    assert_eq!(house.get("/v1/templates/mini/settings").await.json(), json!({}));
    assert_eq!(house.send(set("mini", &json!("fast"))).await.status, 200);
    assert_eq!(house.get("/v1/templates/mini/settings").await.json(), json!({ "level": "fast" }));
    let made = house.post("/v1/sandboxes", &json!({ "template": "mini" })).await.json();
    assert_eq!(made["level"], "fast");
    let refused = house.send(set("mini", &json!("warp"))).await;
    assert_eq!(refused.is_problem(400, "invalid_request").id.as_deref(), Some("level"));
    assert_eq!(house.send(set("unknown", &json!("fast"))).await.status, 404);
    assert_eq!(house.send(set("mini", &Value::Null)).await.json(), json!({}));
}
