//! SQLite keeps every promise of the suite.
#![allow(clippy::unwrap_used)]

use flames_state::conformance::{Fixture, HISTORY};
use flames_state_sqlite::{SqliteConfig, SqliteStateStore};
use std::sync::Arc;

async fn fixture() -> Option<Fixture> {
    let dir = tempfile::tempdir().unwrap();
    let config = SqliteConfig { path: dir.path().join("state.db"), history: HISTORY };
    let store = SqliteStateStore::open(config).await.unwrap();
    Some(Fixture::new(Arc::new(store)).keep(dir))
}

flames_state::state_conformance! {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    fixture
}
