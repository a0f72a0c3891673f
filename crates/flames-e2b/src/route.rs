//! Whom a request is for. Pure functions over its head.
//!
//! | precedence | form |
//! |---|---|
//! | 1 | host `<port>-<id>[-anything].<domain>` |
//! | 2 | headers `E2b-Sandbox-Id` and `E2b-Sandbox-Port`, at any other host |
//! | 3 | `/files` with a `signature`: the sandbox is the one whose token made it |
//! | 4 | the API |

use axum::Json;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use flames_core::SandboxId;
use serde_json::json;

/// Names the sandbox.
pub(crate) const ID_HEADER: &str = "e2b-sandbox-id";
/// Names the port in it.
pub(crate) const PORT_HEADER: &str = "e2b-sandbox-port";

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A REST call.
    Api,
    /// A port of a sandbox.
    Sandbox {
        /// Which sandbox.
        id: SandboxId,
        /// Which port of it.
        port: u16,
    },
    /// A file of the sandbox whose token made the signature.
    SignedFile,
}

/// A request that names a sandbox in a way that makes no sense. Answered 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misrouted {
    /// One header of two, or one twice.
    #[error("the headers E2b-Sandbox-Id and E2b-Sandbox-Port must be sent together, once each")]
    HalfOfHeaders,
    /// Not a port.
    #[error("Invalid port in sandbox url")]
    BadPort,
    /// Not a sandbox id.
    #[error("Invalid sandbox ID")]
    BadId,
    /// There must be exactly one host.
    #[error("Invalid host")]
    BadHost,
}

/// Whom a request is for; `domain` is in lower case and without a port.
///
/// # Errors
/// [`Misrouted`] for a half, a doubled or an impossible name.
pub fn destination<B>(request: &Request<B>, domain: &str) -> Result<Destination, Misrouted> {
    if request.method() == Method::CONNECT {
        return Err(Misrouted::BadHost);
    }
    let host = host(request)?;
    if let Some(label) = label_below(without_port(host), domain) {
        // `api.<domain>` and the like are the API's.
        if label.as_bytes().first().is_some_and(u8::is_ascii_digit) {
            return from_label(&label);
        }
    }
    if let Some(destination) = from_headers(request.headers())? {
        return Ok(destination);
    }
    let signed = request.uri().path() == "/files" && has_signature(request.uri().query());
    Ok(if signed { Destination::SignedFile } else { Destination::Api })
}

/// The host that the client named, in whichever place HTTP has it.
pub(crate) fn host<B>(request: &Request<B>) -> Result<&str, Misrouted> {
    if let Some(authority) = request.uri().authority() {
        return Ok(authority.as_str());
    }
    let mut hosts = request.headers().get_all(header::HOST).into_iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().map_err(|_| Misrouted::BadHost),
        _ => Err(Misrouted::BadHost),
    }
}

/// `a.x:80` and `[::1]:80` without their ports.
pub(crate) fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

/// The one label that stands before the domain, in lower case.
fn label_below(host: &str, domain: &str) -> Option<String> {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let label = host.strip_suffix(domain)?.strip_suffix('.')?;
    (!label.is_empty() && !label.contains('.')).then(|| label.to_owned())
}

/// `<port>-<id>[-anything]`.
fn from_label(label: &str) -> Result<Destination, Misrouted> {
    let mut parts = label.split('-');
    let port = parse_port(parts.next().unwrap_or_default())?;
    let id = parse_id(parts.next().ok_or(Misrouted::BadHost)?)?;
    Ok(Destination::Sandbox { id, port })
}

fn from_headers(headers: &HeaderMap) -> Result<Option<Destination>, Misrouted> {
    match (only(headers, ID_HEADER)?, only(headers, PORT_HEADER)?) {
        (None, None) => Ok(None),
        (Some(id), Some(port)) => {
            let id = parse_id(id.split('-').next().unwrap_or_default())?;
            Ok(Some(Destination::Sandbox { id, port: parse_port(port)? }))
        }
        _ => Err(Misrouted::HalfOfHeaders),
    }
}

fn only<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Misrouted> {
    let mut values = headers.get_all(name).into_iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().map(Some).map_err(|_| Misrouted::HalfOfHeaders),
        (None, _) => Ok(None),
        _ => Err(Misrouted::HalfOfHeaders),
    }
}

fn parse_port(text: &str) -> Result<u16, Misrouted> {
    // `parse` alone takes a sign.
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let port = text.parse().ok().filter(|port| digits && *port > 0);
    port.ok_or(Misrouted::BadPort)
}

fn parse_id(text: &str) -> Result<SandboxId, Misrouted> {
    SandboxId::parse(text).map_err(|_| Misrouted::BadId)
}

fn has_signature(query: Option<&str>) -> bool {
    let pairs = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    pairs.into_iter().any(|(name, _)| name == "signature")
}

impl IntoResponse for Misrouted {
    fn into_response(self) -> Response {
        let status = StatusCode::BAD_REQUEST;
        let told = json!({ "code": status.as_u16(), "message": self.to_string() });
        (status, Json(told)).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(uri: &str, headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::get(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    fn to(uri: &str, headers: &[(&str, &str)]) -> Result<Destination, Misrouted> {
        destination(&request(uri, headers), "box.example")
    }

    fn sandbox(id: &str, port: u16) -> Result<Destination, Misrouted> {
        Ok(Destination::Sandbox { id: SandboxId::parse(id).unwrap(), port })
    }

    #[test]
    fn both_headers_name_a_sandbox_and_one_alone_is_refused() {
        let host = ("host", "127.0.0.1:7072");
        let (id, port) = (("E2b-Sandbox-Id", "iabc-6532622b"), ("E2b-Sandbox-Port", "49983"));
        assert_eq!(to("/health", &[host, id, port]), sandbox("iabc", 49983));
        assert_eq!(to("/health", &[host, id]), Err(Misrouted::HalfOfHeaders));
        assert_eq!(to("/health", &[host, port]), Err(Misrouted::HalfOfHeaders));
        assert_eq!(to("/health", &[host, id, id, port]), Err(Misrouted::HalfOfHeaders));
        assert_eq!(to("/health", &[host]), Ok(Destination::Api));
    }

    #[test]
    fn the_host_names_a_sandbox_in_any_case_with_any_suffix_and_before_headers() {
        for host in ["8000-iabc.box.example", "8000-IABC.Box.Example:7072", "8000-iabc-cafe.box.example."] {
            assert_eq!(to("/", &[("host", host)]), sandbox("iabc", 8000), "{host}");
        }
        let other = [("E2b-Sandbox-Id", "iother"), ("E2b-Sandbox-Port", "1")];
        let host = [("host", "8000-iabc.box.example")];
        assert_eq!(to("/", &[&host[..], &other[..]].concat()), sandbox("iabc", 8000));
        assert_eq!(to("http://8000-iabc.box.example/x", &[]), sandbox("iabc", 8000));
    }

    #[test]
    fn what_is_not_below_the_domain_is_the_apis() {
        for host in ["box.example", "api.box.example", "8000-iabc.a.box.example", "8000-iabc.example", "x"] {
            assert_eq!(to("/sandboxes", &[("host", host)]), Ok(Destination::Api), "{host}");
        }
    }

    #[test]
    fn ports_and_ids_that_make_no_sense_are_refused() {
        let host = ("host", "localhost");
        for port in ["", "0", "65536", "+1", "-1", "1 ", "x", "１"] {
            let headers = [host, ("E2b-Sandbox-Id", "iabc"), ("E2b-Sandbox-Port", port)];
            assert!(
                matches!(to("/", &headers), Err(Misrouted::BadPort | Misrouted::HalfOfHeaders)),
                "{port:?}"
            );
        }
        for id in ["", "../x", "I", "a.b", "a/b"] {
            let headers = [host, ("E2b-Sandbox-Id", id), ("E2b-Sandbox-Port", "1")];
            assert_eq!(to("/", &headers), Err(Misrouted::BadId), "{id:?}");
        }
        for name in ["99999-iabc.box.example", "80.box.example", "80-.box.example", "8x-iabc.box.example"] {
            assert!(to("/", &[("host", name)]).is_err(), "{name}");
        }
        assert_eq!(to("/", &[]), Err(Misrouted::BadHost));
        assert_eq!(to("/", &[("host", "a"), ("host", "b")]), Err(Misrouted::BadHost));
    }

    #[test]
    fn a_signature_without_a_sandbox_is_looked_for() {
        let host = ("host", "localhost");
        assert_eq!(to("/files?path=a&signature=v1_x", &[host]), Ok(Destination::SignedFile));
        assert_eq!(to("/files?path=signature", &[host]), Ok(Destination::Api));
        assert_eq!(to("/sandboxes?signature=v1_x", &[host]), Ok(Destination::Api));
    }

    /// `\t` and `\xNN` as the bytes that they stand for.
    fn bytes(text: &str) -> Vec<u8> {
        let mut parts = text.split('\\');
        let mut bytes = parts.next().unwrap().as_bytes().to_vec();
        for part in parts {
            let (byte, rest) = match part.strip_prefix('x') {
                Some(hex) => (u8::from_str_radix(&hex[..2], 16).unwrap(), &hex[2..]),
                None => (b'\t', part.strip_prefix('t').unwrap()),
            };
            bytes.push(byte);
            bytes.extend(rest.as_bytes());
        }
        bytes
    }

    fn outcome(asked: &str) -> String {
        let mut parts = asked.split(" | ");
        let mut request = Request::get(parts.next().unwrap());
        for header in parts {
            let (name, value) = header.split_once(':').unwrap();
            request = request.header(name, bytes(value.strip_prefix(' ').unwrap_or(value)));
        }
        match destination(&request.body(()).unwrap(), "box.example") {
            Ok(Destination::Api) => "api".to_owned(),
            Ok(Destination::SignedFile) => "signed".to_owned(),
            Ok(Destination::Sandbox { id, port }) => format!("{id}:{port}"),
            Err(Misrouted::HalfOfHeaders) => "half".to_owned(),
            Err(Misrouted::BadPort) => "bad port".to_owned(),
            Err(Misrouted::BadId) => "bad id".to_owned(),
            Err(Misrouted::BadHost) => "bad host".to_owned(),
        }
    }

    #[test]
    fn requests_of_the_corpus_go_where_they_always_went() {
        let corpus = include_str!("../corpus/routes.txt");
        for line in corpus.lines().filter(|line| !line.starts_with('#')) {
            let (asked, expected) = line.rsplit_once(" => ").unwrap();
            assert_eq!(outcome(asked), expected, "{asked}");
        }
    }

    proptest! {
        #[test]
        fn any_host_and_headers_get_an_answer(
            host in "[ -~]{0,60}", id in "[ -~]{0,30}", port in "[ -~]{0,8}"
        ) {
            let request = request("/", &[("host", &host), ("e2b-sandbox-id", &id), ("e2b-sandbox-port", &port)]);
            if let Ok(Destination::Sandbox { port, .. }) = destination(&request, "box.example") {
                prop_assert!(port > 0);
            }
        }

        #[test]
        fn a_host_that_is_made_is_understood(port in 1_u16.., id in "i[a-z0-9]{20}") {
            let host = format!("{port}-{id}.box.example");
            prop_assert_eq!(to("/", &[("host", &host)]), sandbox(&id, port));
        }
    }
}
