//! The suite of the interface over a SQLite file.
#![allow(clippy::unwrap_used, missing_docs)]

use flames_queue::conformance::Fixture;
use flames_queue_sqlite::{SqliteQueue, SqliteQueueConfig};
use std::sync::Arc;

flames_queue::queue_conformance! {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async || {
        let folder = tempfile::tempdir().unwrap();
        let config = SqliteQueueConfig::new(folder.path().join("queue.db"));
        let config = SqliteQueueConfig { dedup_window: Fixture::short_dedup_window(), ..config };
        Some(Fixture::new(Arc::new(SqliteQueue::open(config).await.unwrap())).keep(folder))
    }
}
