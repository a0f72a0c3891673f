//! Where the database is and how long to wait for it.

use crate::error::ADAPTER;
use flames_state::backend::DEFAULT_HISTORY;
use flames_state::{Error, ErrorKind, Result};
use sqlx::postgres::PgConnectOptions;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;
use url::Url;

/// What [`PostgresStateStore::open`](crate::PostgresStateStore::open) needs.
#[derive(Clone)]
pub struct PostgresConfig {
    pub(crate) connect: PgConnectOptions,
    /// How many of the newest commits a watch can go back, at least. All nodes should agree.
    pub history: u64,
    /// Most connections of this process; one more listens for notifications.
    pub max_connections: u32,
    /// How long a call waits for a connection before it is `Unavailable`.
    pub acquire_within: Duration,
    /// How long a call waits for the server's answer before it is a `Timeout`.
    pub answer_within: Duration,
}

/// What sqlx reads from the URL by itself.
const PASSED_ON: &[&str] = &[
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
];

impl PostgresConfig {
    /// Reads `postgres://user:password@host:5432/database?sslmode=verify-full`. Beside PostgreSQL's usual
    /// parameters: `history` (commits), `max_connections`, `acquire_ms`, `answer_ms`.
    ///
    /// # Errors
    /// `InvalidInput`, naming the parameter and never its value: the URL may hold a password.
    pub fn parse(url: &str) -> Result<Self> {
        let mut url = Url::parse(url).map_err(|error| invalid(error.to_string()))?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(invalid("expected postgres://user:password@host/database"));
        }
        let (ours, others) = split_parameters(&url);
        url.query_pairs_mut().clear().extend_pairs(others);
        let connect = PgConnectOptions::from_str(url.as_str())
            .map_err(|_| invalid("not understood by the PostgreSQL client: check port and ssl parameters"))?;
        let mut config = Self::with(connect);
        for (name, value) in ours {
            config.set(&name, &value)?;
        }
        Ok(config)
    }

    fn with(connect: PgConnectOptions) -> Self {
        Self {
            connect: connect.application_name("flames-state"),
            history: DEFAULT_HISTORY,
            max_connections: 16,
            acquire_within: Duration::from_secs(5),
            answer_within: Duration::from_secs(10),
        }
    }

    fn set(&mut self, name: &str, value: &str) -> Result<()> {
        match name {
            "history" => self.history = number(name, value, 1..=10_000_000)?,
            "max_connections" => {
                self.max_connections = u32::try_from(number(name, value, 1..=1000)?).unwrap_or(u32::MAX);
            }
            "acquire_ms" => self.acquire_within = Duration::from_millis(number(name, value, 1..=600_000)?),
            "answer_ms" => self.answer_within = Duration::from_millis(number(name, value, 1..=600_000)?),
            _ => return Err(invalid(format!("unknown parameter `{name}`"))),
        }
        Ok(())
    }

    /// Names the server in errors, without a secret.
    pub(crate) fn place(&self) -> String {
        let database = self.connect.get_database().unwrap_or_default();
        format!("{}:{}/{database}", self.connect.get_host(), self.connect.get_port())
    }
}

impl fmt::Debug for PostgresConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresConfig({})", self.place())
    }
}

type Parameters = Vec<(String, String)>;

fn split_parameters(url: &Url) -> (Parameters, Parameters) {
    let pairs = url.query_pairs().into_owned();
    pairs.partition(|(name, _)| !PASSED_ON.contains(&name.as_str()))
}

fn number(name: &str, value: &str, range: std::ops::RangeInclusive<u64>) -> Result<u64> {
    let expected = || invalid(format!("{name}: expected a number from {} to {}", range.start(), range.end()));
    value.parse().ok().filter(|number| range.contains(number)).ok_or_else(expected)
}

fn invalid(detail: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, "state url", "postgres")
        .adapter(ADAPTER)
        .operation("open")
        .detail(detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_sets_the_server_and_the_bounds() {
        let url = "postgres://me:pass%20word@db.example:6543/flames?sslmode=require&history=5&answer_ms=70";
        let config = PostgresConfig::parse(url).unwrap();
        assert_eq!(config.place(), "db.example:6543/flames");
        assert_eq!((config.history, config.answer_within), (5, Duration::from_millis(70)));
    }

    #[test]
    fn a_wrong_url_is_refused_and_the_error_says_what_to_mend_without_the_secret() {
        for (url, mend) in [
            ("me:geheim@host", "expected postgres://"),
            ("mysql://me:geheim@host/db", "expected postgres://"),
            ("postgres://me:geheim@host:99999/db", "invalid port number"),
            ("postgres://me:geheim@host/db?sslmode=geheim", "ssl parameters"),
            ("postgres://me:geheim@host/db?histroy=5", "unknown parameter `histroy`"),
            ("postgres://me:geheim@host/db?max_connections=0", "max_connections: expected"),
            ("postgres://me:geheim@host/db?answer_ms=-5", "answer_ms: expected"),
        ] {
            let error = PostgresConfig::parse(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.detail_text().unwrap().contains(mend), "{url}: {error}");
            assert!(!format!("{error:?}").contains("geheim"), "{error:?}");
        }
    }

    #[test]
    fn debug_output_holds_no_secret() {
        let config = PostgresConfig::parse("postgres://me:geheim@host/db").unwrap();
        assert_eq!(format!("{config:?}"), "PostgresConfig(host:5432/db)");
    }
}
