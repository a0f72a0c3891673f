//! An agent in a guest, as far as these tests ask it: it swallows uploads, and refuses a download with the
//! status that its path names.

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::extract::Query;
use axum::http::StatusCode;
use axum::routing::get;
use flames_node::{Dial, GuestStream, Result};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use std::collections::HashMap;

/// Each dial is a connection to an agent of its own.
#[derive(Debug)]
pub(crate) struct Agent;

#[async_trait]
impl Dial for Agent {
    async fn dial(&self) -> Result<GuestStream> {
        let (here, there) = tokio::io::duplex(64 * 1024);
        let service = TowerToHyperService::new(Router::new().route("/files", get(read).post(write)));
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
