//! A server as a child process: started, found ready, broken and mended on purpose, ended.

use crate::spawner;
use crate::{Probe, Scratch};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a server may take until it answers.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// Between two attempts to connect to a server that is starting.
const PROBE_EVERY: Duration = Duration::from_millis(10);
/// How long a server may take to end before it is killed.
const END_WITHIN: Duration = Duration::from_secs(5);

/// What to start and how to tell that it is ready.
#[derive(Debug)]
pub struct ServerSpec {
    /// For messages.
    pub name: &'static str,
    /// Program and arguments.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Added to the environment.
    pub env: Vec<(String, String)>,
    /// The user to run as, when not the current one.
    pub user: Option<&'static str>,
    /// What ends it cleanly.
    pub stop: StopSignal,
    /// What it answers when it is ready.
    pub probe: Probe,
    /// Where its data and log are; removed with the server.
    pub scratch: Scratch,
}

/// The signal that ends a server and lets it clean up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopSignal {
    /// For servers that need no cleaning up.
    Kill,
    /// PostgreSQL's immediate shutdown, which frees its shared memory.
    Quit,
}

/// A running server. Dropping it ends it and removes its data.
#[derive(Debug)]
pub struct Server {
    spec: ServerSpec,
    child: Mutex<Option<Child>>,
}

impl Server {
    /// Starts it and waits until it answers.
    ///
    /// # Panics
    /// When it does not answer in time, with the end of its log.
    pub async fn start(spec: ServerSpec) -> Self {
        let server = Self { spec, child: Mutex::new(None) };
        server.restart().await;
        server
    }

    /// Ends it, if it runs, and starts it again on the same port with the same data.
    ///
    /// # Panics
    /// When it does not answer in time, with the end of its log.
    pub async fn restart(&self) {
        self.end();
        *self.lock() = Some(spawner::spawn(self.command()));
        self.ready().await;
    }

    /// Kills it with all its processes, as a crash would. What it had acknowledged, it has after `restart`.
    pub fn kill9(&self) {
        let Some(mut child) = self.lock().take() else { return };
        for pid in family(pid_of(&child)) {
            // A process that is gone already is what we want.
            let _ = kill_process(pid, Signal::KILL);
        }
        let _ = child.wait();
    }

    /// Stops all its processes: connections stay open and nobody answers.
    pub fn pause(&self) {
        self.signal_all(Signal::STOP);
    }

    /// Lets a paused server go on.
    pub fn cont(&self) {
        self.signal_all(Signal::CONT);
    }

    /// The end of what it printed.
    pub fn log(&self) -> String {
        let text = fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&text[text.len().saturating_sub(4096)..]).into_owned()
    }

    fn command(&self) -> Command {
        let log = File::options().append(true).create(true).open(self.log_path()).expect("open the log");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", self.spec.stop.name()]);
        if let Some(user) = self.spec.user {
            command.args(["--reuid", user, "--regid", user, "--init-groups"]);
        }
        command.arg("--").arg(&self.spec.program).args(&self.spec.args);
        command.envs(self.spec.env.iter().map(|(name, value)| (name, value)));
        command.current_dir(self.spec.scratch.path());
        command.stdin(std::process::Stdio::null());
        command.stdout(log.try_clone().expect("share the log")).stderr(log);
        command
    }

    async fn ready(&self) {
        let deadline = Instant::now() + READY_WITHIN;
        while !self.spec.probe.answers().await {
            let exited = self.exit_status();
            assert!(
                exited.is_none(),
                "{} ended while starting ({exited:?}):\n{}",
                self.spec.name,
                self.log()
            );
            assert!(Instant::now() < deadline, "{} is not ready in time:\n{}", self.spec.name, self.log());
            tokio::time::sleep(PROBE_EVERY).await;
        }
    }

    fn exit_status(&self) -> Option<ExitStatus> {
        self.lock().as_mut().and_then(|child| child.try_wait().ok().flatten())
    }

    /// Asks it to end, and kills what does not in time.
    fn end(&self) {
        self.cont();
        self.signal_main(self.spec.stop.signal());
        let deadline = Instant::now() + END_WITHIN;
        while self.runs() && Instant::now() < deadline {
            std::thread::park_timeout(PROBE_EVERY);
        }
        self.kill9();
    }

    fn runs(&self) -> bool {
        self.lock().is_some() && self.exit_status().is_none()
    }

    fn signal_main(&self, signal: Signal) {
        if let Some(child) = self.lock().as_ref() {
            let _ = kill_process(pid_of(child), signal);
        }
    }

    fn signal_all(&self, signal: Signal) {
        let Some(pid) = self.lock().as_ref().map(pid_of) else { return };
        for pid in family(pid) {
            let _ = kill_process(pid, signal);
        }
    }

    fn log_path(&self) -> PathBuf {
        self.spec.scratch.path().join("server.log")
    }

    fn lock(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

impl StopSignal {
    fn name(self) -> &'static str {
        match self {
            Self::Kill => "KILL",
            Self::Quit => "QUIT",
        }
    }

    fn signal(self) -> Signal {
        match self {
            Self::Kill => Signal::KILL,
            Self::Quit => Signal::QUIT,
        }
    }
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_child(child)
}

/// The process and all that descend from it, parents first: PostgreSQL's backends have sessions of their
/// own, so a signal to the process group would not reach them.
fn family(root: Pid) -> Vec<Pid> {
    let parents = parents();
    let mut family = vec![root];
    let mut next = 0;
    while next < family.len() {
        let parent = family[next];
        family.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    family
}

/// Every process with its parent.
fn parents() -> Vec<(Pid, Pid)> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| parent_of(entry.file_name().to_str()?)).collect()
}

fn parent_of(pid: &str) -> Option<(Pid, Pid)> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.parse::<i32>().ok()?)).ok()?;
    // "pid (name) state ppid ...": the name may hold spaces and parentheses.
    let (_, rest) = stat.rsplit_once(')')?;
    let parent = rest.split_whitespace().nth(1)?.parse().ok()?;
    Some((Pid::from_raw(pid.parse().ok()?)?, Pid::from_raw(parent)?))
}
