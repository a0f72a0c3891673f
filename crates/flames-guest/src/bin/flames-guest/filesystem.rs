//! `filesystem.Filesystem`.

use crate::agent::Agent;
use crate::http::{Answer, Failure};
use flames_guest::rpc::{Code, RpcError};
use hyper::Request;
use hyper::body::Incoming;
use std::sync::Arc;

pub(crate) async fn call(
    _agent: Arc<Agent>,
    _request: Request<Incoming>,
    method: &str,
) -> Result<Answer, Failure> {
    Err(RpcError::new(Code::Unimplemented, format!("filesystem.Filesystem has no method {method}")).into())
}
