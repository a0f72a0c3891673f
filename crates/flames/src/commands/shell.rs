//! `flames shell`: a session on a terminal of the sandbox, as if one sat in front of it.

use super::Context;
use super::exec::{Sink, as_failure, follow};
use crate::cli::Shell;
use crate::client::Client;
use anyhow::{Context as _, bail};
use bytes::Bytes;
use crossterm::terminal;
use flames_api::model::{ExecRequest, TerminalSize};
use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// What is run when nothing is named: the best shell there is, as a login shell.
const LOGIN_SHELL: [&str; 3] = ["/bin/sh", "-c", "command -v bash >/dev/null && exec bash -il; exec sh -il"];

pub(crate) async fn run(context: &Context, command: Shell) -> anyhow::Result<ExitCode> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        bail!("a shell needs a terminal on both sides: for scripts there is `flames exec`");
    }
    let request = ExecRequest {
        command: words(command.command),
        env: environment(command.env),
        cwd: command.workdir,
        user: command.user,
        terminal: Some(own_size()),
        ..ExecRequest::default()
    };
    let client = Client::connect(&context.global, &context.places).await?;
    let raw = RawMode::enter()?;
    let ended = follow(&client, &command.id, &request, &mut Sink::PassThrough).await;
    drop(raw);
    Ok(ExitCode::from(ended.map_err(as_failure)?.code))
}

/// Passes on what is typed, and the size of the window when it changes.
pub(super) async fn sit_at(client: Client, id: String, pid: u32, mut keys: mpsc::Receiver<Bytes>) {
    let mut resized = match signal(SignalKind::window_change()) {
        Ok(resized) => resized,
        Err(error) => return tracing::debug!(%error, "changes of the window's size cannot be followed"),
    };
    loop {
        let sent = tokio::select! {
            typed = keys.recv() => match typed {
                Some(typed) => client.send_keys(&id, pid, typed).await,
                None => return,
            },
            _ = resized.recv() => client.resize(&id, pid, own_size()).await,
        };
        if let Err(error) = sent {
            return tracing::debug!(%error, "the terminal takes no more");
        }
    }
}

fn words(given: Vec<String>) -> Vec<String> {
    if given.is_empty() { LOGIN_SHELL.map(str::to_owned).into() } else { given }
}

/// Programs inside must know what kind of terminal this is; what is given wins.
fn environment(given: Vec<(String, String)>) -> BTreeMap<String, String> {
    let inherited = ["TERM", "COLORTERM"].into_iter();
    let inherited = inherited.filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?)));
    inherited.chain(given).collect()
}

/// The size of this terminal, or the usual one where it has none.
fn own_size() -> TerminalSize {
    match terminal::size() {
        Ok((columns @ 1.., rows @ 1..)) => TerminalSize { columns, rows },
        _ => TerminalSize { columns: 80, rows: 24 },
    }
}

/// While it lives, every key goes to the sandbox as it is.
#[derive(Debug)]
struct RawMode;

impl RawMode {
    fn enter() -> anyhow::Result<Self> {
        terminal::enable_raw_mode().context("cannot take this terminal")?;
        Ok(Self)
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        if let Err(error) = terminal::disable_raw_mode() {
            tracing::warn!(%error, "the terminal was not given back: `stty sane` does it");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_is_run_when_nothing_is_named() {
        assert_eq!(words(Vec::new())[0], "/bin/sh");
        assert_eq!(words(vec!["top".into()]), ["top"]);
    }

    #[test]
    fn what_is_given_wins_over_what_is_inherited() {
        assert_eq!(environment(vec![("TERM".into(), "dumb".into())])["TERM"], "dumb");
    }
}
