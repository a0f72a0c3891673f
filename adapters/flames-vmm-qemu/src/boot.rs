//! The boot channel: a private line to the agent, before there is a network and after there is none.
//!
//! The daemon writes the greeting and reads one answer. The connection stays open: later the daemon may ask the agent to
//! end the guest. What is said is [`flames_vmm::boot`]'s.

use flames_vmm::AgentReady;
use flames_vmm::boot::{BootError, SHUT_DOWN, say, understand};
use std::io;
use std::path::Path;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::UnixStream;

/// The host's end of the boot channel.
#[derive(Debug)]
pub(crate) struct BootSocket(UnixStream);

/// The agent is inside the guest: what it says is bounded.
const MAX_ANSWER: u64 = 4096;

impl BootSocket {
    pub(crate) async fn connect(socket: &Path) -> io::Result<Self> {
        UnixStream::connect(socket).await.map(Self)
    }

    /// Says `greeting` and waits for the agent's answer, for as long as the caller does.
    pub(crate) async fn greet(&mut self, greeting: &str) -> Result<AgentReady, BootError> {
        say(&mut self.0, greeting).await.map_err(BootError::Broken)?;
        let mut answer = Vec::new();
        let mut reader = BufReader::new((&mut self.0).take(MAX_ANSWER));
        reader.read_until(b'\n', &mut answer).await.map_err(BootError::Broken)?;
        if answer.is_empty() {
            return Err(BootError::Closed);
        }
        understand(&answer)?.ready()
    }

    /// Asks the agent to end the guest.
    pub(crate) async fn ask_to_shut_down(&mut self) -> io::Result<()> {
        say(&mut self.0, SHUT_DOWN).await
    }
}
