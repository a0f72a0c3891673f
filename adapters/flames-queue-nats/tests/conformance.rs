//! The suite of the interface over a real NATS server.
#![allow(clippy::unwrap_used, missing_docs)]

use flames_queue::conformance::Fixture;
use flames_queue_nats::{NatsQueue, NatsQueueConfig};
use flames_testkit::Nats;
use std::sync::Arc;

flames_queue::queue_conformance! {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async || {
        let server = Nats::start().await?;
        let mut config = NatsQueueConfig::from_url(&server.url()).unwrap();
        config.dedup_window = Fixture::short_dedup_window();
        Some(Fixture::new(Arc::new(NatsQueue::open(config).await.unwrap())).keep(server))
    }
}
