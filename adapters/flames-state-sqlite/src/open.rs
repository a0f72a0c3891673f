//! Connections, migrations, and the refusal of a schema from the future.

use crate::error::{ADAPTER, Subject};
use crate::{SqliteConfig, sql};
use flames_state::{Error, ErrorKind, Result, Revision};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, SqliteConnection, SqlitePool};
use std::sync::Arc;
use std::time::Duration;

static MIGRATIONS: Migrator = sqlx::migrate!();

/// Enough for a small machine; more would only wait for the same disk.
const READERS: u32 = 4;
/// A reader that waits longer for a connection gives up.
const ACQUIRE_WITHIN: Duration = Duration::from_secs(5);

/// The one connection that writes, with the schema up to date, and the newest commit.
pub(crate) async fn writer(config: &SqliteConfig) -> Result<(SqliteConnection, Revision)> {
    let options = options(config).create_if_missing(true);
    let mut connection = options.connect().await.map_err(|error| failed(config, error))?;
    MIGRATIONS.run_direct(None, &mut connection, false).await.map_err(|error| not_migrated(config, error))?;
    let newest = sql::revision(&mut connection).await.map_err(|error| failed(config, error))?;
    Ok((connection, newest))
}

pub(crate) async fn readers(config: &SqliteConfig) -> Result<SqlitePool> {
    let pool = SqlitePoolOptions::new().max_connections(READERS).acquire_timeout(ACQUIRE_WITHIN);
    pool.connect_with(options(config).read_only(true)).await.map_err(|error| failed(config, error))
}

/// `synchronous=FULL` makes SQLite wait for the disk at every commit, also in WAL mode.
fn options(config: &SqliteConfig) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(&config.path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(ACQUIRE_WITHIN)
        .disable_statement_logging()
}

fn failed(config: &SqliteConfig, error: sqlx::Error) -> Error {
    Subject::new("open", "database", config.path.display().to_string()).failed(Arc::new(error))
}

fn not_migrated(config: &SqliteConfig, error: MigrateError) -> Error {
    let path = config.path.display().to_string();
    match error {
        MigrateError::VersionMissing(found) | MigrateError::VersionTooNew(found, _) => {
            let known = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0);
            let detail = format!(
                "it has schema {found}, this version of Flames knows up to {known}: use a newer Flames"
            );
            Error::new(ErrorKind::Unsupported, "database", path)
                .adapter(ADAPTER)
                .operation("open")
                .detail(detail)
        }
        MigrateError::Execute(error) => failed(config, error),
        other => {
            Error::new(ErrorKind::Internal, "database", path).adapter(ADAPTER).operation("open").source(other)
        }
    }
}
