//! What a template starts in a guest that was booted, before anybody gets it and before its snapshot is taken.

use super::{Creation, missing, ms_since};
use crate::local::source::Source;
use crate::{
    GuestClient, GuestError, GuestErrorKind, ProcessEnd, ProcessEvent, ProcessEvents, StartProcess, StartUp,
};
use flames_vmm::{Error, ErrorKind, Result};
use std::time::{Duration, Instant};

/// Between two questions whether it is ready: a question runs a shell, on the processor that is to get ready.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// How long one question may take.
const QUESTION_DEADLINE: Duration = Duration::from_secs(20);
/// How much of what was written last is told with an error.
const TOLD_BYTES: usize = 1024;

impl Creation {
    /// Starts it and waits until it is ready. What a snapshot holds runs already.
    pub(super) async fn start_up(&mut self) -> Result<()> {
        let Source::Image(image) = &self.source else { return Ok(()) };
        let Some(start_up) = &image.template.start_up else { return Ok(()) };
        let guest = self.guest.as_ref().ok_or_else(|| missing("guest client"))?;
        let begun = Instant::now();
        let booted = Duration::from_secs_f64(self.timings.kernel_to_agent_ms / 1000.0);
        let deadline = self.request.boot_deadline.saturating_sub(booted);
        let mut said = Said::default();
        let outcome = tokio::time::timeout(deadline, run(guest, start_up, &mut said)).await;
        let failed = |kind, why: String| {
            Error::new(kind, "template", image.template.name.as_str())
                .operation("start up")
                .detail(format!("{why}; it wrote: {}", said.text()))
        };
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(Failure::Ended(end))) => {
                let why = format!("its start command ended before it was ready, with {}", end.status);
                return Err(failed(ErrorKind::InvalidInput, why));
            }
            Ok(Err(Failure::Agent(error))) => return Err(failed(kind_of(&error), error.to_string())),
            Err(_) => {
                let why = format!(
                    "its ready command did not succeed within what was left of {} s",
                    self.request.boot_deadline.as_secs_f64()
                );
                return Err(failed(ErrorKind::Timeout, why));
            }
        }
        self.timings.start_up_ms = ms_since(begun);
        Ok(())
    }
}

/// Why a template is not ready.
enum Failure {
    /// Its start command ended, and not with success.
    Ended(ProcessEnd),
    /// The agent could not do what it was asked for.
    Agent(GuestError),
}

impl From<GuestError> for Failure {
    fn from(error: GuestError) -> Self {
        Self::Agent(error)
    }
}

async fn run(guest: &GuestClient, start_up: &StartUp, said: &mut Said) -> Result<(), Failure> {
    let mut events = guest.start(&shell(&start_up.command, None)).await?;
    let ready = until_ready(guest, start_up.ready.as_deref());
    tokio::select! {
        ready = ready => Ok(ready?),
        failed = until_failed(&mut events, said) => Err(failed),
    }
}

/// Ends when the template is ready.
async fn until_ready(guest: &GuestClient, question: Option<&str>) -> Result<(), GuestError> {
    let Some(question) = question else { return Ok(()) };
    while !succeeds(guest, question).await? {
        // The guest has no event for "ready": only its own command knows.
        tokio::time::sleep(ASK_AGAIN).await;
    }
    Ok(())
}

async fn succeeds(guest: &GuestClient, question: &str) -> Result<bool, GuestError> {
    let mut events = guest.start(&shell(question, Some(QUESTION_DEADLINE))).await?;
    while let Some(event) = events.next().await {
        match event {
            Ok(ProcessEvent::End(end)) => return Ok(end.exit_code == 0),
            Ok(_) => {}
            Err(error) if error.kind() == GuestErrorKind::DeadlineExceeded => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// Notes what a process writes; ends only when the process does so without success.
async fn until_failed(events: &mut ProcessEvents, said: &mut Said) -> Failure {
    while let Some(event) = events.next().await {
        match event {
            Ok(ProcessEvent::Stdout(text) | ProcessEvent::Stderr(text) | ProcessEvent::Pty(text)) => {
                said.add(&text)
            }
            Ok(ProcessEvent::End(end)) if end.exit_code != 0 => return Failure::Ended(end),
            Ok(ProcessEvent::End(_)) => {}
            Err(error) => return error.into(),
        }
    }
    std::future::pending().await
}

fn shell(command: &str, timeout: Option<Duration>) -> StartProcess {
    StartProcess {
        command: "/bin/sh".to_owned(),
        args: vec!["-lc".to_owned(), command.to_owned()],
        user: Some("root".to_owned()),
        timeout,
        ..StartProcess::default()
    }
}

fn kind_of(error: &GuestError) -> ErrorKind {
    match error.kind() {
        GuestErrorKind::InvalidArgument | GuestErrorKind::NotFound => ErrorKind::InvalidInput,
        GuestErrorKind::DeadlineExceeded => ErrorKind::Timeout,
        _ => ErrorKind::Unavailable,
    }
}

/// The last bytes of what a process wrote.
#[derive(Default)]
struct Said(Vec<u8>);

impl Said {
    fn add(&mut self, text: &[u8]) {
        self.0.extend_from_slice(text);
        let surplus = self.0.len().saturating_sub(TOLD_BYTES);
        self.0.drain(..surplus);
    }

    fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.0);
        if text.trim().is_empty() { "nothing".to_owned() } else { text.trim().to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_last_is_told() {
        let mut said = Said::default();
        assert_eq!(said.text(), "nothing");
        said.add(&[b'x'; 5000]);
        said.add(b"the reason\n");
        assert_eq!(said.text().len(), TOLD_BYTES - 1);
        assert!(said.text().ends_with("xthe reason"));
    }
}
