//! `flames exec`, and the following of a command that `flames run` shares.

use super::Context;
use super::shell::sit_at;
use crate::cli::Exec;
use crate::client::Client;
use crate::output::{Failure, Refusal};
use anyhow::anyhow;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use flames_api::model::{ExecEvent, ExecRequest, StdinMode};
use futures::StreamExt;
use std::io::{self, IsTerminal, Read, Write};
use std::process::ExitCode;
use tokio::sync::mpsc;

/// Exit code when Flames itself fails: one that commands seldom use.
const FLAMES_FAILED: u8 = 125;
/// Exit code of a command that does not exist, as shells give it.
const NOT_FOUND: u8 = 127;
/// Added to a signal's number, as shells do.
const SIGNALLED: u8 = 128;
/// One request's worth of standard input.
const INPUT_CHUNK: usize = 64 * 1024;

pub(crate) async fn run(context: &Context, command: Exec) -> anyhow::Result<ExitCode> {
    let request = ExecRequest {
        command: command.command,
        env: command.env.into_iter().collect(),
        cwd: command.workdir,
        user: command.user,
        stdin: stdin_mode(command.no_stdin),
        timeout_s: command.timeout,
        terminal: None,
    };
    let client = Client::connect(&context.global, &context.places).await?;
    let mut sink = Sink::for_output(context.global.json);
    let ended = follow(&client, &command.id, &request, &mut sink).await.map_err(as_failure)?;
    sink.finish(&ended)?;
    Ok(ExitCode::from(ended.code))
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ended {
    pub(crate) code: u8,
    pub(crate) first_output_ms: f64,
}

/// Where a command's output goes.
#[derive(Debug)]
pub(crate) enum Sink {
    /// To this program's own output, as it comes.
    PassThrough,
    /// Into one JSON document at the end.
    Collect { stdout: Vec<u8>, stderr: Vec<u8> },
}

impl Sink {
    pub(crate) fn for_output(json: bool) -> Self {
        if json { Self::Collect { stdout: Vec::new(), stderr: Vec::new() } } else { Self::PassThrough }
    }

    fn stdout(&mut self, data: &[u8]) -> io::Result<()> {
        match self {
            Self::PassThrough => write_through(io::stdout(), data),
            Self::Collect { stdout, .. } => stdout.write_all(data),
        }
    }

    fn stderr(&mut self, data: &[u8]) -> io::Result<()> {
        match self {
            Self::PassThrough => write_through(io::stderr(), data),
            Self::Collect { stderr, .. } => stderr.write_all(data),
        }
    }

    pub(crate) fn finish(self, ended: &Ended) -> anyhow::Result<()> {
        let Self::Collect { stdout, stderr } = self else { return Ok(()) };
        crate::output::json(&serde_json::json!({
            "exit_code": ended.code,
            "stdout": String::from_utf8_lossy(&stdout),
            "stderr": String::from_utf8_lossy(&stderr),
            "first_output_ms": ended.first_output_ms,
        }))
    }
}

/// Starts a command, feeds it, passes its output on, and gives its end.
pub(crate) async fn follow(
    client: &Client,
    id: &str,
    request: &ExecRequest,
    sink: &mut Sink,
) -> anyhow::Result<Ended> {
    let mut events = client.exec(id, request).await?;
    let mut feeding = None;
    while let Some(event) = events.next().await {
        match event? {
            ExecEvent::Started { pid } if request.terminal.is_some() => {
                let sitting = sit_at(client.clone(), id.to_owned(), pid, read_stdin());
                feeding = Some(tokio::spawn(sitting));
            }
            ExecEvent::Started { pid } if request.stdin == StdinMode::Open => {
                feeding = Some(tokio::spawn(feed(client.clone(), id.to_owned(), pid)));
            }
            ExecEvent::Started { .. } => {}
            ExecEvent::Stdout { data } => sink.stdout(&STANDARD.decode(data)?)?,
            ExecEvent::Stderr { data } => sink.stderr(&STANDARD.decode(data)?)?,
            ExecEvent::Exit { exit_code, status, first_output_ms } => {
                if let Some(feeding) = feeding {
                    feeding.abort();
                }
                return Ok(Ended { code: shell_code(exit_code, &status), first_output_ms });
            }
            ExecEvent::Error { problem } => return Err(Refusal(*problem).into()),
        }
    }
    Err(anyhow!("the stream ended before the command did: the sandbox or the daemon went away"))
}

pub(crate) fn stdin_mode(no_stdin: bool) -> StdinMode {
    if no_stdin { StdinMode::Null } else { StdinMode::Open }
}

/// Gives an error of `run` or `exec` the exit code that no command means.
pub(crate) fn as_failure(error: anyhow::Error) -> anyhow::Error {
    if error.downcast_ref::<Failure>().is_some() {
        return error;
    }
    let missing = |refusal: &Refusal| refusal.0.code == "guest_not_found";
    let code = if error.downcast_ref::<Refusal>().is_some_and(missing) { NOT_FOUND } else { FLAMES_FAILED };
    Failure { code, error }.into()
}

/// Passes standard input on until its end. A command that ended, or closed its input, ends this too.
async fn feed(client: Client, id: String, pid: u32) {
    let mut input = read_stdin();
    while let Some(chunk) = input.recv().await {
        if let Err(error) = client.send_input(&id, pid, chunk).await {
            tracing::debug!(%error, "the command takes no more input");
            return;
        }
    }
    if let Err(error) = client.close_input(&id, pid).await {
        tracing::debug!(%error, "the command's input was closed already");
    }
}

/// Standard input in chunks, read by a thread of its own: a read of a terminal cannot be cancelled.
fn read_stdin() -> mpsc::Receiver<Bytes> {
    let (chunks, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        let mut buffer = vec![0; INPUT_CHUNK];
        let mut stdin = io::stdin().lock();
        while let Ok(read @ 1..) = stdin.read(&mut buffer) {
            if chunks.blocking_send(Bytes::copy_from_slice(&buffer[..read])).is_err() {
                return;
            }
        }
    });
    receiver
}

fn write_through(mut to: impl Write + IsTerminal, data: &[u8]) -> io::Result<()> {
    to.write_all(data)?;
    to.flush()
}

/// The exit code as a shell gives it.
fn shell_code(exit_code: i32, status: &str) -> u8 {
    match (u8::try_from(exit_code), status.strip_prefix("signal: ")) {
        (Ok(code), None) => code,
        (_, Some(signal)) => SIGNALLED + signal_number(signal),
        (Err(_), None) => FLAMES_FAILED,
    }
}

/// The number of a signal by the name the agent gives it.
fn signal_number(name: &str) -> u8 {
    match name {
        "hangup" => 1,
        "interrupt" => 2,
        "quit" => 3,
        "illegal instruction" => 4,
        "aborted" => 6,
        "bus error" => 7,
        "floating point exception" => 8,
        "killed" => 9,
        "segmentation fault" => 11,
        "broken pipe" => 13,
        "terminated" => 15,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_a_shell() {
        assert_eq!(shell_code(3, "exit status 3"), 3);
        assert_eq!(shell_code(-1, "signal: killed"), 137);
        assert_eq!(shell_code(-1, "signal: terminated"), 143);
        assert_eq!(shell_code(-1, "?"), 125);
    }

    #[test]
    fn a_command_that_does_not_exist_gives_127_and_other_refusals_125() {
        let refusal = |code: &str| {
            anyhow::Error::new(Refusal(flames_api::Problem::new(http::StatusCode::NOT_FOUND, code, "x")))
        };
        let code = |error: anyhow::Error| as_failure(error).downcast_ref::<Failure>().unwrap().code;
        assert_eq!(code(refusal("guest_not_found")), 127);
        assert_eq!(code(refusal("sandbox_not_found")), 125);
    }
}
