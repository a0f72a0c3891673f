//! The name that a client presents in the clear: in a TLS ClientHello, or in the head of an HTTP/1 request.

use crate::DomainName;
use rustls::server::Acceptor;

/// The most that a client may send before it is clear whom it means.
pub const MAX_PEEK: usize = 16 * 1024;
/// The most header fields of a request that is looked at.
const MAX_HEADERS: usize = 128;

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

    /// The host that an HTTP/1 request is for. Each request of a connection has one of its own.
    pub fn of_request_head(received: &[u8]) -> Self {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(received) {
            Ok(httparse::Status::Complete(_)) => host(&request),
            Ok(httparse::Status::Partial) => incomplete(received),
            Err(error) => Self::Malformed(error.to_string()),
        }
    }
}

fn incomplete(received: &[u8]) -> ServerName {
    if received.len() < MAX_PEEK {
        return ServerName::Incomplete;
    }
    ServerName::Malformed(format!("no name within {MAX_PEEK} bytes"))
}

/// A server obeys the target of a request before its Host field: where both name a host they must be the same, and there
/// must be one Host field alone, or else the two ends could mean different ones.
fn host(request: &httparse::Request<'_, '_>) -> ServerName {
    let mut fields = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("host"));
    let field = fields.next().map(|header| header.value);
    if fields.next().is_some() {
        return ServerName::Malformed("several Host fields".to_owned());
    }
    let field = match field.map(str::from_utf8).transpose() {
        Ok(field) => field.map(|text| without_port(text.trim())),
        Err(_) => return ServerName::Malformed("a Host field that is no text".to_owned()),
    };
    let target = request.path.unwrap_or_default();
    match authority_of(target).map(without_port) {
        Some(named) if field.is_some_and(|field| !field.eq_ignore_ascii_case(named)) => {
            ServerName::Malformed("target and Host field differ".to_owned())
        }
        Some(host) => named(Some(host)),
        None if target.starts_with('/') || target == "*" => named(field.filter(|host| !host.is_empty())),
        None => ServerName::Malformed("a target that is no path".to_owned()), // CONNECT among them
    }
}

/// The host and port in a target that is a whole URL.
fn authority_of(target: &str) -> Option<&str> {
    let (_, rest) = target.split_once("://").filter(|(scheme, _)| !scheme.contains('/'))?;
    let authority = rest.split(['/', '?', '#']).next()?;
    Some(authority.rsplit_once('@').map_or(authority, |(_, host)| host))
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

fn named(host: Option<&str>) -> ServerName {
    let Some(host) = host else { return ServerName::Unnamed };
    if host.starts_with('[') || host.parse::<std::net::IpAddr>().is_ok() {
        return ServerName::Unnamed;
    }
    match DomainName::parse(host) {
        Ok(name) => ServerName::Named(name),
        Err(error) => ServerName::Malformed(error.problem.to_owned()),
    }
}
