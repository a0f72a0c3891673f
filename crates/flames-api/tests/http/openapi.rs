//! The document that describes the API.

use crate::house::House;
use flames_api::auth::Trust;
use serde_json::Value;
use std::path::Path;

/// `UPDATE_OPENAPI=1` writes the file anew.
#[test]
fn committed_openapi_is_current() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../api/openapi.json");
    let current = flames_api::openapi_json();
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(&file, &current).unwrap();
    }
    let committed = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        committed == current,
        "api/openapi.json is behind the routes: run this test with UPDATE_OPENAPI=1"
    );
}

#[tokio::test]
async fn the_document_is_served_to_everybody_and_is_openapi_3_1() {
    let house = House::new(Trust::ApiKey).await;
    let served = house.get("/openapi.json").await;
    assert_eq!((served.status.as_u16(), served.body), (200, flames_api::openapi_json().into_bytes()));
    let document: Value = serde_json::from_str(&flames_api::openapi_json()).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"), "{}", document["openapi"]);
}

#[test]
fn every_reference_in_the_document_leads_somewhere() {
    let document: Value = serde_json::from_str(&flames_api::openapi_json()).unwrap();
    let mut waiting = vec![&document];
    while let Some(value) = waiting.pop() {
        match value {
            Value::Object(fields) => {
                if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
                    let place = reference.trim_start_matches('#');
                    assert!(document.pointer(place).is_some(), "{reference}");
                }
                waiting.extend(fields.values());
            }
            Value::Array(values) => waiting.extend(values),
            _ => {}
        }
    }
}
