//! S3 passes the suite.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{S3Server, damage};
use flames_blob::conformance::Subject;
use std::sync::Arc;

async fn subject() -> Option<Subject> {
    let server = Arc::new(S3Server::start().await);
    let damaged = server.clone();
    let store = server.store().await;
    Some(Subject::new(store, move |key| damage(&damaged.path(key))).keeping(server))
}

flames_blob::blob_conformance!(subject());
