//! The agent inside the microVM. The library's module doc tells its life.
//!
//! As PID 1 it boots the guest. Otherwise it serves on a host, for tests and for developers:
//! `flames-guest serve --port N --control-token-file F [--root DIR] [--bind ADDRESS]`.

mod agent;
mod boot;
mod connections;
mod control;
mod cors;
mod files;
mod filesystem;
mod freeze;
mod http;
mod metrics;
mod neighbours;
mod options;
mod paths;
mod power;
mod process;
mod routes;
mod sendfile;
mod server;
mod system;
mod timing;
mod tunnel;
mod users;
mod watch;

use agent::{Agent, Mode};
use boot::{BootChannel, BootError, Booted, OwnDisk};
use freeze::Freezer;
use options::Options;
use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

fn main() -> ExitCode {
    if std::process::id() == 1 {
        run_as_init();
    }
    match Options::parse(std::env::args().skip(1)).and_then(serve_on_host) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("flames-guest: {error}");
            ExitCode::from(2)
        }
    }
}

/// Never returns: whatever ends the agent ends the machine.
fn run_as_init() -> ! {
    let started_ms = uptime_ms();
    if let Err(error) = boot::boot().and_then(|booted| serve_to_the_end(booted, started_ms)) {
        eprintln!("flames-guest: {error}");
    }
    boot::end_machine()
}

/// How long a request that is being carried out may go on after the end was asked for.
const LAST_REQUESTS: Duration = Duration::from_secs(1);

fn serve_to_the_end(booted: Booted, started_ms: u64) -> Result<(), BootError> {
    let Booted { channel, disk } = booted;
    let disk = Arc::new(disk);
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return Err(channel.fail(BootError::new("start the runtime", error))),
    };
    let served = runtime.block_on(serve_in_guest(channel, Arc::clone(&disk), started_ms));
    // Uploads that are not done let go of their files: an open one would keep the disk writable.
    runtime.shutdown_timeout(LAST_REQUESTS);
    served.and(disk.make_clean())
}

async fn serve_in_guest(channel: BootChannel, disk: Arc<OwnDisk>, started_ms: u64) -> Result<(), BootError> {
    let listener =
        match server::Server::bind((std::net::Ipv4Addr::UNSPECIFIED, flames_guest::PORT).into()).await {
            Ok(listener) => listener,
            Err(error) => return Err(channel.fail(BootError::new("listen", error))),
        };
    let greeted = channel.greet()?;
    let token = Zeroizing::new(greeted.greeting.control_token.clone());
    let agent = Arc::new(Agent::new(Mode::Guest, "/".into(), token, Freezer::of(disk)));
    let host = match process::reap(&agent) {
        Ok(()) => greeted.ready(started_ms)?,
        Err(error) => return Err(greeted.fail(BootError::new("watch for ended processes", error))),
    };
    tokio::spawn(host.obey(Arc::clone(&agent)));
    power::until_shutdown(listener, agent).await.map_err(|error| BootError::new("serve", error))
}

fn serve_on_host(options: Options) -> io::Result<()> {
    let token = Zeroizing::new(std::fs::read_to_string(&options.control_token_file)?.trim().to_owned());
    let agent = Arc::new(Agent::new(Mode::Host, options.root, token, Freezer::none()));
    runtime()?.block_on(async {
        let server = server::Server::bind(options.address).await?;
        process::reap(&agent)?;
        println!("listening on {}", server.address()?);
        power::until_shutdown(server, agent).await
    })
}

/// One thread serves; a few more carry out calls that block on a disk.
fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(8).build()
}

/// Milliseconds since the kernel started.
pub(crate) fn uptime_ms() -> u64 {
    use nix::time::{ClockId, clock_gettime};
    clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map(|time| u64::try_from(time.tv_sec() * 1000 + time.tv_nsec() / 1_000_000).unwrap_or_default())
        .unwrap_or_default()
}
