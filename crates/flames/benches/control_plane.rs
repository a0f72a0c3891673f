//! The control plane without VMs: how many creates a second it takes through HTTP, and how long each waits.
//!
//! ```text
//! this process      starts both, prints results
//! server process    control plane, HTTP server on TCP with an API key, and the providers of a lone daemon:
//!                   records and queue in SQLite (synchronous=FULL), blobs in a directory
//! client process    `flames bench create`, open loop
//! ```
//!
//! Under the control plane is the node of its own tests: machines are entries in a map, so no network, no disk,
//! no VMM and no guest is part of the figures; everything above is what the daemon runs.
//!
//! `cargo bench -p flames --bench control_plane -- --rate 2000 --seconds 10 --live 100 --live 10000`
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, dead_code)]

#[path = "../../flames-core/tests/lifecycle/fake_node.rs"]
mod fake_node;

use clap::Parser;
use fake_node::FakeNode;
use flames_api::auth::Trust;
use flames_api::{Api, router, server};
use flames_blob_fs::{FsBlobStore, FsConfig};
use flames_core::clock::SystemClock;
use flames_core::rate::RateLimit;
use flames_core::sandbox::admit::{CreateSandbox, Limits, Timeout};
use flames_core::{ApiKeys, ControlPlane, Providers};
use flames_metrics::Metrics;
use flames_queue_sqlite::{SqliteQueue, SqliteQueueConfig};
use flames_state_sqlite::{SqliteConfig, SqliteStateStore};
use futures::StreamExt;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[derive(Debug, Parser)]
struct Options {
    /// Creates per second, at random moments
    #[arg(long, default_value_t = 2000.0)]
    rate: f64,
    /// For how long
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// Sandboxes that live before the load begins; may be repeated
    #[arg(long, default_values_t = [100, 10_000])]
    live: Vec<usize>,
    /// Leave out the load whose sandboxes are deleted after 50 ms
    #[arg(long)]
    no_deletes: bool,
    /// Rounds, in turns
    #[arg(long, default_value_t = 1)]
    rounds: u32,
    /// Be the server, with its data here
    #[arg(long, hide = true)]
    serve: Option<PathBuf>,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let options = Options::parse();
    if let Some(folder) = &options.serve {
        tokio::runtime::Runtime::new().unwrap().block_on(serve(folder, options.live[0]));
        return;
    }
    println!(
        "{:24}{:>8}{:>10}{:>8}{:>8}{:>9}{:>9}{:>9}{:>9}{:>9}{:>14}{:>7}",
        "LOAD",
        "LIVE",
        "CREATED/S",
        "REFUSED",
        "FAILED",
        "P50 MS",
        "P90",
        "P99",
        "P99.9",
        "MAX",
        "CPU US/CREATE",
        "LOAD1"
    );
    for _ in 0..options.rounds {
        for live in &options.live {
            // These outlive the creates, and are deleted when nobody measures any more.
            measure(&options, "creates", *live, &format!("{}s", options.seconds + 1));
            if !options.no_deletes {
                measure(&options, "creates and deletes", *live, "50ms");
            }
        }
    }
}

/// One server, one load.
fn measure(options: &Options, name: &str, live: usize, keep: &str) {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), live);
    let before = server.processor_us();
    let report = load(options, &server, keep);
    let latencies = report["latencies"].as_array().unwrap();
    let create = latencies.iter().find(|one| one["name"] == "create, from intended start").unwrap();
    let created = report["created"].as_f64().unwrap();
    let ms = ["p50_ms", "p90_ms", "p99_ms", "p999_ms", "max_ms"].map(|name| create[name].as_f64().unwrap());
    println!(
        "{name:24}{live:>8}{:>10.0}{:>8}{:>8}{:>9.2}{:>9.2}{:>9.2}{:>9.2}{:>9.2}{:>14.0}{:>7.1}",
        report["created_per_s"].as_f64().unwrap(),
        report["refused"].as_u64().unwrap(),
        report["failed"].as_u64().unwrap(),
        ms[0],
        ms[1],
        ms[2],
        ms[3],
        ms[4],
        (server.processor_us() - before) / created,
        report["load_average"][0].as_f64().unwrap_or_default(),
    );
    for error in report["errors"].as_array().unwrap() {
        println!("  {error}");
    }
}

fn load(options: &Options, server: &Server, keep: &str) -> Value {
    let client = Command::new(env!("CARGO_BIN_EXE_flames"))
        .args(["--url", &server.url, "--api-key", &server.key, "--json", "bench", "create", "--no-command"])
        .args(["--rate", &options.rate.to_string(), "--duration", &format!("{}s", options.seconds)])
        .args(["--keep", keep])
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    serde_json::from_slice(&client.stdout).unwrap()
}

/// The server's process. It ends with the value.
struct Server {
    process: Child,
    url: String,
    key: String,
}

impl Server {
    fn start(folder: &Path, live: usize) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--live", &live.to_string(), "--serve"])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let (url, key) = line.trim().split_once(' ').unwrap();
        Self { url: url.to_owned(), key: key.to_owned(), process }
    }

    /// User and system time so far.
    fn processor_us(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
        ticks * 10_000.0 // of a hundredth of a second, on every Linux
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// Serves until standard input ends, which it does with the process that started this.
async fn serve(folder: &Path, live: usize) {
    let metrics = Metrics::new(env!("CARGO_PKG_VERSION"));
    let providers = providers(folder).await.measured(&metrics.calls());
    let (state, cache) = (Arc::clone(&providers.state), Arc::clone(&providers.cache));
    let clock = Arc::new(SystemClock);
    let plane =
        ControlPlane::start_measured(providers, FakeNode::new(), clock.clone(), Limits::default(), metrics);
    let plane = plane.await.unwrap();
    populate(&plane, live).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let keys = ApiKeys::new(state, clock.clone());
    let rate = RateLimit::new(cache, clock, None);
    let key = keys.ensure_first().await.unwrap().unwrap();
    let api = Api { plane: Arc::clone(&plane), keys, rate, max_upload_bytes: 1 << 20 };
    let shutdown = CancellationToken::new();
    let serving = tokio::spawn(server::serve_tcp(
        listener,
        router(api, Trust::ApiKey),
        server::Bounds { connections_per_client: None },
        shutdown.clone(),
    ));
    println!("http://{address} {}", key.expose());
    let parent = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    parent.await.unwrap().unwrap();
    shutdown.cancel();
    serving.await.unwrap();
    plane.shutdown().await;
}

/// What a daemon has that no setting names, but for the ingress.
async fn providers(folder: &Path) -> Providers {
    let file = |name: &str| folder.join(name);
    let url = |name: &str| format!("sqlite://{}", file(name).display());
    let state = SqliteStateStore::open(SqliteConfig::parse(&url("state.db")).unwrap()).await.unwrap();
    let queue = SqliteQueue::open(SqliteQueueConfig::from_url(&url("queue.db")).unwrap()).await.unwrap();
    let blob = FsBlobStore::open(FsConfig { root: file("blobs") }).await.unwrap();
    Providers { state: Arc::new(state), queue: Arc::new(queue), blob: Arc::new(blob), ..Providers::memory() }
}

async fn populate(plane: &Arc<ControlPlane>, live: usize) {
    let request = || CreateSandbox {
        template: "mini".into(),
        timeout: Some(Timeout::Never),
        ..CreateSandbox::default()
    };
    let creates = (0..live).map(|_| plane.create(request()));
    futures::stream::iter(creates).buffer_unordered(64).for_each(async |made| drop(made.unwrap())).await;
}
