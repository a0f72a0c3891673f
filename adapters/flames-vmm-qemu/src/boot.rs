//! The boot channel: a private line to the agent, before there is a network and after there is none.
//!
//! The daemon writes the greeting and reads one answer. The connection stays open: later the daemon may write
//! `{"shutdown":true}`, and the agent then ends the guest.

use flames_vmm::AgentReady;
use serde::Deserialize;
use std::io;
use std::path::Path;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// The host's end of the boot channel.
#[derive(Debug)]
pub(crate) struct BootSocket(UnixStream);

/// Why no agent came to serve.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BootError {
    #[error("the boot channel broke")]
    Broken(#[source] io::Error),
    #[error("the VMM closed the boot channel")]
    Closed,
    #[error("the agent cannot start: {0}")]
    Refused(String),
    #[error("the agent's answer is none")]
    Garbled(#[source] serde_json::Error),
}

/// The agent is inside the guest: what it says is bounded.
const MAX_ANSWER: u64 = 4096;

#[derive(Deserialize)]
#[serde(untagged)]
enum Answer {
    Error { error: String },
    Ready { version: String },
}

impl BootSocket {
    pub(crate) async fn connect(socket: &Path) -> io::Result<Self> {
        UnixStream::connect(socket).await.map(Self)
    }

    /// Says `greeting` and waits for the agent's answer, for as long as the caller does.
    pub(crate) async fn greet(&mut self, greeting: &str) -> Result<AgentReady, BootError> {
        self.write_line(greeting).await.map_err(BootError::Broken)?;
        let mut answer = Vec::new();
        let mut reader = BufReader::new((&mut self.0).take(MAX_ANSWER));
        reader.read_until(b'\n', &mut answer).await.map_err(BootError::Broken)?;
        if answer.is_empty() {
            return Err(BootError::Closed);
        }
        understand(&answer)
    }

    /// Asks the agent to end the guest.
    pub(crate) async fn ask_to_shut_down(&mut self) -> io::Result<()> {
        self.write_line(r#"{"shutdown":true}"#).await
    }

    async fn write_line(&mut self, line: &str) -> io::Result<()> {
        self.0.write_all(format!("{line}\n").as_bytes()).await
    }
}

fn understand(answer: &[u8]) -> Result<AgentReady, BootError> {
    match serde_json::from_slice(answer) {
        Ok(Answer::Ready { version }) => Ok(AgentReady { version }),
        Ok(Answer::Error { error }) => Err(BootError::Refused(error)),
        Err(error) => Err(BootError::Garbled(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_readiness_or_a_reason_or_nothing() {
        let ready = understand(b"{\"ready\":true,\"version\":\"0.1.0\"}\n").unwrap();
        assert_eq!(ready.version, "0.1.0");
        let refused = understand(br#"{"error":"no disk"}"#).unwrap_err();
        assert_eq!(refused.to_string(), "the agent cannot start: no disk");
        assert!(matches!(understand(b"xxxx"), Err(BootError::Garbled(_))));
    }
}
