//! One request over HTTP/1 and its answer.
//!
//! The policy decided about the host that this request names. A second request of the same connection could name
//! another, so there is none: the server is told to close after its answer, and gets no byte of the client's after the
//! request's end. Where the end is only the chunks' last one tells, the server's own word for it is what counts: one that
//! is told to close must not look at what follows.

use flames_egress::{Body, RequestHead};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, copy, copy_bidirectional, sink};
use tokio::net::TcpStream;

/// How an answer begins whose server goes over to another protocol.
const SWITCHING: &[u8; 12] = b"HTTP/1.1 101";

/// Passes a request on and its answer back; `begun` is what came of the body with the head.
pub(super) async fn exchange(
    client: &mut TcpStream,
    server: &mut TcpStream,
    request: &RequestHead,
    begun: &[u8],
) -> io::Result<()> {
    server.write_all(&request.alone).await?;
    let mut body = request.body;
    if body == Body::WebSocket {
        if switches(client, server).await? {
            server.write_all(begun).await?;
            return copy_bidirectional(client, server).await.map(drop);
        }
        body = Body::Length(0);
    }
    let (from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let answer = async {
        copy(&mut from_server, &mut to_client).await?;
        to_client.shutdown().await
    };
    tokio::select! {
        answered = answer => answered,
        Err(error) = ask(begun.chain(from_client), &mut to_server, body) => Err(error),
    }
}

/// Sends the body, and nothing after it.
async fn ask(
    mut client: impl AsyncRead + Unpin,
    server: &mut (impl AsyncWriteExt + Unpin),
    body: Body,
) -> io::Result<()> {
    match body {
        Body::Length(length) => copy(&mut (&mut client).take(length), server).await?,
        Body::Chunked | Body::WebSocket => copy(&mut client, server).await?,
    };
    let mut more = [0];
    let _ = client.read(&mut more).await?;
    // Whether the client ends or goes on: a server that waits for another request waits for ever.
    server.shutdown().await?;
    copy(&mut client, &mut sink()).await.map(drop)
}

/// Whether the server goes over to another protocol; the beginning of its answer is passed on.
async fn switches(client: &mut TcpStream, server: &mut TcpStream) -> io::Result<bool> {
    let mut beginning = Vec::with_capacity(SWITCHING.len());
    let enough = SWITCHING.len() as u64;
    (&mut *server).take(enough).read_to_end(&mut beginning).await?;
    client.write_all(&beginning).await?;
    Ok(beginning == SWITCHING)
}
