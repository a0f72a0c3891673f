//! Which database, and how long to wait for it.

use crate::error;
use flames_queue::{DedupWindow, Error, ErrorKind, Result};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, PgPool};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// How to reach a [`crate::PostgresQueue`]. Prints without the password.
#[derive(Clone)]
pub struct PostgresQueueConfig {
    options: PgConnectOptions,
    /// Connections of this process, besides the one that listens.
    pub max_connections: u32,
    /// How long a call waits for a connection before it answers `Unavailable`.
    pub acquire_timeout: Duration,
    /// How long a call waits for an answer before it gives `Timeout`.
    pub call_timeout: Duration,
    /// How long a dedup key is remembered.
    pub dedup_window: DedupWindow,
}

impl PostgresQueueConfig {
    /// From `postgres://user:password@host:port/database`, with 8 connections and waits of a few seconds.
    ///
    /// # Errors
    /// `InvalidInput` for a URL that is none; the error does not repeat it.
    pub fn from_url(url: &str) -> Result<Self> {
        let malformed = |detail: &str| {
            let error = Error::new(ErrorKind::InvalidInput, "queue url", "postgres");
            Err(error.adapter(error::ADAPTER).detail(detail))
        };
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return malformed("use postgres://user:password@host:port/database");
        }
        let Ok(options) = PgConnectOptions::from_str(url) else {
            return malformed("it cannot be parsed: use postgres://user:password@host:port/database");
        };
        Ok(Self {
            options: options.application_name("flames-queue").disable_statement_logging(),
            max_connections: 8,
            acquire_timeout: Duration::from_secs(3),
            call_timeout: Duration::from_secs(5),
            dedup_window: DedupWindow::default(),
        })
    }

    /// Host, port and database, for errors.
    pub(crate) fn place(&self) -> String {
        let database = self.options.get_database().unwrap_or("");
        format!("{}:{}/{database}", self.options.get_host(), self.options.get_port())
    }

    /// Connects when it is first used.
    pub(crate) fn pool(&self) -> PgPool {
        PgPoolOptions::new()
            .max_connections(self.max_connections)
            .acquire_timeout(self.acquire_timeout)
            .connect_lazy_with(self.options.clone())
    }

    /// A pool for the one connection that listens.
    pub(crate) fn listening_pool(&self) -> PgPool {
        PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(self.acquire_timeout)
            .max_lifetime(None)
            .idle_timeout(None)
            .connect_lazy_with(self.options.clone())
    }
}

impl fmt::Debug for PostgresQueueConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresQueueConfig")
            .field("place", &self.place())
            .field("max_connections", &self.max_connections)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_an_error_nor_the_debug_form_shows_the_password() {
        let config = PostgresQueueConfig::from_url("postgres://ann:hush@db.example:5433/jobs").unwrap();
        assert_eq!(config.place(), "db.example:5433/jobs");
        assert!(!format!("{config:?}").contains("hush"));
        for wrong in ["postgres://ann:hush@[bad/jobs", "mysql://ann:hush@db/jobs", "hush"] {
            let error = PostgresQueueConfig::from_url(wrong).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(!format!("{error:?} {error}").contains("hush"), "{error:?}");
        }
    }
}
