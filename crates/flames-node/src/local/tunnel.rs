//! Connections to ports that listen on a guest's loopback alone, through its agent.
//!
//! It is also the way to any port on a node without root, where the agent's port is all that can be reached.

use crate::{AccessToken, GuestStream};
use flames_guest::control::{CONNECT_PATH, CONTROL_HEADER, PORT_HEADER, TUNNEL_PROTOCOL};
use flames_vmm::{Error, ErrorKind, Result};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// An agent answers at once, or its guest is paused or gone.
const DEADLINE: Duration = Duration::from_secs(5);
/// The longest head of an answer.
const MAX_HEAD: usize = 4096;

/// Turns a connection to the agent into one to a port of its loopback.
pub(super) async fn open(mut agent: GuestStream, control: &AccessToken, port: u16) -> Result<GuestStream> {
    let asked = tokio::time::timeout(DEADLINE, ask(&mut agent, control, port)).await;
    match asked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(()) => Ok(agent),
        Err(error) => Err(Error::new(ErrorKind::Unavailable, "guest port", port.to_string())
            .operation("connect")
            .detail(error.to_string())
            .source(error)),
    }
}

async fn ask(agent: &mut GuestStream, control: &AccessToken, port: u16) -> io::Result<()> {
    let request = format!(
        "POST {CONNECT_PATH} HTTP/1.1\r\nHost: guest\r\nConnection: upgrade\r\nUpgrade: {TUNNEL_PROTOCOL}\r\n\
         {PORT_HEADER}: {port}\r\n{CONTROL_HEADER}: {}\r\n\r\n",
        control.expose()
    );
    agent.write_all(request.as_bytes()).await?;
    let head = read_head(agent).await?;
    match head.strip_prefix(b"HTTP/1.1 ") {
        Some(rest) if rest.starts_with(b"101 ") => Ok(()),
        Some(rest) if rest.starts_with(b"502 ") => Err(io::ErrorKind::ConnectionRefused.into()),
        _ => Err(io::Error::other("the agent does not open a way there")),
    }
}

/// Reads up to the empty line and not a byte further: what follows is the port's.
async fn read_head(agent: &mut GuestStream) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(256);
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == MAX_HEAD {
            return Err(io::ErrorKind::InvalidData.into());
        }
        head.push(agent.read_u8().await?);
    }
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answered(answer: &'static str) -> Result<GuestStream> {
        let (near, mut far) = tokio::io::duplex(1024);
        let agent = tokio::spawn(async move {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(far.read_u8().await.unwrap());
            }
            far.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(request).unwrap()
        });
        let opened = open(Box::new(near), &AccessToken::new("secret"), 8000).await;
        let request = agent.await.unwrap();
        assert!(
            request.contains("X-Flames-Port: 8000\r\n") && request.contains("X-Flames-Control: secret\r\n")
        );
        opened
    }

    #[tokio::test]
    async fn what_follows_the_head_is_the_ports() {
        let mut stream =
            answered("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\nhello").await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hello");
    }

    #[tokio::test]
    async fn a_refusal_or_an_end_is_an_error() {
        for answer in
            ["HTTP/1.1 502 Bad Gateway\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 1", "x\r\n\r\n"]
        {
            assert_eq!(answered(answer).await.unwrap_err().kind(), ErrorKind::Unavailable, "{answer}");
        }
    }
}
