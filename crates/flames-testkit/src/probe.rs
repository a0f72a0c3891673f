//! Is the server ready? One question and the start of the right answer.

use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A server that accepts but does not answer within this is not ready.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// What a ready server says on a new connection.
#[derive(Clone, Debug)]
pub struct Probe {
    /// Where it listens on 127.0.0.1.
    pub port: u16,
    /// What to send; may be empty.
    pub question: Vec<u8>,
    /// Starts of answers that mean ready.
    pub answers: &'static [&'static [u8]],
}

impl Probe {
    /// Asks once.
    pub async fn answers(&self) -> bool {
        matches!(timeout(ANSWER_WITHIN, self.ask()).await, Ok(Ok(true)))
    }

    async fn ask(&self) -> std::io::Result<bool> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await?;
        stream.write_all(&self.question).await?;
        let mut answer = Vec::new();
        while stream.read_buf(&mut answer).await? > 0 {
            if self.answers.iter().any(|start| answer.starts_with(start)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
