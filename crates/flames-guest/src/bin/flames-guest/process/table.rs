//! Which processes the agent started.

use super::events::Hub;
use super::terminal::Terminal;
use flames_guest::process::{EndEvent, ProcessConfig, ProcessInfo, ProcessSelector};
use flames_guest::rpc::{Code, RpcError};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::unix::pipe;
use tokio::sync::{Notify, watch};

/// The agent's processes by id: running ones, and ended ones for a while.
///
/// Its lock is held while a process is started, signalled or reaped. So no exit is seen before its process is
/// in the table, and no signal reaches an id that was reaped and given to somebody else.
#[derive(Debug, Default)]
pub(crate) struct Table {
    processes: Mutex<BTreeMap<u32, Arc<Process>>>,
    /// Rung for each child that was taken.
    reaped: Notify,
}

/// A process that was started, from then until it is forgotten.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) config: ProcessConfig,
    pub(crate) tag: Option<String>,
    /// Standard input, or the terminal's. None once closed, or when it was never open.
    pub(crate) input: tokio::sync::Mutex<Option<pipe::Sender>>,
    /// None when it runs on pipes.
    pub(crate) terminal: Option<Terminal>,
    pub(crate) hub: Hub,
    /// Its deadline passed: what ended it was the agent.
    pub(crate) timed_out: AtomicBool,
    /// How it ended, once it was reaped.
    pub(crate) exit: watch::Sender<Option<EndEvent>>,
}

/// More processes than this at a time are refused.
const MAX_PROCESSES: usize = 1024;

impl Table {
    /// Starts a process with `spawn` and enters it.
    pub(crate) fn start(
        &self,
        spawn: impl FnOnce() -> Result<Process, RpcError>,
    ) -> Result<Arc<Process>, RpcError> {
        let mut processes = self.lock();
        if processes.values().filter(|process| process.runs()).count() >= MAX_PROCESSES {
            return Err(RpcError::new(
                Code::ResourceExhausted,
                format!("{MAX_PROCESSES} processes are running already"),
            ));
        }
        let process = Arc::new(spawn()?);
        processes.insert(process.pid, Arc::clone(&process));
        Ok(process)
    }

    /// # Errors
    /// `not_found` when nothing matches; `invalid_argument` when nothing is selected.
    pub(crate) fn select(&self, selector: Option<&ProcessSelector>) -> Result<Arc<Process>, RpcError> {
        let processes = self.lock();
        let (found, what) = match selector {
            Some(ProcessSelector { pid: Some(pid), .. }) => {
                (processes.get(pid), format!("process with pid {pid}"))
            }
            Some(ProcessSelector { tag: Some(tag), .. }) => {
                (by_tag(&processes, tag), format!("process with tag {tag}"))
            }
            _ => return Err(RpcError::new(Code::InvalidArgument, "no process is selected: give pid or tag")),
        };
        found.cloned().ok_or_else(|| RpcError::new(Code::NotFound, format!("{what} not found")))
    }

    /// The same, but only one that still runs.
    pub(crate) fn select_running(
        &self,
        selector: Option<&ProcessSelector>,
    ) -> Result<Arc<Process>, RpcError> {
        let process = self.select(selector)?;
        if process.runs() {
            return Ok(process);
        }
        Err(RpcError::new(
            Code::NotFound,
            format!("process with pid {} not found: it has ended", process.pid),
        ))
    }

    /// Those that run, by ascending id.
    pub(crate) fn list(&self) -> Vec<ProcessInfo> {
        self.lock().values().filter(|process| process.runs()).map(|process| process.info()).collect()
    }

    /// # Errors
    /// `not_found` when it has ended.
    pub(crate) fn signal(&self, process: &Process, signal: Signal) -> Result<(), RpcError> {
        let _no_reaping_meanwhile = self.lock();
        if !process.runs() {
            return Err(RpcError::new(Code::NotFound, format!("process with pid {} has ended", process.pid)));
        }
        kill(process.id(), signal)
            .map_err(|error| RpcError::new(Code::Internal, format!("cannot signal: {error}")))
    }

    /// Signals all that run.
    pub(crate) fn signal_all(&self, signal: Signal) {
        for process in self.lock().values().filter(|process| process.runs()) {
            // It runs or waits to be reaped, so its id is still its own.
            let _zombie = kill(process.id(), signal);
        }
    }

    /// Waits until none runs.
    pub(crate) async fn all_ended(&self) {
        let running: Vec<_> = self.lock().values().filter(|process| process.runs()).cloned().collect();
        for process in running {
            process.ended().await;
        }
    }

    /// Waits until there is no child, neither one that was started here nor an orphan.
    pub(crate) async fn childless(&self) {
        loop {
            // Before the look: whoever is taken after it rings.
            let reaped = self.reaped.notified();
            if self.reap() == Children::None {
                return;
            }
            reaped.await;
        }
    }

    /// Takes every ended child: the agent's own get to know their end, orphans are just gone.
    pub(crate) fn reap(&self) -> Children {
        let processes = self.lock();
        loop {
            match next_ended() {
                Wait::Ended(pid, end) => {
                    self.reaped.notify_waiters();
                    if let Some(process) = processes.get(&pid).filter(|process| process.runs()) {
                        process.exit.send_replace(Some(end));
                    }
                }
                Wait::NoneEnded => return Children::Left,
                Wait::NoChild => return Children::None,
            }
        }
    }

    /// Forgets a process, unless its id has been given to a newer one.
    pub(crate) fn forget(&self, process: &Arc<Process>) {
        let mut processes = self.lock();
        if processes.get(&process.pid).is_some_and(|entered| Arc::ptr_eq(entered, process)) {
            processes.remove(&process.pid);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, Arc<Process>>> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Process {
    pub(crate) fn runs(&self) -> bool {
        self.exit.borrow().is_none()
    }

    /// Waits until it was reaped.
    pub(crate) async fn ended(&self) -> EndEvent {
        let mut exit = self.exit.subscribe();
        // The sender lives in `self`, so the wait always ends with a value.
        exit.wait_for(Option::is_some).await.ok().and_then(|end| end.clone()).unwrap_or_default()
    }

    /// Notes that its deadline passed.
    pub(crate) fn mark_timed_out(&self) {
        self.timed_out.store(true, Ordering::Relaxed);
    }

    fn id(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.pid).unwrap_or(i32::MAX))
    }

    fn info(&self) -> ProcessInfo {
        ProcessInfo { config: Some(self.config.clone()), pid: self.pid, tag: self.tag.clone() }
    }
}

/// A running one is preferred to an ended one of the same tag.
fn by_tag<'a>(processes: &'a BTreeMap<u32, Arc<Process>>, tag: &str) -> Option<&'a Arc<Process>> {
    let mut tagged = processes.values().filter(|process| process.tag.as_deref() == Some(tag));
    let first = tagged.clone().next();
    tagged.find(|process| process.runs()).or(first)
}

/// Whether there are children after a reaping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Children {
    Left,
    None,
}

/// What the kernel says of children.
enum Wait {
    Ended(u32, EndEvent),
    NoneEnded,
    NoChild,
}

#[allow(unsafe_code, reason = "the safe wrapper takes a child that a real-time signal ended, and loses it")]
fn next_ended() -> Wait {
    let mut status = 0;
    // SAFETY: `status` lives through the call.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    match u32::try_from(pid) {
        Ok(0) => Wait::NoneEnded,
        Ok(pid) if libc::WIFSIGNALED(status) => Wait::Ended(pid, EndEvent::killed(libc::WTERMSIG(status))),
        Ok(pid) => Wait::Ended(pid, EndEvent::exited(libc::WEXITSTATUS(status))),
        // ECHILD: a call that does not block is not interrupted.
        Err(_) => Wait::NoChild,
    }
}
