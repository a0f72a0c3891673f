//! PostgreSQL keeps every promise of the suite.
#![allow(clippy::unwrap_used)]

use flames_state::conformance::{Fixture, HISTORY};
use flames_state_postgres::{PostgresConfig, PostgresStateStore};
use flames_testkit::Postgres;
use std::sync::Arc;

async fn fixture() -> Option<Fixture> {
    let postgres = Postgres::start().await?;
    let mut config = PostgresConfig::parse(&postgres.url()).unwrap();
    config.history = HISTORY;
    let store = PostgresStateStore::open(config).await.unwrap();
    Some(Fixture::new(Arc::new(store)).keep(postgres))
}

flames_state::state_conformance! {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    fixture
}
