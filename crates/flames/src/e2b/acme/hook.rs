//! The user's program that sets and removes DNS records.

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process_group};
use std::path::PathBuf;
use std::pin::pin;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// How long one call may take: it waits until the domain's name servers know the record.
const DEADLINE: Duration = Duration::from_secs(5 * 60);
/// Bytes of what it said that an error quotes.
const QUOTED: usize = 2000;

/// Called as `PROGRAM present NAME VALUE` and `PROGRAM cleanup NAME VALUE`.
#[derive(Clone, Debug)]
pub(super) struct Hook {
    program: PathBuf,
    pub(super) deadline: Duration,
}

/// A TXT record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) name: String,
    pub(super) value: String,
}

impl Hook {
    pub(super) fn new(program: PathBuf) -> Self {
        Self { program, deadline: DEADLINE }
    }

    /// Adds a record beside others of its name.
    pub(super) async fn present(&self, record: &Record) -> anyhow::Result<()> {
        self.call("present", record).await
    }

    /// Removes it, and no other.
    pub(super) async fn cleanup(&self, record: &Record) -> anyhow::Result<()> {
        self.call("cleanup", record).await
    }

    async fn call(&self, what: &str, record: &Record) -> anyhow::Result<()> {
        let call = format!("the hook `{} {what} {} {}`", self.program.display(), record.name, record.value);
        let child = Command::new(&self.program)
            .args([what, &record.name, &record.value])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{call} cannot be started"))?;
        let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let mut ended = pin!(child.wait_with_output());
        let Ok(output) = tokio::time::timeout(self.deadline, ended.as_mut()).await else {
            // With what it started; while it is not waited for, nobody else has its number.
            let _gone = group.map(|group| kill_process_group(group, Signal::KILL));
            bail!("{call} did not end within {:?}", self.deadline);
        };
        let output = output.with_context(|| format!("{call} cannot be waited for"))?;
        ensure!(output.status.success(), "{call} failed with {}: {}", output.status, said(&output.stderr));
        Ok(())
    }
}

/// The end of it: programs say last what went wrong.
fn said(stderr: &[u8]) -> String {
    let end = &stderr[stderr.len().saturating_sub(QUOTED)..];
    String::from_utf8_lossy(end).trim().to_owned()
}
