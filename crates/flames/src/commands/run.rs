//! `flames run`: create, run, pass input and output on, destroy.

use super::exec::{Ended, Sink, as_failure, follow, stdin_mode};
use super::{AnyDaemon, Context};
use crate::cli::Run;
use crate::client::Client;
use crate::output;
use flames_api::model::{CreateRequest, ExecRequest, SandboxView};
use std::process::ExitCode;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Exit code of a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

pub(crate) async fn run(context: &Context, command: Run) -> anyhow::Result<ExitCode> {
    // Before the sandbox exists, so that no signal leaves one behind.
    let mut stop = Stop::listen()?;
    let daemon = AnyDaemon::find_or_start(context).await.map_err(as_failure)?;
    let outcome = in_sandbox(&daemon.client, &command, context.global.json, &mut stop).await;
    let stopped = daemon.stop().await;
    let code = outcome.map_err(as_failure)?;
    stopped.map_err(as_failure)?;
    Ok(ExitCode::from(code))
}

async fn in_sandbox(client: &Client, command: &Run, json: bool, stop: &mut Stop) -> anyhow::Result<u8> {
    let request = CreateRequest::from(&command.shape);
    let sandbox = tokio::select! {
        created = client.create(&request) => created?,
        // The daemon sees that nobody waits any more, and destroys what it makes.
        () = stop.asked() => return Ok(INTERRUPTED),
    };
    let request = ExecRequest {
        command: command.command.clone(),
        stdin: stdin_mode(command.no_stdin),
        ..ExecRequest::default()
    };
    let mut sink = Sink::for_output(json);
    let outcome = tokio::select! {
        ended = follow(client, &sandbox.id, &request, &mut sink) => ended.map(Some),
        () = stop.asked() => Ok(None),
    };
    let destroyed = client.delete(&sandbox.id).await;
    let code = match outcome? {
        Some(ended) => {
            report(command, json, sink, &sandbox, &ended)?;
            ended.code
        }
        None => INTERRUPTED,
    };
    destroyed?;
    Ok(code)
}

fn report(command: &Run, json: bool, sink: Sink, sandbox: &SandboxView, ended: &Ended) -> anyhow::Result<()> {
    sink.finish(ended)?;
    if command.timings && !json {
        output::timing_bars(&sandbox.timings, Some(ended.first_output_ms));
    }
    Ok(())
}

/// Ctrl-C and its like.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Stop {
    fn listen() -> anyhow::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
