//! The pool, the schema, and the bound on every call.

use crate::PostgresConfig;
use crate::error::{ADAPTER, Failure, Subject, kind};
use flames_state::{Error, ErrorKind, Result};
use futures::future::BoxFuture;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::PgPoolOptions;
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool};
use std::time::Duration;
use tokio::time::timeout;

/// Of our tables in the database.
const SCHEMA: &str = "flames_state";
/// A node waits so long for another one that migrates.
const MIGRATE_WITHIN: Duration = Duration::from_secs(60);
/// A connection that was idle for longer is asked for a sign of life before it is used.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);

/// The pool of one store.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    pub(crate) pool: PgPool,
    answer_within: Duration,
}

impl Database {
    /// Connects, and brings the schema up to date under an advisory lock.
    pub(crate) async fn open(config: &PostgresConfig) -> Result<Self> {
        let pool = pool(config).await.map_err(|error| {
            Error::new(kind(&error), "database", config.place())
                .adapter(ADAPTER)
                .operation("open")
                .source(error)
        })?;
        match timeout(MIGRATE_WITHIN, migrate(&pool)).await {
            Ok(migrated) => migrated.map_err(|error| not_migrated(config, error))?,
            Err(_) => return Err(still_migrating(config)),
        }
        Ok(Self { pool, answer_within: config.answer_within })
    }

    /// Does `work` on a connection within the bound. A connection that did not answer is closed: what it
    /// would say later belongs to nobody.
    pub(crate) async fn run<T>(
        &self,
        subject: &Subject,
        work: impl for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, Failure>> + Send,
    ) -> Result<T> {
        let mut connection = self.pool.acquire().await.map_err(|error| subject.failed(error.into()))?;
        match timeout(self.answer_within, work(&mut connection)).await {
            Ok(result) => result.map_err(|failure| subject.failed(failure)),
            Err(_) => {
                drop(connection.detach());
                let detail = format!("the server did not answer within {:?}", self.answer_within);
                Err(subject.error(ErrorKind::Timeout).detail(detail))
            }
        }
    }
}

async fn pool(config: &PostgresConfig) -> sqlx::Result<PgPool> {
    let answer = config.answer_within.as_millis().to_string();
    // A node that stops inside a commit must not hold the counter's lock for ever.
    let session = [
        ("search_path", SCHEMA),
        ("statement_timeout", &answer),
        ("idle_in_transaction_session_timeout", &answer),
        ("synchronous_commit", "on"),
    ];
    let pool = PgPoolOptions::new()
        .max_connections(config.max_connections)
        .acquire_timeout(config.acquire_within)
        .test_before_acquire(false)
        .before_acquire(|connection, state| {
            Box::pin(async move {
                let trusted = state.idle_for < TRUSTED_IDLE;
                Ok(trusted || connection.ping().await.is_ok())
            })
        });
    pool.connect_with(config.connect.clone().options(session).disable_statement_logging()).await
}

async fn migrate(pool: &PgPool) -> Result<(), MigrateError> {
    let mut migrator = migrations();
    migrator.create_schema(SCHEMA);
    migrator.dangerous_set_table_name(format!("{SCHEMA}.schema_version"));
    // A migration may take longer than a call.
    let mut connection = pool.acquire().await?;
    sqlx::query("SET statement_timeout = 0").execute(&mut *connection).await?;
    let migrated = migrator.run_direct(None, &mut *connection, false).await;
    connection.close().await?;
    migrated
}

fn migrations() -> Migrator {
    sqlx::migrate!()
}

fn not_migrated(config: &PostgresConfig, error: MigrateError) -> Error {
    let new = |kind| Error::new(kind, "database", config.place()).adapter(ADAPTER).operation("open");
    match error {
        MigrateError::VersionMissing(found) | MigrateError::VersionTooNew(found, _) => {
            let known = migrations().iter().map(|migration| migration.version).max().unwrap_or(0);
            new(ErrorKind::Unsupported).detail(format!(
                "it has schema {found}, this version of Flames knows up to {known}: use a newer Flames"
            ))
        }
        MigrateError::Execute(error) => new(kind(&error)).source(error),
        other => new(ErrorKind::Internal).source(other),
    }
}

fn still_migrating(config: &PostgresConfig) -> Error {
    Error::new(ErrorKind::Unavailable, "database", config.place())
        .adapter(ADAPTER)
        .operation("open")
        .detail(format!("another node holds the migration lock for more than {MIGRATE_WITHIN:?}"))
}
