//! Redis passes the suite.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use flames_cache::conformance::{Subject, unique_prefix};
use flames_testkit::Redis;

async fn subject() -> Option<Subject> {
    let server = Redis::start().await?;
    let prefix = unique_prefix("suite");
    let (cache, url) = (common::open(&server, &prefix).await, server.url());
    Some(Subject::new(cache, move || common::wipe(url.clone(), prefix.clone())).keeping(server))
}

flames_cache::cache_conformance!(subject());
