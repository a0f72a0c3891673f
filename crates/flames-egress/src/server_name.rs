//! The name that a client presents in the clear in a TLS ClientHello.

use crate::DomainName;
use rustls::server::Acceptor;

/// The most that a client may send before it is clear whom it means.
pub const MAX_PEEK: usize = 16 * 1024;

/// What the first bytes of a connection say about whom the client means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerName {
    /// Not enough bytes to tell yet; there are fewer than [`MAX_PEEK`].
    Incomplete,
    /// This name.
    Named(DomainName),
    /// The bytes are what they should be, and name nobody, or an address.
    Unnamed,
    /// They are not what they should be: for people, why.
    Malformed(String),
}

impl ServerName {
    /// The server name indication of a TLS ClientHello.
    pub fn of_client_hello(received: &[u8]) -> Self {
        let mut acceptor = Acceptor::default();
        let mut rest = received;
        loop {
            // The reader is memory: an error or a zero means that the acceptor's buffer is full.
            let read = acceptor.read_tls(&mut rest).unwrap_or_default();
            match acceptor.accept() {
                Ok(Some(accepted)) => return named(accepted.client_hello().server_name()),
                Ok(None) if rest.is_empty() => return incomplete(received),
                Ok(None) if read == 0 => return Self::Malformed("the ClientHello is too long".to_owned()),
                Ok(None) => {}
                Err((error, _)) => return Self::Malformed(error.to_string()),
            }
        }
    }
}

fn incomplete(received: &[u8]) -> ServerName {
    if received.len() < MAX_PEEK {
        return ServerName::Incomplete;
    }
    ServerName::Malformed(format!("no name within {MAX_PEEK} bytes"))
}

pub(crate) fn named(host: Option<&str>) -> ServerName {
    let Some(host) = host else { return ServerName::Unnamed };
    if host.starts_with('[') || host.parse::<std::net::IpAddr>().is_ok() {
        return ServerName::Unnamed;
    }
    match DomainName::parse(host) {
        Ok(name) => ServerName::Named(name),
        Err(error) => ServerName::Malformed(error.problem.to_owned()),
    }
}
