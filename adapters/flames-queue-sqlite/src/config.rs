//! Where the file is, and how long dedup keys live.

use crate::error;
use flames_queue::{DedupWindow, Error, ErrorKind, Result};
use rusqlite::{Connection, OpenFlags};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use sqlx::{ConnectOptions, Connection as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How to open a [`crate::SqliteQueue`].
#[derive(Debug, Clone)]
pub struct SqliteQueueConfig {
    /// The file; made if it is missing. Its folder must exist.
    pub path: PathBuf,
    /// How long a dedup key is remembered.
    pub dedup_window: DedupWindow,
}

/// Only another process can hold the file that long.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

impl SqliteQueueConfig {
    /// The file at `path`, with the default dedup window.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), dedup_window: DedupWindow::default() }
    }

    /// From `sqlite:///absolute/path` (or `sqlite:relative/path`), with the default dedup window.
    ///
    /// # Errors
    /// `InvalidInput` for another scheme or an empty path.
    pub fn from_url(url: &str) -> Result<Self> {
        let path = url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:"));
        match path {
            Some(path) if !path.is_empty() && !path.contains(['?', '#']) => Ok(Self::new(path)),
            _ => Err(Error::new(ErrorKind::InvalidInput, "queue url", url)
                .adapter(error::ADAPTER)
                .detail("use sqlite:///absolute/path/of/queue.db")),
        }
    }

    /// Makes the file if it is not there, and brings its schema up to date.
    pub(crate) async fn migrate(&self) -> Result<()> {
        let options = SqliteConnectOptions::new()
            .filename(&self.path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .busy_timeout(BUSY_TIMEOUT)
            .disable_statement_logging();
        let place = self.path.display().to_string();
        let failed = |cause| error::of_opening(cause, &place);
        let mut connection = options.connect().await.map_err(failed)?;
        let migrated = sqlx::migrate!().run(&mut connection).await;
        migrated.map_err(|cause| error::of_migration(cause, &self.path))?;
        connection.close().await.map_err(failed)
    }

    /// The one connection, to a file that [`SqliteQueueConfig::migrate`] has made.
    pub(crate) fn connect(&self) -> Result<Connection> {
        let open = || {
            // One thread uses it.
            let access = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(&self.path, access)?;
            connection.busy_timeout(BUSY_TIMEOUT)?;
            // A commit is on the disk when it returns: NORMAL would lose the last ones with the power.
            connection.pragma_update(None, "synchronous", "FULL")?;
            connection.pragma_update(None, "foreign_keys", true)?;
            connection.set_prepared_statement_cache_capacity(32);
            Ok(connection)
        };
        open().map_err(|cause| error::of_statement(Arc::new(cause), "open", &self.path.display().to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_give_paths_and_other_schemes_are_refused_with_the_mend() {
        let path = |url: &str| SqliteQueueConfig::from_url(url).map(|config| config.path);
        assert_eq!(path("sqlite:///var/lib/queue.db").unwrap(), PathBuf::from("/var/lib/queue.db"));
        assert_eq!(path("sqlite:queue.db").unwrap(), PathBuf::from("queue.db"));
        for wrong in ["sqlite://", "postgres://a/b", "", "sqlite:///a?mode=ro"] {
            let error = path(wrong).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains("sqlite:///"), "{error}");
        }
    }
}
