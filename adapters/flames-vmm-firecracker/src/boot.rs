//! The boot channel over the serial console: a private line to the agent, before there is a network.
//!
//! The agent says hello once its end listens, and again until it is heard: what the daemon writes earlier is
//! lost in the guest's UART. The daemon then writes the greeting and reads one answer. Later it may ask the agent to end
//! the guest. What is said is [`flames_vmm::boot`]'s.

use flames_vmm::AgentReady;
use flames_vmm::boot::{BootError, SHUT_DOWN, Word, say, understand};
use std::io;
use std::path::Path;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

/// The host's end of the boot channel.
#[derive(Debug)]
pub(crate) struct BootLine {
    to_guest: pipe::Sender,
    records: mpsc::Receiver<Vec<u8>>,
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
            match understand(&record)? {
                Word::Hello => say(&mut self.to_guest, greeting).await.map_err(BootError::Broken)?,
                Word::Ready(ready) => return Ok(ready),
            }
        }
    }

    /// Asks the agent to end the guest.
    pub(crate) async fn ask_to_shut_down(&mut self) -> io::Result<()> {
        say(&mut self.to_guest, SHUT_DOWN).await
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
