//! What is said over the boot channel, whatever carries it: the daemon's greeting, the agent's answer, and later the
//! request to end the guest. Each is one line.

use crate::spec::AgentReady;
use serde::Deserialize;
use serde::de::Error as _;
use std::io;
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// Asks the agent to end the guest.
pub const SHUT_DOWN: &str = r#"{"shutdown":true}"#;

/// Why no agent came to serve.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The channel failed.
    #[error("the boot channel broke")]
    Broken(#[source] io::Error),
    /// Its other end is gone.
    #[error("the VMM closed the boot channel")]
    Closed,
    /// The agent says why.
    #[error("the agent cannot start: {0}")]
    Refused(String),
    /// What came is no answer.
    #[error("the agent's answer is none")]
    Garbled(#[source] serde_json::Error),
}

/// What an agent says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// It listens, and may be greeted.
    Hello,
    /// It was greeted, and serves.
    Ready(AgentReady),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
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

/// Reads one line of an agent's.
///
/// # Errors
/// `Refused` when the agent says that it cannot start, `Garbled` for anything that no agent says.
pub fn understand(line: &[u8]) -> Result<Word, BootError> {
    match serde_json::from_slice(line).map_err(BootError::Garbled)? {
        Line::Hello { .. } => Ok(Word::Hello),
        Line::Ready { version } => Ok(Word::Ready(AgentReady { version })),
        Line::Error { error } => Err(BootError::Refused(error)),
    }
}

impl Word {
    /// For channels on which nobody says hello.
    ///
    /// # Errors
    /// `Garbled` when it is not the answer to a greeting.
    pub fn ready(self) -> Result<AgentReady, BootError> {
        match self {
            Self::Ready(ready) => Ok(ready),
            Self::Hello => Err(BootError::Garbled(serde_json::Error::custom("it says hello"))),
        }
    }
}

/// Says one line.
///
/// # Errors
/// When the channel does not take it.
pub async fn say(to: &mut (impl AsyncWrite + Unpin), line: &str) -> io::Result<()> {
    to.write_all(format!("{line}\n").as_bytes()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_hello_or_readiness_or_a_reason_or_nothing() {
        let ready = understand(b"{\"ready\":true,\"version\":\"0.1.0\"}\n").unwrap();
        assert_eq!(ready.ready().unwrap().version, "0.1.0");
        assert_eq!(understand(br#"{"hello":true}"#).unwrap(), Word::Hello);
        let refused = understand(br#"{"error":"no disk"}"#).unwrap_err();
        assert_eq!(refused.to_string(), "the agent cannot start: no disk");
        assert!(matches!(understand(b"xxxx"), Err(BootError::Garbled(_))));
        assert!(matches!(Word::Hello.ready(), Err(BootError::Garbled(_))));
    }
}
