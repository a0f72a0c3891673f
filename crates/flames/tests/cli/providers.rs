//! The same life of a sandbox over every set of providers: what is embedded, and what a fleet runs.

use crate::home::Home;
use flames_provider::conformance::skip;
use flames_testkit::{Caddy, Nats, Port, Postgres, Redis, S3};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;

#[test]
fn vm_lives_the_same_over_the_embedded_providers() {
    let Some(mut home) = Home::with_vms() else { return };
    live(&mut home, "");
}

#[test]
fn vm_lives_the_same_over_postgres_nats_redis_s3_and_the_proxy() {
    let Some(mut home) = Home::with_vms() else { return };
    let runtime = runtime();
    let Some(fleet) = runtime.block_on(Fleet::start()) else { return };
    live(&mut home, &fleet.settings());
    let logs = std::fs::read_dir(fleet.s3.folder().join(S3::BUCKET)).unwrap().count();
    assert!(logs > 0, "the kept log is in S3");
    let records = fleet.postgres.sql_in(&fleet.database, "select count(*) from flames_state.records");
    assert_ne!(records.trim(), "0", "keys and secrets are in PostgreSQL");
}

#[test]
fn vm_lives_the_same_over_a_postgres_queue_and_caddy() {
    let Some(mut home) = Home::with_vms() else { return };
    let runtime = runtime();
    let servers = runtime.block_on(async { (Postgres::start().await, Caddy::start().await) });
    let (Some(postgres), Some(caddy)) = servers else { return };
    let admin = caddy.admin_url();
    let admin = admin.trim_start_matches("http://").trim_end_matches('/');
    let listen = Port::reserve();
    let settings = format!(
        "[providers]\nqueue = \"{}\"\ningress = \"caddy://{admin}?listen=127.0.0.1:{}\"\n",
        postgres.new_database(),
        listen.number(),
    );
    live(&mut home, &settings);
}

/// Create, repeat, exec, reach a port, die, come back, end, read the log.
fn live(home: &mut Home, settings: &str) {
    let config = configure(home, settings);
    home.up_with(&["--config", &config]);
    let id = home.create(&["-l", "who=me"]);
    assert_eq!(home.sh(&id, "echo hello > /run/mark; cat /run/mark"), "hello\n");
    home.sh(&id, "echo spoken > /dev/console");
    serves_a_port(home, &id);

    home.down("KILL");
    home.up_with(&["--config", &config]);
    let listed = home.json(&["ls", "-l", "who=me"]);
    assert_eq!(listed[0]["id"], id.as_str(), "{listed}");
    assert_eq!(home.sh(&id, "cat /run/mark"), "hello\n", "the same VM under the next daemon");
    let exposed = home.json(&["expose", &id, "8080"]);
    assert_eq!(get(&exposed), "from inside", "the route leads to the new forwarder");

    home.ok(&["rm", &id]);
    assert_eq!(home.refused(&["inspect", &id])["code"], "sandbox_not_found");
    assert!(home.ok(&["logs", &id]).contains("spoken"), "the log outlives the sandbox");
}

fn serves_a_port(home: &Home, id: &str) {
    let serve = "mkdir -p /run/www; printf 'from inside' > /run/www/index.html; httpd -p 8080 -h /run/www";
    home.sh(id, serve);
    let exposed = home.json(&["expose", id, "8080"]);
    assert_eq!(get(&exposed), "from inside");
    assert_eq!(home.refused(&["expose", id, "49983"])["id"], "port", "the agent's port stays inside");
}

/// What the URL of an exposed port answers. Its host resolves nowhere: the ingress is on loopback.
fn get(exposed: &serde_json::Value) -> String {
    let url = exposed["url"].as_str().unwrap().trim_start_matches("http://").trim_end_matches('/');
    let (host, port) = url.rsplit_once(':').unwrap();
    let mut stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap()))).unwrap();
    write!(stream, "GET / HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split("\r\n\r\n").nth(1).unwrap_or_default().to_owned()
}

fn configure(home: &Home, settings: &str) -> String {
    let file: PathBuf = home.file("flames.toml");
    std::fs::write(&file, settings).unwrap();
    file.to_str().unwrap().to_owned()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// What a fleet runs.
struct Fleet {
    postgres: Postgres,
    database: String,
    nats: Nats,
    redis: Redis,
    s3: S3,
}

impl Fleet {
    async fn start() -> Option<Self> {
        let (postgres, nats, redis) = (Postgres::start().await?, Nats::start().await?, Redis::start().await?);
        let database = postgres.new_database();
        if database.is_empty() {
            skip("postgres", "it made no database");
            return None;
        }
        Some(Self { database, postgres, nats, redis, s3: S3::start().await })
    }

    fn settings(&self) -> String {
        format!(
            "[providers]\nstate = \"{}\"\nblob = \"{}\"\ncache = \"{}\"\nqueue = \"{}\"\n",
            self.database,
            self.s3.url(S3::BUCKET),
            self.redis.url(),
            self.nats.url(),
        )
    }
}
