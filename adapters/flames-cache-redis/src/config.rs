//! Which server, as whom, under which prefix.

use crate::error::ADAPTER;
use flames_cache::{Error, ErrorKind, Result};
use redis::{ConnectionInfo, IntoConnectionInfo};
use url::Url;

/// Settings of a [`crate::RedisCacheStore`]. `Debug` shows no password.
#[derive(Clone, Debug)]
pub struct RedisConfig {
    pub(crate) server: ConnectionInfo,
    pub(crate) prefix: String,
}

const DEFAULT_PREFIX: &str = "flames:";
const MAX_PREFIX_BYTES: usize = 100;

impl RedisConfig {
    /// Reads `redis://[user[:password]@]host[:port][/database][?prefix=…]`, or `rediss://` for TLS. Without a
    /// prefix keys start with `flames:`.
    ///
    /// # Errors
    /// `InvalidInput`, with the part that is wrong. The error never shows the user part of the URL.
    pub fn from_url(url: &str) -> Result<Self> {
        let mut url =
            Url::parse(url).map_err(|_| refused("redis", "this is no URL: write redis://host:6379"))?;
        if !matches!(url.scheme(), "redis" | "rediss") {
            return Err(refused(url.scheme(), "Redis has URLs of the form redis://host or rediss://host"));
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(refused("host", "the URL names none: write redis://host:6379"));
        }
        let prefix = read_query(&url)?.unwrap_or_else(|| DEFAULT_PREFIX.to_owned());
        url.set_query(None);
        let mend = "the path is the number of a database, for example redis://host:6379/0";
        let server = url.as_str().into_connection_info().map_err(|_| refused("path", mend))?;
        Ok(Self { server, prefix })
    }
}

fn read_query(url: &Url) -> Result<Option<String>> {
    let mut prefix = None;
    for (name, value) in url.query_pairs() {
        match &*name {
            "prefix" if value.len() <= MAX_PREFIX_BYTES => prefix = Some(value.into_owned()),
            "prefix" => return Err(refused("prefix", "at most 100 bytes")),
            other => return Err(refused(other, "the only parameter is prefix")),
        }
    }
    Ok(prefix)
}

/// `part` is no secret: the name of a part of the URL.
fn refused(part: &str, mend: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, "cache URL", part).operation("open").adapter(ADAPTER).detail(mend)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_everything() {
        let config = RedisConfig::from_url("redis://user:pass@example.org:7000/3?prefix=test%3A").unwrap();
        assert_eq!(config.prefix, "test:");
        assert_eq!(config.server.addr().to_string(), "example.org:7000");
        assert_eq!(config.server.redis_settings().db(), 3);
        assert_eq!(RedisConfig::from_url("redis://localhost").unwrap().prefix, "flames:");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            ("", "no URL"),
            ("redis://", "no URL"),
            ("http://host", "redis://host"),
            ("redis://host/abc", "database"),
            ("redis://host?colour=red", "colour"),
        ];
        for (url, part) in cases {
            let error = RedisConfig::from_url(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{url}");
            assert!(error.to_string().contains(part) || url == "redis://", "{url}: {error}");
        }
    }

    #[test]
    fn no_secret_is_shown() {
        let config = RedisConfig::from_url("redis://user:topsecret@host").unwrap();
        assert!(!format!("{config:?}").contains("topsecret"), "{config:?}");
        for url in ["redis://u:topsecret@host/x", "redis://u:topsecret@host?x=y", "xx://u:topsecret@host"] {
            let error = RedisConfig::from_url(url).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("topsecret"), "{error:?}");
        }
    }
}
