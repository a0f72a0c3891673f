//! The boot channel over the serial console: a private line to the agent, before there is a network.
//!
//! The agent says hello once its end listens, and again until it is heard: what the daemon writes earlier is
//! lost in the guest's UART. The daemon then writes the greeting and reads one answer. Later it may write
//! `{"shutdown":true}`, and the agent ends the guest.

use flames_vmm::AgentReady;
use serde::Deserialize;
use std::io;
use std::path::Path;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

/// The host's end of the boot channel.
#[derive(Debug)]
pub(crate) struct BootLine {
    to_guest: pipe::Sender,
    records: mpsc::Receiver<Vec<u8>>,
}

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

#[derive(Deserialize)]
#[serde(untagged)]
enum Record {
    Error {
        error: String,
    },
    Ready {
        version: String,
    },
    Hello {
        #[serde(rename = "hello")]
        _hello: bool,
    },
}

impl BootLine {
    /// Opens the guest's input. Its reader is Firecracker, which runs already.
    pub(crate) fn open(console_in: &Path, records: mpsc::Receiver<Vec<u8>>) -> io::Result<Self> {
        Ok(Self { to_guest: pipe::OpenOptions::new().open_sender(console_in)?, records })
    }

    /// Says `greeting` whenever the agent says hello, and waits for its answer, for as long as the caller does.
    pub(crate) async fn greet(&mut self, greeting: &str) -> Result<AgentReady, BootError> {
        loop {
            let record = self.records.recv().await.ok_or(BootError::Closed)?;
            match serde_json::from_slice(&record).map_err(BootError::Garbled)? {
                Record::Hello { .. } => self.write_line(greeting).await.map_err(BootError::Broken)?,
                Record::Ready { version } => return Ok(AgentReady { version }),
                Record::Error { error } => return Err(BootError::Refused(error)),
            }
        }
    }

    /// Asks the agent to end the guest.
    pub(crate) async fn ask_to_shut_down(&mut self) -> io::Result<()> {
        self.write_line(r#"{"shutdown":true}"#).await
    }

    async fn write_line(&mut self, line: &str) -> io::Result<()> {
        self.to_guest.write_all(format!("{line}\n").as_bytes()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn the_greeting_follows_each_hello_and_the_answer_ends_it() {
        let (to_guest, mut guest) = pipe::pipe().unwrap();
        let (tell, records) = mpsc::channel(8);
        let mut line = BootLine { to_guest, records };
        for record in [r#"{"hello":true}"#, r#"{"hello":true}"#, r#"{"ready":true,"version":"0.1.0"}"#] {
            tell.send(record.into()).await.unwrap();
        }
        assert_eq!(line.greet("secret").await.unwrap().version, "0.1.0");
        drop(line);
        let mut heard = String::new();
        guest.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "secret\nsecret\n");
    }

    #[tokio::test]
    async fn a_reason_a_garbled_record_and_an_end_are_told_apart() {
        let (to_guest, _guest) = pipe::pipe().unwrap();
        let (tell, records) = mpsc::channel(8);
        let mut line = BootLine { to_guest, records };
        tell.send(br#"{"error":"no disk"}"#.to_vec()).await.unwrap();
        assert_eq!(line.greet("x").await.unwrap_err().to_string(), "the agent cannot start: no disk");
        tell.send(b"xxxx".to_vec()).await.unwrap();
        assert!(matches!(line.greet("x").await, Err(BootError::Garbled(_))));
        drop(tell);
        assert!(matches!(line.greet("x").await, Err(BootError::Closed)));
    }
}
