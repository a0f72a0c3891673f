//! Sandboxes through the API: made, listed by pages and filters, ended.

use crate::house::House;
use axum::http::header;
use serde_json::{Value, json};

fn ids(page: &Value) -> Vec<String> {
    let sandboxes = page["sandboxes"].as_array().unwrap();
    sandboxes.iter().map(|sandbox| sandbox["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_sandbox_is_made_shown_and_ended() {
    let house = House::local().await;
    let made = house.post("/v1/sandboxes", &json!({ "template": "mini", "timeout_s": 60 })).await;
    assert_eq!(made.status, 201);
    let place = made.headers[header::LOCATION].to_str().unwrap().to_owned();
    let shown = house.get(&place).await.json();
    assert_eq!((&shown["state"], &shown["template"]), (&"running".into(), &"mini".into()));
    assert_eq!(shown["id"], made.json()["id"]);
    let extended = house.post(&format!("{place}/timeout"), &json!({ "timeout_s": 0 })).await;
    assert_eq!((extended.status.as_u16(), &extended.json()["ends_at"]), (200, &Value::Null));
    assert_eq!(house.get(&format!("{place}/logs?limit_bytes=2")).await.body, b"6\n");
    assert_eq!(house.delete(&place).await.status, 204);
    house.get(&place).await.is_problem(404, "sandbox_not_found");
    assert_eq!(house.node.running(), []);
}

#[tokio::test]
async fn pages_follow_one_another_without_a_gap() {
    let house = House::local().await;
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(house.create(json!({})).await);
    }
    let (mut seen, mut path) = (Vec::new(), "/v1/sandboxes?limit=2".to_owned());
    for pages in 1.. {
        let page = house.get(&path).await.json();
        seen.extend(ids(&page));
        let Some(next) = page["next"].as_str() else {
            assert_eq!(pages, 3);
            break;
        };
        path = format!("/v1/sandboxes?limit=2&cursor={next}");
    }
    seen.sort();
    made.sort();
    assert_eq!(seen, made);
}

#[tokio::test]
async fn labels_are_matched_whatever_signs_they_hold() {
    let house = House::local().await;
    let odd = house.create(json!({ "a&b": "c=d é", "x": "1" })).await;
    house.create(json!({ "x": "1" })).await;
    let encoded = |pairs: &[(&str, &str)]| {
        let metadata = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
        url::form_urlencoded::Serializer::new(String::new()).append_pair("metadata", &metadata).finish()
    };
    let found = |pairs: &[(&str, &str)]| {
        let (house, path) = (&house, format!("/v1/sandboxes?{}", encoded(pairs)));
        async move { ids(&house.get(&path).await.json()) }
    };
    assert_eq!(found(&[("a&b", "c=d é")]).await, std::slice::from_ref(&odd));
    assert_eq!(found(&[("a&b", "c=d é"), ("x", "1")]).await, [odd]);
    assert_eq!(found(&[("x", "1")]).await.len(), 2);
    assert_eq!(found(&[("x", "2")]).await.len(), 0);
}

#[tokio::test]
async fn states_and_templates_filter() {
    let house = House::local().await;
    house.create(json!({})).await;
    for (query, count) in [
        ("state=running", 1),
        ("state=failed,running", 1),
        ("state=failed", 0),
        ("template=base", 0),
        ("template=mini", 1),
    ] {
        assert_eq!(ids(&house.get(&format!("/v1/sandboxes?{query}")).await.json()).len(), count, "{query}");
    }
}

#[tokio::test]
async fn a_repeat_with_the_same_idempotency_key_gives_the_same_sandbox() {
    let house = House::local().await;
    let ask = |key: &'static str| {
        let mut request = crate::house::json_request("/v1/sandboxes", r#"{"template":"mini"}"#);
        request.headers_mut().insert("idempotency-key", key.parse().unwrap());
        house.send(request)
    };
    let (first, again, other) = (ask("one").await.json(), ask("one").await.json(), ask("two").await.json());
    assert_eq!(first["id"], again["id"]);
    assert_ne!(first["id"], other["id"]);
    assert_eq!(house.node.running().len(), 2);
}
