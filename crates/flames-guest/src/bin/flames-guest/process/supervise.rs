//! What happens around a process while it runs: output is read, its deadline watched, its end collected.

use super::spawn::Output;
use super::table::Process;
use crate::agent::Agent;
use crate::timing::passed;
use flames_guest::process::DataEvent;
use nix::sys::signal::Signal;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};

/// Most bytes of output in one event.
const CHUNK: usize = 32 << 10;
/// The same for a terminal.
const TERMINAL_CHUNK: usize = 16 << 10;
/// How long an ended process can still be connected to.
const REMEMBERED: Duration = Duration::from_secs(30);

/// Collects ended children from now on, orphans too: as PID 1 the agent inherits them, elsewhere it asks to.
pub(crate) fn reap(agent: &Arc<Agent>) -> io::Result<()> {
    let mut child_ended = signal(SignalKind::child())?;
    nix::sys::prctl::set_child_subreaper(true)?;
    let agent = Arc::clone(agent);
    tokio::spawn(async move {
        while child_ended.recv().await.is_some() {
            agent.processes.reap();
        }
    });
    Ok(())
}

/// Follows one process from its start until it is forgotten.
pub(crate) async fn supervise(
    agent: Arc<Agent>,
    process: Arc<Process>,
    output: Output,
    deadline: Option<Instant>,
) {
    let follow = async {
        match output {
            Output::Pipes { stdout, stderr } => {
                let of_stdout = |bytes| DataEvent { stdout: Some(bytes), ..Default::default() };
                let of_stderr = |bytes| DataEvent { stderr: Some(bytes), ..Default::default() };
                tokio::join!(
                    read_all(&process, stdout, CHUNK, of_stdout),
                    read_all(&process, stderr, CHUNK, of_stderr)
                );
            }
            Output::Terminal(output) => {
                let of_terminal = |bytes| DataEvent { pty: Some(bytes), ..Default::default() };
                read_all(&process, output, TERMINAL_CHUNK, of_terminal).await;
            }
        }
        process.ended().await
    };
    tokio::pin!(follow);
    let end = tokio::select! {
        end = &mut follow => end,
        () = passed(deadline) => {
            process.mark_timed_out();
            // It may have ended by itself in the same moment.
            let _ended_already = agent.processes.signal(&process, Signal::SIGKILL);
            follow.await
        }
    };
    process.input.lock().await.take();
    process.hub.finish(end).await;
    sleep(REMEMBERED).await;
    agent.processes.forget(&process);
}

/// Reads until everyone who holds the other end has closed it: children of the process count.
/// Of a terminal, the end is the error that nobody has it open any more.
async fn read_all(process: &Process, mut pipe: pipe::Receiver, most: usize, event: fn(Vec<u8>) -> DataEvent) {
    let mut chunk = vec![0; most];
    loop {
        match pipe.read(&mut chunk).await {
            Ok(0) | Err(_) => return,
            Ok(length) => process.hub.publish(event(chunk[..length].to_vec())).await,
        }
    }
}
