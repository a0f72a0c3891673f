//! Uploads and their bound.

use crate::house::{House, MAX_UPLOAD, request};
use axum::body::{Body, Bytes};
use axum::http::{Method, Request};
use serde_json::json;
use std::io;

fn upload(id: &str, body: Body) -> Request<Body> {
    request(Method::PUT, &format!("/v1/sandboxes/{id}/files?path=/tmp/x"), body)
}

/// A body of so many bytes whose length is not announced.
fn stream(bytes: u64) -> Body {
    let chunks = (0..bytes / 100).map(|_| Ok::<_, io::Error>(Bytes::from_static(&[7; 100])));
    Body::from_stream(futures::stream::iter(chunks))
}

#[tokio::test]
async fn an_upload_up_to_the_limit_arrives() {
    let house = House::local().await;
    let id = house.create(json!({})).await;
    let answer = house.send(upload(&id, stream(MAX_UPLOAD))).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["path"]), (200, &"/tmp/x".into()));
    let download = house.get(&format!("/v1/sandboxes/{id}/files?path=/tmp/x")).await;
    assert_eq!((download.status.as_u16(), download.body.as_slice()), (200, &b"content"[..]));
}

#[tokio::test]
async fn an_upload_that_announces_too_much_is_refused_before_it_is_read() {
    let house = House::local().await;
    let id = house.create(json!({})).await;
    let unread = Body::from_stream(futures::stream::pending::<io::Result<Bytes>>());
    let mut request = upload(&id, unread);
    request.headers_mut().insert("content-length", (MAX_UPLOAD + 1).into());
    house.send(request).await.is_problem(413, "upload_too_large");
}

#[tokio::test]
async fn an_upload_that_turns_out_too_large_is_broken_off() {
    let house = House::local().await;
    let id = house.create(json!({})).await;
    let problem = house.send(upload(&id, stream(MAX_UPLOAD + 100))).await.is_problem(413, "upload_too_large");
    assert!(problem.mend.unwrap().contains("max_upload_mib"));
}
