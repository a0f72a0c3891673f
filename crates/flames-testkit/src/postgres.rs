//! PostgreSQL. `initdb` takes a second, so one cluster is made once per machine and copied for each instance.

use crate::{Port, Probe, Scratch, Server, ServerSpec, StopSignal};
use flames_provider::conformance;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::sync::OnceCell;

const PACKAGE: &str = "apt-get install postgresql";
const USER: &str = "flames";
const PASSWORD: &str = "flames-test-password";
/// Part of the cached cluster's name: raise it when `make_cluster` changes.
const CLUSTER_FORM: u32 = 1;

/// Whether PostgreSQL waits for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// It survives `kill -9`, but not a crash of the machine: enough for tests.
    Process,
    /// As in production, on the disk: for measuring.
    Machine,
}

/// A PostgreSQL server.
#[derive(Debug)]
pub struct Postgres {
    server: Server,
    port: Port,
    databases: AtomicU32,
}

impl Postgres {
    /// Starts one. `None`, after a loud line, when PostgreSQL is not installed.
    ///
    /// # Panics
    /// When it does not start, or is missing and `FLAMES_REQUIRE` names `postgres`.
    pub async fn start() -> Option<Self> {
        Self::start_with(Durability::Process).await
    }

    /// Starts one that waits for the disk, or not.
    ///
    /// # Panics
    /// As [`Postgres::start`].
    pub async fn start_with(durability: Durability) -> Option<Self> {
        let Some(bin) = bin_dir() else {
            conformance::skip("postgres", PACKAGE);
            return None;
        };
        let scratch = match durability {
            Durability::Process => Scratch::new("postgres"),
            Durability::Machine => Scratch::on_disk("postgres"),
        };
        copy_cluster(&cached_cluster(&bin), &scratch.path().join("data"));
        let port = Port::reserve();
        let server = Server::start(spec(&bin, scratch, port.number(), durability)).await;
        Some(Self { server, port, databases: AtomicU32::new(0) })
    }

    /// The one that all tests of this process share. Ends with the process.
    ///
    /// # Panics
    /// As [`Postgres::start`].
    pub async fn shared() -> Option<&'static Self> {
        static SHARED: OnceCell<Option<Postgres>> = OnceCell::const_new();
        SHARED.get_or_init(Self::start).await.as_ref()
    }

    /// The process, to break it on purpose.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The URL of the database `postgres`, with user and password (of a superuser).
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// Makes an empty database and gives its URL.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn new_database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.sql(&format!("CREATE DATABASE {name}"));
        self.url_of(&name)
    }

    /// Runs SQL in the database `postgres` and gives what `psql` prints, one line per row.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn sql(&self, statement: &str) -> String {
        self.sql_in(&self.url(), statement)
    }

    /// Runs SQL in the database of `url`.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn sql_in(&self, url: &str, statement: &str) -> String {
        let bin = bin_dir().expect("psql is installed with the server");
        run(Command::new(bin.join("psql")).args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-c", statement, url]))
    }

    fn url_of(&self, database: &str) -> String {
        format!("postgres://{USER}:{PASSWORD}@127.0.0.1:{}/{database}", self.port())
    }
}

/// Debian keeps the programs of each version out of PATH.
fn bin_dir() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let mut dirs: Vec<_> = versions.flatten().map(|entry| entry.path().join("bin")).collect();
    dirs.sort();
    dirs.into_iter().rfind(|dir| dir.join("postgres").exists())
}

fn spec(bin: &Path, scratch: Scratch, port: u16, durability: Durability) -> ServerSpec {
    let sync = match durability {
        Durability::Process => "off",
        Durability::Machine => "on",
    };
    let settings = [
        format!("port={port}"),
        "listen_addresses=127.0.0.1".to_owned(),
        "unix_socket_directories=".to_owned(),
        format!("fsync={sync}"),
        format!("full_page_writes={sync}"),
        "shared_buffers=16MB".to_owned(),
        "max_connections=100".to_owned(),
    ];
    let data = scratch.path().join("data").display().to_string();
    let mut args = vec!["-D".to_owned(), data];
    args.extend(settings.into_iter().flat_map(|setting| ["-c".to_owned(), setting]));
    ServerSpec {
        name: "postgres",
        program: bin.join("postgres"),
        args,
        env: vec![],
        user: server_user(),
        stop: StopSignal::Quit,
        probe: probe(port),
        scratch,
    }
}

/// A server that still recovers answers the start of a session with an error, a ready one with the request
/// to authenticate (`R`).
fn probe(port: u16) -> Probe {
    let mut body = vec![0, 3, 0, 0];
    body.extend_from_slice(format!("user\0{USER}\0database\0postgres\0\0").as_bytes());
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    Probe { port, question: [&length.to_be_bytes()[..], &body].concat(), answers: &[b"R"] }
}

/// PostgreSQL refuses to run as root.
fn server_user() -> Option<&'static str> {
    rustix::process::geteuid().is_root().then_some("postgres")
}

/// The cluster to copy from; made by the first test on this machine, under a lock.
fn cached_cluster(bin: &Path) -> PathBuf {
    let version = bin.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    let user = rustix::process::geteuid().as_raw();
    let name = format!("postgres-{}-{CLUSTER_FORM}-{user}", version.unwrap_or_default());
    let cache = cache_dir();
    fs::create_dir_all(&cache).expect("make the cache folder");
    let cluster = cache.join(&name);
    let lock = File::create(cache.join(format!("{name}.lock"))).expect("open the lock file");
    lock.lock().expect("lock");
    if !cluster.exists() {
        let unfinished = cache.join(format!("{name}.new"));
        let _ = fs::remove_dir_all(&unfinished);
        make_cluster(bin, &unfinished);
        fs::rename(&unfinished, &cluster).expect("move the cluster into place");
    }
    cluster
}

fn cache_dir() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || set("HOME").map(|home| home.join(".cache"));
    let root =
        set("FLAMES_CACHE").or_else(|| set("XDG_CACHE_HOME").or_else(home).map(|dir| dir.join("flames")));
    root.unwrap_or_else(std::env::temp_dir).join("testkit")
}

/// Made where the server's user may write, since it may not enter root's cache.
fn make_cluster(bin: &Path, target: &Path) {
    let scratch = Scratch::new("initdb");
    let (data, password) = (scratch.path().join("data"), scratch.path().join("password"));
    fs::write(&password, PASSWORD).expect("write the password");
    fs::create_dir(&data).expect("make the data folder");
    if let Some(user) = server_user() {
        run(Command::new("chown").arg(user).arg(&data).arg(&password));
    }
    let mut command = as_server_user(&bin.join("initdb"));
    command.arg("-D").arg(&data).arg("--pwfile").arg(&password);
    command.args([
        "-U",
        USER,
        "--auth=scram-sha-256",
        "--wal-segsize=1",
        "-E",
        "UTF8",
        "--locale=C.UTF-8",
        "-N",
    ]);
    run(command.current_dir(scratch.path()));
    copy_cluster(&data, target);
}

fn as_server_user(program: &Path) -> Command {
    let Some(user) = server_user() else { return Command::new(program) };
    let mut command = Command::new("setpriv");
    command.args(["--reuid", user, "--regid", user, "--init-groups", "--"]).arg(program);
    command
}

/// With owners and modes, which PostgreSQL checks; without copying blocks where the file system can.
fn copy_cluster(from: &Path, to: &Path) {
    run(Command::new("cp").args(["-a", "--reflink=auto"]).arg(from).arg(to));
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("run {command:?}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
