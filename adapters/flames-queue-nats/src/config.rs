//! Which server, and how long to wait for it.

use crate::error::ADAPTER;
use async_nats::{ConnectOptions, ServerAddr};
use flames_queue::{DedupWindow, Error, ErrorKind, Result};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// How to reach a [`crate::NatsQueue`]. Prints without the password.
#[derive(Clone)]
pub struct NatsQueueConfig {
    server: ServerAddr,
    /// How long a call waits for an answer before it gives `Timeout`.
    pub call_timeout: Duration,
    /// How long a dedup key is remembered.
    pub dedup_window: DedupWindow,
    /// Copies of each stream: more than 1 needs a cluster of servers.
    pub replicas: usize,
}

impl NatsQueueConfig {
    /// From `nats://user:password@host:port` or `nats://token@host:port`, with one replica and a call timeout of 5 seconds.
    ///
    /// # Errors
    /// `InvalidInput` for a URL that is none; the error does not repeat it.
    pub fn from_url(url: &str) -> Result<Self> {
        let server = ServerAddr::from_str(url)
            .ok()
            .filter(|_| url.starts_with("nats://") || url.starts_with("tls://"));
        let Some(server) = server else {
            return Err(Error::new(ErrorKind::InvalidInput, "queue url", "nats")
                .adapter(ADAPTER)
                .detail("use nats://user:password@host:port, or tls:// for TLS"));
        };
        let call_timeout = Duration::from_secs(5);
        Ok(Self { server, call_timeout, dedup_window: DedupWindow::default(), replicas: 1 })
    }

    /// Host and port, for errors.
    pub(crate) fn place(&self) -> String {
        format!("{}:{}", self.server.host(), self.server.port())
    }

    pub(crate) fn server(&self) -> ServerAddr {
        self.server.clone()
    }

    pub(crate) fn options(&self) -> ConnectOptions {
        let options = match (self.server.username(), self.server.password()) {
            (Some(user), Some(password)) => {
                ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned())
            }
            (Some(token), None) => ConnectOptions::with_token(token.to_owned()),
            _ => ConnectOptions::new(),
        };
        options
            .name("flames-queue")
            .connection_timeout(self.call_timeout)
            .request_timeout(Some(self.call_timeout))
            .ping_interval(self.call_timeout)
            .max_reconnects(None)
    }
}

impl fmt::Debug for NatsQueueConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsQueueConfig")
            .field("place", &self.place())
            .field("replicas", &self.replicas)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_an_error_nor_the_debug_form_shows_the_password() {
        let config = NatsQueueConfig::from_url("nats://ann:hush@mq.example:4333").unwrap();
        assert_eq!(config.place(), "mq.example:4333");
        assert!(!format!("{config:?}").contains("hush"));
        for wrong in ["nats://ann:hush@[bad", "redis://ann:hush@mq", "hush"] {
            let error = NatsQueueConfig::from_url(wrong).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(!format!("{error:?} {error}").contains("hush"), "{error:?}");
        }
    }
}
