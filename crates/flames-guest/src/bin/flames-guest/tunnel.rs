//! Connections to what listens on the guest's loopback alone: the node asks, and its own connection becomes one.

use crate::http::{Answer, Failure, header, with_status};
use flames_guest::control::{PORT_HEADER, TUNNEL_PROTOCOL};
use hyper::StatusCode;
use hyper::body::Bytes;
use hyper::header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncWriteExt as _, copy_bidirectional};
use tokio::net::TcpStream;

/// The inner end of a tunnel, on its way from the call to the connection that it came on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inner(Arc<Mutex<Option<TcpStream>>>);

impl Inner {
    pub(crate) fn take(&self) -> Option<TcpStream> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Takes over what an answer carries.
    pub(crate) fn take_from(&self, answer: &mut Answer) {
        if let Some(stream) = answer.extensions_mut().remove::<Self>().and_then(|inner| inner.take()) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream);
        }
    }
}

/// Connects, and answers that from now on bytes are carried.
pub(crate) async fn open(headers: &HeaderMap) -> Result<Answer, Failure> {
    let port = header(headers, PORT_HEADER).and_then(|port| port.parse().ok()).filter(|port| *port > 0);
    let port: u16 = port.ok_or_else(|| Failure::http(StatusCode::BAD_REQUEST, "no port is named"))?;
    let refused = |error: io::Error| Failure::http(StatusCode::BAD_GATEWAY, format!("port {port}: {error}"));
    let stream = connect(port).await.map_err(refused)?;
    let mut answer = with_status(StatusCode::SWITCHING_PROTOCOLS);
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    answer.headers_mut().insert(UPGRADE, HeaderValue::from_static(TUNNEL_PROTOCOL));
    answer.extensions_mut().insert(Inner(Arc::new(Mutex::new(Some(stream)))));
    Ok(answer)
}

async fn connect(port: u16) -> io::Result<TcpStream> {
    let addresses = [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), (Ipv6Addr::LOCALHOST, port).into()];
    let stream = TcpStream::connect(&addresses[..]).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Carries bytes both ways until one side ends. `early` came with the call. How it ended concerns its ends alone.
pub(crate) async fn carry(mut outer: TcpStream, early: Bytes, mut inner: TcpStream) {
    if inner.write_all(&early).await.is_ok() {
        let _bytes = copy_bidirectional(&mut outer, &mut inner).await;
    }
}
