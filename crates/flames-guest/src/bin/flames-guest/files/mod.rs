//! `/files`.

use crate::agent::Agent;
use crate::http::{Answer, Failure};
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use std::sync::Arc;

pub(crate) async fn download(
    _: Arc<Agent>,
    _: Request<Incoming>,
    _: Option<String>,
) -> Result<Answer, Failure> {
    Err(Failure::http(StatusCode::NOT_IMPLEMENTED, "not yet"))
}

pub(crate) async fn upload(
    _: Arc<Agent>,
    _: Request<Incoming>,
    _: Option<String>,
) -> Result<Answer, Failure> {
    Err(Failure::http(StatusCode::NOT_IMPLEMENTED, "not yet"))
}
