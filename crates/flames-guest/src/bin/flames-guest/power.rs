//! The end: what asks for it, and that no process outlives it.

use crate::agent::{Agent, Mode};
use crate::server::Server;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// How long processes may take to end by themselves.
const PATIENCE: Duration = Duration::from_secs(2);

/// Serves until somebody asks for the end: the node over the boot channel or by a control call, SIGTERM, or ctrl-alt-del (SIGINT to PID 1).
pub(crate) async fn until_shutdown(server: Server, agent: Arc<Agent>) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        never = server.serve(Arc::clone(&agent)) => match never {},
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = agent.shutdown.notified() => {}
    }
    end_processes(&agent).await;
    Ok(())
}

/// Asks every process to end, and ends those that do not.
async fn end_processes(agent: &Agent) {
    signal_all(agent, Signal::SIGTERM);
    // Elapsed: some did not listen, and are killed next.
    let _elapsed = tokio::time::timeout(PATIENCE, all_ended(agent)).await;
    signal_all(agent, Signal::SIGKILL);
    // Elapsed: one hangs inside the kernel, and the machine ends all the same.
    let _elapsed = tokio::time::timeout(PATIENCE, all_ended(agent)).await;
}

/// In a guest everything but PID 1 is a process of the sandbox.
fn signal_all(agent: &Agent, signal: Signal) {
    match agent.mode {
        // ESRCH: there is nobody left to signal.
        Mode::Guest => drop(kill(Pid::from_raw(-1), signal)),
        Mode::Host => agent.processes.signal_all(signal),
    }
}

/// In a guest orphans count, too: while one lives, it may hold a file open for writing.
async fn all_ended(agent: &Agent) {
    match agent.mode {
        Mode::Guest => agent.processes.childless().await,
        Mode::Host => agent.processes.all_ended().await,
    }
}
