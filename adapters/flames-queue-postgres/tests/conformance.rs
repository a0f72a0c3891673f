//! The suite of the interface over a real PostgreSQL.
#![allow(clippy::unwrap_used, missing_docs)]

use flames_queue::conformance::Fixture;
use flames_queue_postgres::{PostgresQueue, PostgresQueueConfig};
use flames_testkit::Postgres;
use std::sync::Arc;

flames_queue::queue_conformance! {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async || {
        let server = Postgres::start().await?;
        let mut config = PostgresQueueConfig::from_url(&server.url()).unwrap();
        config.dedup_window = Fixture::short_dedup_window();
        let queue = PostgresQueue::open(config).await.unwrap();
        Some(Fixture::new(Arc::new(queue)).keep(server))
    }
}
