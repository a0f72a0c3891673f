//! Connections, migrations, and the refusal of a schema from the future.

use crate::error::{Subject, kind_of_code};
use crate::{SqliteConfig, sql};
use flames_state::{Error, ErrorKind, Result, Revision};
use rusqlite::{Connection, OpenFlags};
use sqlx::ConnectOptions;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use std::time::Duration;

static MIGRATIONS: Migrator = sqlx::migrate!();

/// How long one connection waits for another's lock.
const BUSY: Duration = Duration::from_secs(5);

/// Makes the file if it is not there, and brings its schema up to date.
pub(crate) async fn migrate(config: &SqliteConfig) -> Result<()> {
    let options = SqliteConnectOptions::new()
        .filename(&config.path)
        .journal_mode(SqliteJournalMode::Wal)
        .busy_timeout(BUSY)
        .create_if_missing(true)
        .disable_statement_logging();
    let mut connection = options.connect().await.map_err(|error| not_connected(config, error))?;
    MIGRATIONS.run_direct(None, &mut connection, false).await.map_err(|error| not_migrated(config, error))?;
    sqlx::Connection::close(connection).await.map_err(|error| not_connected(config, error))
}

/// The one connection that writes, and the newest commit. Moving the log's pages into the file is [`checkpointer`]'s:
/// here it would make a commit wait.
pub(crate) fn writer(config: &SqliteConfig) -> Result<(Connection, Revision)> {
    let open = || {
        let connection = writing(config)?;
        connection.pragma_update(None, "wal_autocheckpoint", 0)?;
        let newest = sql::bounds(&connection)?.newest;
        Ok((connection, newest))
    };
    open().map_err(|error| failed(config, error))
}

/// A connection that moves the log's pages into the file.
pub(crate) fn checkpointer(config: &SqliteConfig) -> Result<Connection> {
    writing(config).map_err(|error| failed(config, error))
}

pub(crate) fn reader(config: &SqliteConfig) -> Result<Connection> {
    connect(config, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(|error| failed(config, error))
}

/// `synchronous=FULL` makes SQLite wait for the disk at every commit, also in WAL mode.
fn writing(config: &SqliteConfig) -> rusqlite::Result<Connection> {
    let connection = connect(config, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    Ok(connection)
}

fn connect(config: &SqliteConfig, access: OpenFlags) -> rusqlite::Result<Connection> {
    // Each connection is used by one thread at a time.
    let connection = Connection::open_with_flags(&config.path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

fn subject(config: &SqliteConfig) -> Subject {
    Subject::new("open", "database", config.path.display().to_string())
}

fn failed(config: &SqliteConfig, error: rusqlite::Error) -> Error {
    subject(config).failed(std::sync::Arc::new(error))
}

fn not_connected(config: &SqliteConfig, error: sqlx::Error) -> Error {
    let kind = match &error {
        sqlx::Error::Io(_) => ErrorKind::Unavailable,
        sqlx::Error::Database(refused) => {
            let code = refused.code().and_then(|code| code.parse().ok());
            code.map_or(ErrorKind::Internal, kind_of_code)
        }
        _ => ErrorKind::Internal,
    };
    subject(config).error(kind).source(error)
}

fn not_migrated(config: &SqliteConfig, error: MigrateError) -> Error {
    match error {
        MigrateError::VersionMissing(found) | MigrateError::VersionTooNew(found, _) => {
            let known = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0);
            let detail = format!(
                "it has schema {found}, this version of Flames knows up to {known}: use a newer Flames"
            );
            subject(config).error(ErrorKind::Unsupported).detail(detail)
        }
        MigrateError::Execute(error) => not_connected(config, error),
        other => subject(config).error(ErrorKind::Internal).source(other),
    }
}
