//! Talks to a daemon: over its unix socket on this machine, or over TCP with an API key.

mod monitor;

use crate::cli::Global;
use crate::output::{Failure, Refusal};
use crate::places::Places;
use anyhow::{Context, anyhow};
use bytes::Bytes;
use flames_api::Problem;
use flames_api::model::{
    BuildEvent, BuildRequest, CreateKeyRequest, CreateRequest, CreatedKey, ExecEvent, ExecRequest,
    ExposedPort, ForkRequest, ForkedView, KeyView, NetworkView, PauseRequest, PausedView, PoolList,
    ResumeRequest, ResumedView, SandboxEvent, SandboxPage, SandboxView, SnapshotList, SnapshotRequest,
    SnapshotView, TemplateList, TemplateSettingsView, TerminalSize, TimeoutRequest,
};
use flames_egress::PolicySpec;
use flames_node::{PoolConfig, PoolStatus};
use futures::{Stream, StreamExt, TryStreamExt};
use reqwest::{Body, Method, RequestBuilder, Response};
use serde::de::DeserializeOwned;
use std::path::Path;
use tokio_util::codec::{FramedRead, LinesCodec};
use tokio_util::io::StreamReader;
use url::Url;

/// A client of one daemon. Clones share connections.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
    key: Option<String>,
}

/// Exit code when no daemon runs.
pub(crate) const NO_DAEMON: u8 = 3;

impl Client {
    /// A client of the daemon that flags and environment name; an error that says how to start one if there
    /// is none.
    pub(crate) async fn connect(global: &Global, places: &Places) -> anyhow::Result<Self> {
        match Self::try_connect(global, places).await? {
            Some(client) => Ok(client),
            None => Err(no_daemon(anyhow!(
                "no daemon listens on {}: start one with `flames up`, or name one with --url",
                places.socket().display()
            ))),
        }
    }

    /// The same; `None` if the daemon of this machine does not run.
    pub(crate) async fn try_connect(global: &Global, places: &Places) -> anyhow::Result<Option<Self>> {
        if let Some(url) = &global.url {
            return Ok(Some(Self::tcp(url.clone(), global.api_key.clone())?));
        }
        let socket = places.socket();
        match tokio::net::UnixStream::connect(&socket).await {
            Ok(_) => Ok(Some(Self::unix(&socket)?)),
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Err(no_daemon(anyhow!(
                "the daemon's socket {} belongs to another user: use --url and --api-key",
                socket.display()
            ))),
            Err(_) => Ok(None),
        }
    }

    /// A client of the daemon behind a socket.
    pub(crate) fn unix(socket: &Path) -> anyhow::Result<Self> {
        let http = builder().unix_socket(socket).build()?;
        Ok(Self { http, base: Url::parse("http://flames")?, key: None })
    }

    fn tcp(base: Url, key: Option<String>) -> anyhow::Result<Self> {
        Ok(Self { http: builder().build()?, base, key })
    }

    pub(crate) async fn create(&self, request: &CreateRequest) -> anyhow::Result<SandboxView> {
        self.json(self.request(Method::POST, &["sandboxes"])?.json(request)).await
    }

    /// The same with any body, for an answer of which not all is known.
    pub(crate) async fn create_as(&self, request: &serde_json::Value) -> anyhow::Result<serde_json::Value> {
        self.json(self.request(Method::POST, &["sandboxes"])?.json(request)).await
    }

    pub(crate) async fn get(&self, id: &str) -> anyhow::Result<SandboxView> {
        self.json(self.request(Method::GET, &["sandboxes", id])?).await
    }

    /// One page; `query` as the route takes it.
    pub(crate) async fn list(&self, query: &[(&str, &str)]) -> anyhow::Result<SandboxPage> {
        self.json(self.request_with(Method::GET, &["sandboxes"], query)?).await
    }

    pub(crate) async fn delete(&self, id: &str) -> anyhow::Result<()> {
        self.send(self.request(Method::DELETE, &["sandboxes", id])?).await.map(drop)
    }

    pub(crate) async fn set_timeout(&self, id: &str, timeout_s: u64) -> anyhow::Result<SandboxView> {
        let request = self.request(Method::POST, &["sandboxes", id, "timeout"])?;
        self.json(request.json(&TimeoutRequest { timeout_s })).await
    }

    pub(crate) async fn pause(&self, id: &str, request: &PauseRequest) -> anyhow::Result<PausedView> {
        self.json(self.request(Method::POST, &["sandboxes", id, "pause"])?.json(request)).await
    }

    pub(crate) async fn resume(&self, id: &str, request: &ResumeRequest) -> anyhow::Result<ResumedView> {
        self.json(self.request(Method::POST, &["sandboxes", id, "resume"])?.json(request)).await
    }

    pub(crate) async fn fork(&self, id: &str, request: &ForkRequest) -> anyhow::Result<ForkedView> {
        self.json(self.request(Method::POST, &["sandboxes", id, "fork"])?.json(request)).await
    }

    pub(crate) async fn snapshot(&self, id: &str, request: &SnapshotRequest) -> anyhow::Result<SnapshotView> {
        self.json(self.request(Method::POST, &["sandboxes", id, "snapshots"])?.json(request)).await
    }

    pub(crate) async fn snapshots(&self) -> anyhow::Result<SnapshotList> {
        self.json(self.request(Method::GET, &["snapshots"])?).await
    }

    pub(crate) async fn remove_snapshot(&self, id: &str) -> anyhow::Result<()> {
        self.send(self.request(Method::DELETE, &["snapshots", id])?).await.map(drop)
    }

    pub(crate) async fn network(&self, id: &str) -> anyhow::Result<NetworkView> {
        self.json(self.request(Method::GET, &["sandboxes", id, "network"])?).await
    }

    pub(crate) async fn set_network(&self, id: &str, policy: &PolicySpec) -> anyhow::Result<NetworkView> {
        self.json(self.request(Method::PUT, &["sandboxes", id, "network"])?.json(policy)).await
    }

    pub(crate) async fn pools(&self) -> anyhow::Result<PoolList> {
        self.json(self.request(Method::GET, &["pools"])?).await
    }

    pub(crate) async fn pool(&self, template: &str) -> anyhow::Result<PoolStatus> {
        self.json(self.request(Method::GET, &["pools", template])?).await
    }

    pub(crate) async fn set_pool(
        &self,
        template: &str,
        written: &serde_json::Map<String, serde_json::Value>,
    ) -> anyhow::Result<PoolConfig> {
        self.json(self.request(Method::PUT, &["pools", template])?.json(written)).await
    }

    pub(crate) async fn remove_pool(&self, template: &str) -> anyhow::Result<()> {
        self.send(self.request(Method::DELETE, &["pools", template])?).await.map(drop)
    }

    pub(crate) async fn logs(&self, id: &str, limit_bytes: Option<usize>) -> anyhow::Result<Bytes> {
        let limit = limit_bytes.map(|limit| limit.to_string());
        let query: Vec<_> = limit.iter().map(|limit| ("limit_bytes", limit.as_str())).collect();
        let response = self.send(self.request_with(Method::GET, &["sandboxes", id, "logs"], &query)?).await?;
        Ok(response.bytes().await?)
    }

    /// Starts a command and gives its events.
    pub(crate) async fn exec(
        &self,
        id: &str,
        request: &ExecRequest,
    ) -> anyhow::Result<impl Stream<Item = anyhow::Result<ExecEvent>> + Unpin + use<>> {
        let request = self.request(Method::POST, &["sandboxes", id, "exec"])?.json(request);
        Ok(lines(self.send(request).await?))
    }

    pub(crate) async fn send_input(&self, id: &str, pid: u32, input: Bytes) -> anyhow::Result<()> {
        let pid = pid.to_string();
        let request = self.request(Method::POST, &["sandboxes", id, "processes", &pid, "stdin"])?;
        self.send(request.body(input)).await.map(drop)
    }

    pub(crate) async fn send_keys(&self, id: &str, pid: u32, keys: Bytes) -> anyhow::Result<()> {
        let pid = pid.to_string();
        let request = self.request(Method::POST, &["sandboxes", id, "processes", &pid, "terminal"])?;
        self.send(request.body(keys)).await.map(drop)
    }

    pub(crate) async fn resize(&self, id: &str, pid: u32, size: TerminalSize) -> anyhow::Result<()> {
        let pid = pid.to_string();
        let request = self.request(Method::PUT, &["sandboxes", id, "processes", &pid, "terminal"])?;
        self.send(request.json(&size)).await.map(drop)
    }

    pub(crate) async fn close_input(&self, id: &str, pid: u32) -> anyhow::Result<()> {
        let pid = pid.to_string();
        self.send(self.request(Method::DELETE, &["sandboxes", id, "processes", &pid, "stdin"])?)
            .await
            .map(drop)
    }

    /// The content of a file in a sandbox.
    pub(crate) async fn read_file(
        &self,
        id: &str,
        query: &[(&str, &str)],
    ) -> anyhow::Result<impl Stream<Item = reqwest::Result<Bytes>> + Unpin + use<>> {
        let request = self.request_with(Method::GET, &["sandboxes", id, "files"], query)?;
        Ok(self.send(request).await?.bytes_stream())
    }

    pub(crate) async fn write_file(
        &self,
        id: &str,
        query: &[(&str, &str)],
        content: Body,
    ) -> anyhow::Result<()> {
        let request = self.request_with(Method::PUT, &["sandboxes", id, "files"], query)?;
        self.send(request.body(content)).await.map(drop)
    }

    pub(crate) async fn list_directory(
        &self,
        id: &str,
        query: &[(&str, &str)],
    ) -> anyhow::Result<serde_json::Value> {
        self.json(self.request_with(Method::GET, &["sandboxes", id, "directories"], query)?).await
    }

    pub(crate) async fn expose(&self, id: &str, port: u16) -> anyhow::Result<ExposedPort> {
        self.json(self.request(Method::PUT, &["sandboxes", id, "ports", &port.to_string()])?).await
    }

    pub(crate) async fn unexpose(&self, id: &str, port: u16) -> anyhow::Result<()> {
        self.send(self.request(Method::DELETE, &["sandboxes", id, "ports", &port.to_string()])?)
            .await
            .map(drop)
    }

    /// What happens to sandboxes, from behind `since` or from now on.
    pub(crate) async fn events(
        &self,
        since: Option<u64>,
    ) -> anyhow::Result<impl Stream<Item = anyhow::Result<SandboxEvent>> + Unpin + use<>> {
        let since = since.map(|since| since.to_string());
        let query: Vec<_> = since.iter().map(|since| ("since", since.as_str())).collect();
        let response = self.send(self.request_with(Method::GET, &["events"], &query)?).await?;
        let lines = text_lines(response).try_filter_map(|line| async move {
            // Of server-sent events only the data lines matter here: they hold the revision too.
            let Some(data) = line.strip_prefix(b"data: ".as_slice()) else { return Ok(None) };
            serde_json::from_slice(data).map(Some).with_context(|| String::from_utf8_lossy(data).into_owned())
        });
        Ok(Box::pin(lines))
    }

    /// What the daemon's host has, and what leaked there.
    pub(crate) async fn node(&self) -> anyhow::Result<serde_json::Value> {
        self.json(self.request(Method::GET, &["node"])?).await
    }

    pub(crate) async fn templates(&self) -> anyhow::Result<TemplateList> {
        self.json(self.request(Method::GET, &["templates"])?).await
    }

    pub(crate) async fn build_template(
        &self,
        request: &BuildRequest,
    ) -> anyhow::Result<impl Stream<Item = anyhow::Result<BuildEvent>> + Unpin + use<>> {
        Ok(lines(self.send(self.request(Method::POST, &["templates"])?.json(request)).await?))
    }

    pub(crate) async fn tag_template(
        &self,
        target: &str,
        tag: &str,
    ) -> anyhow::Result<flames_node::Template> {
        self.json(self.request(Method::PUT, &["templates", target, "tags", tag])?).await
    }

    pub(crate) async fn remove_template(&self, name: &str) -> anyhow::Result<()> {
        self.send(self.request(Method::DELETE, &["templates", name])?).await.map(drop)
    }

    pub(crate) async fn template_settings(&self, name: &str) -> anyhow::Result<TemplateSettingsView> {
        self.json(self.request(Method::GET, &["templates", name, "settings"])?).await
    }

    pub(crate) async fn set_template_settings(
        &self,
        name: &str,
        settings: &TemplateSettingsView,
    ) -> anyhow::Result<TemplateSettingsView> {
        self.json(self.request(Method::PUT, &["templates", name, "settings"])?.json(settings)).await
    }

    pub(crate) async fn create_key(&self, name: String) -> anyhow::Result<CreatedKey> {
        let request = CreateKeyRequest { name };
        self.json(self.request(Method::POST, &["keys"])?.json(&request)).await
    }

    pub(crate) async fn keys(&self) -> anyhow::Result<Vec<KeyView>> {
        self.json(self.request(Method::GET, &["keys"])?).await
    }

    pub(crate) async fn revoke_key(&self, id: &str) -> anyhow::Result<()> {
        self.send(self.request(Method::DELETE, &["keys", id])?).await.map(drop)
    }

    fn request(&self, method: Method, path: &[&str]) -> anyhow::Result<RequestBuilder> {
        self.request_with(method, path, &[])
    }

    /// A request under `/v1`; every part of the path and of the query is escaped.
    fn request_with(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> anyhow::Result<RequestBuilder> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| anyhow!("{} cannot be a daemon's address", self.base))?
            .pop_if_empty()
            .push("v1")
            .extend(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let request = self.http.request(method, url);
        Ok(match &self.key {
            Some(key) => request.header("x-api-key", key),
            None => request,
        })
    }

    async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> anyhow::Result<T> {
        let body = self.send(request).await?.bytes().await?;
        serde_json::from_slice(&body).context("the daemon's answer makes no sense: is it another version?")
    }

    /// Sends, and turns a refusal into an error.
    async fn send(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let response = request.send().await.map_err(|error| match error.is_connect() {
            true => no_daemon(anyhow::Error::new(error).context("the daemon cannot be reached")),
            false => error.into(),
        })?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = response.bytes().await.unwrap_or_default();
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => Err(Refusal(problem).into()),
            Err(_) => Err(anyhow!("the daemon answered {status}: {}", String::from_utf8_lossy(&body))),
        }
    }
}

fn builder() -> reqwest::ClientBuilder {
    // The daemon is on this machine or named by its address: no proxy is meant to be in between.
    reqwest::Client::builder().no_proxy()
}

fn no_daemon(error: anyhow::Error) -> anyhow::Error {
    Failure { code: NO_DAEMON, error }.into()
}

/// A response of one JSON document a line.
fn lines<T: DeserializeOwned>(response: Response) -> impl Stream<Item = anyhow::Result<T>> + Unpin {
    Box::pin(text_lines(response).and_then(|line| async move { Ok(serde_json::from_slice(&line)?) }))
}

/// A response's lines, without their ends.
fn text_lines(response: Response) -> impl Stream<Item = anyhow::Result<Bytes>> {
    let body = StreamReader::new(response.bytes_stream().map_err(std::io::Error::other));
    // A line holds at most a chunk of output in base64, or a sandbox.
    let codec = LinesCodec::new_with_max_length(8 << 20);
    FramedRead::new(body, codec).map(|line| Ok(Bytes::from(line?)))
}
