//! Where the file is and how much history it keeps.

use crate::error::ADAPTER;
use flames_state::backend::DEFAULT_HISTORY;
use flames_state::{Error, ErrorKind, Result};
use std::path::PathBuf;
use url::Url;

/// What [`SqliteStateStore::open`](crate::SqliteStateStore::open) needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqliteConfig {
    /// The database file. Its folder must exist; beside it appear `-wal`, `-shm` and `.lock`.
    pub path: PathBuf,
    /// How many of the newest commits a watch can go back, at least.
    pub history: u64,
}

impl SqliteConfig {
    /// A file with the usual history.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), history: DEFAULT_HISTORY }
    }

    /// Reads `sqlite:///absolute/path?history=10000`.
    ///
    /// # Errors
    /// `InvalidInput` for another scheme, a missing or relative path, or an unknown parameter.
    pub fn parse(url: &str) -> Result<Self> {
        let parsed = Url::parse(url).map_err(|error| invalid(error.to_string()))?;
        if parsed.scheme() != "sqlite" || parsed.host().is_some() || parsed.path().len() < 2 {
            return Err(invalid("expected sqlite:///absolute/path".to_owned()));
        }
        let path = percent_encoding::percent_decode_str(parsed.path()).decode_utf8_lossy().into_owned();
        let mut config = Self::new(path);
        for (name, value) in parsed.query_pairs() {
            match name.as_ref() {
                "history" => config.history = parse_history(&value)?,
                _ => return Err(invalid(format!("unknown parameter `{name}`"))),
            }
        }
        Ok(config)
    }
}

fn parse_history(value: &str) -> Result<u64> {
    let history = value.parse().ok().filter(|commits| (1..=10_000_000).contains(commits));
    history.ok_or_else(|| invalid("history: expected a number of commits from 1 to 10000000".to_owned()))
}

fn invalid(detail: String) -> Error {
    Error::new(ErrorKind::InvalidInput, "state url", "sqlite")
        .adapter(ADAPTER)
        .operation("open")
        .detail(detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_the_file_and_the_history() {
        let config = SqliteConfig::parse("sqlite:///var/lib/my%20flames/state.db?history=5").unwrap();
        assert_eq!(config, SqliteConfig { path: "/var/lib/my flames/state.db".into(), history: 5 });
        assert_eq!(SqliteConfig::parse("sqlite:///a").unwrap().history, DEFAULT_HISTORY);
    }

    #[test]
    fn a_wrong_url_is_refused_and_the_error_says_what_to_mend() {
        for (url, mend) in [
            ("/var/lib/state.db", "relative URL"),
            ("postgres:///a", "expected sqlite:///absolute/path"),
            ("sqlite:", "expected sqlite:///absolute/path"),
            ("sqlite://host/a", "expected sqlite:///absolute/path"),
            ("sqlite:///a?histroy=5", "unknown parameter `histroy`"),
            ("sqlite:///a?history=-1", "history: expected"),
        ] {
            let error = SqliteConfig::parse(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.detail_text().unwrap().contains(mend), "{url}: {error}");
        }
    }
}
