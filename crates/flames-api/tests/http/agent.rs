//! An agent in a guest, as far as these tests ask it: it swallows uploads, refuses a download with the status that
//! its path names, and starts commands that go on and say nothing.

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::extract::Query;
use axum::http::StatusCode;
use axum::routing::{get, post};
use bytes::Bytes;
use flames_node::{Dial, GuestStream, Result};
use futures::StreamExt;
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use std::collections::HashMap;
use std::convert::Infallible;

/// Each dial is a connection to an agent of its own.
#[derive(Debug)]
pub(crate) struct Agent;

#[async_trait]
impl Dial for Agent {
    async fn dial(&self) -> Result<GuestStream> {
        let (here, there) = tokio::io::duplex(64 * 1024);
        let agent = Router::new().route("/files", get(read).post(write));
        let service = TowerToHyperService::new(agent.route("/process.Process/Start", post(start)));
        let connection =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(there), service);
        tokio::spawn(connection);
        Ok(Box::new(here))
    }
}

async fn read(Query(query): Query<HashMap<String, String>>) -> (StatusCode, String) {
    match query["path"].parse::<u16>().map(StatusCode::from_u16) {
        Ok(Ok(status)) => (status, format!(r#"{{"code":{},"message":"as asked"}}"#, status.as_u16())),
        _ => (StatusCode::OK, "content".into()),
    }
}

async fn write(
    Query(query): Query<HashMap<String, String>>,
    body: Body,
) -> std::result::Result<String, StatusCode> {
    body.collect().await.map_err(|_| StatusCode::BAD_REQUEST)?;
    Ok(serde_json::json!([{ "name": "x", "path": query["path"], "type": "file" }]).to_string())
}

async fn start() -> Body {
    const STARTED: &[u8] = br#"{"event":{"start":{"pid":7}}}"#;
    let length = u32::try_from(STARTED.len()).unwrap().to_be_bytes();
    let frame = Bytes::from([&[0u8][..], &length, STARTED].concat());
    let said = futures::stream::iter([Ok::<_, Infallible>(frame)]);
    Body::from_stream(said.chain(futures::stream::pending()))
}
