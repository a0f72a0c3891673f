//! The few calls of Caddy's admin API that this adapter makes.

use crate::config::CaddyConfig;
use crate::error;
use flames_ingress::{Error, ErrorKind, Result, Url};
use http_body_util::BodyExt;
use reqwest::header::{ETAG, HeaderValue, IF_MATCH};
use reqwest::{Client, Response, StatusCode};
use serde_json::{Map, Value};
use std::time::Duration;

/// Longest wait for a connection: the API is on loopback or near.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(crate) struct Admin {
    client: Client,
    config: CaddyConfig,
}

/// Our server block as Caddy has it.
#[derive(Debug)]
pub(crate) struct Block {
    /// `Null` if it is not there yet.
    pub(crate) value: Value,
    /// How many keys of the path to the block lead to something that is there, or to nothing that may be filled.
    depth: usize,
    /// What must still hold for a write.
    etag: Option<HeaderValue>,
}

impl Admin {
    pub(crate) fn new(config: &CaddyConfig) -> Result<Self> {
        let client = Client::builder().connect_timeout(CONNECT_TIMEOUT).timeout(config.timeout).no_proxy();
        // Caddy puts a new admin server in place of the old one with each configuration, and resets what is connected to it.
        let client = client.pool_max_idle_per_host(0).build();
        let client = client.map_err(|source| {
            Error::new(ErrorKind::Internal, "HTTP client", "")
                .operation("new")
                .adapter(error::ADAPTER)
                .source(source)
        })?;
        Ok(Self { client, config: config.clone() })
    }

    /// Reads our block: from its place, or from the deepest place on the way that is there.
    pub(crate) async fn read(&self, operation: &'static str) -> Result<Block> {
        for depth in (0..=self.path().len()).rev() {
            if let Some(block) = self.read_at(operation, depth).await? {
                return self.ours(operation, block);
            }
        }
        Err(error::refused(operation, &self.config, StatusCode::BAD_REQUEST, "no configuration can be read"))
    }

    /// Puts the block in its place, if nobody has changed that place since it was read.
    pub(crate) async fn write(&self, block: &Block, value: Value) -> Result<()> {
        let body = nested(&self.path()[block.depth..], value.clone());
        let mut request = self.client.post(self.place(block.depth)).json(&body);
        if let Some(etag) = &block.etag {
            request = request.header(IF_MATCH, etag);
        }
        let answer = request.send().await.map_err(|error| error::unanswered("apply", &self.config, error))?;
        let (status, _, text) = self.text("apply", answer).await?;
        match status {
            status if status.is_success() => Ok(()),
            StatusCode::PRECONDITION_FAILED => Err(error::refused("apply", &self.config, status, &text)),
            _ => Err(error::not_loaded(&self.config, status, &text, &value)),
        }
    }

    /// `None` if what is above is missing, so that Caddy cannot look there.
    async fn read_at(&self, operation: &'static str, depth: usize) -> Result<Option<Block>> {
        let answer = self.client.get(self.place(depth)).send().await;
        let answer = answer.map_err(|error| error::unanswered(operation, &self.config, error))?;
        let (status, etag, text) = self.text(operation, answer).await?;
        match status {
            StatusCode::OK => {
                let value: Value = serde_json::from_str(&text)
                    .map_err(|_| error::refused(operation, &self.config, status, "the answer is not JSON"))?;
                // Above our block only nothing may be filled: a write would replace whatever is there.
                let is_usable = depth == self.path().len() || value.is_null();
                Ok(is_usable.then_some(Block { value, depth, etag }))
            }
            StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND => Ok(None),
            _ => Err(error::refused(operation, &self.config, status, &text)),
        }
    }

    fn ours(&self, operation: &'static str, block: Block) -> Result<Block> {
        match block.value.is_null() || block.value["@id"] == mark(&self.config) {
            true => Ok(block),
            false => Err(error::foreign(operation, &self.config)),
        }
    }

    /// The whole answer. Caddy 2.6 sends the Etag behind the body, later ones in front.
    async fn text(
        &self,
        operation: &'static str,
        answer: Response,
    ) -> Result<(StatusCode, Option<HeaderValue>, String)> {
        let (parts, body) = http::Response::<reqwest::Body>::from(answer).into_parts();
        let body = body.collect().await.map_err(|error| error::unanswered(operation, &self.config, error))?;
        let trailer = body.trailers().and_then(|trailers| trailers.get(ETAG));
        let etag = parts.headers.get(ETAG).or(trailer).cloned();
        Ok((parts.status, etag, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
    }

    /// The first `depth` keys on the path to our block.
    fn place(&self, depth: usize) -> Url {
        let mut url = self.config.admin.clone();
        url.set_path(&format!("/config/{}", self.path()[..depth].join("/")));
        url
    }

    fn path(&self) -> [&str; 4] {
        ["apps", "http", "servers", &self.config.server]
    }
}

/// Marks a block as ours.
pub(crate) fn mark(config: &CaddyConfig) -> String {
    format!("flames-ingress-{}", config.server)
}

/// `value` inside objects with these keys, the outermost first.
fn nested(keys: &[&str], value: Value) -> Value {
    keys.iter().rev().fold(value, |inner, key| Value::Object(Map::from_iter([((*key).to_owned(), inner)])))
}
