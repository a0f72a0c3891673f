//! One request on its way into a sandbox, and its answer on the way back.

use super::body::{Download, Upload};
use super::guard::TRAFFIC_HEADER;
use super::lines::Lines;
use crate::route;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use flames_core::activity::Work;
use flames_core::sandbox::record::Sandbox;
use flames_ingress::hop;
use flames_node::AGENT_PORT;
use http::header::{CONNECTION, HOST, HeaderName, HeaderValue, UPGRADE};
use http::uri::{PathAndQuery, Uri};
use http::{StatusCode, Version};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;

/// Opens the agent's control calls; nobody outside has one, and none is let through.
const CONTROL_HEADER: HeaderName = HeaderName::from_static("x-flames-control");
/// For the proxy alone.
const OWN_HEADERS: [HeaderName; 3] = [
    HeaderName::from_static(route::ID_HEADER),
    HeaderName::from_static(route::PORT_HEADER),
    HeaderName::from_static(TRAFFIC_HEADER),
];

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error("the request cannot be forwarded")]
    Head(#[source] http::Error),
    #[error("there is no connection")]
    Connect(#[source] flames_provider::Error),
    #[error("the sandbox broke the connection before it answered")]
    Sandbox(#[source] hyper::Error),
    #[error("the sandbox switched protocols unasked")]
    Switched,
}

impl Broken {
    /// Whether there was not even a connection.
    pub(super) fn is_closed_port(&self) -> bool {
        matches!(self, Self::Connect(_))
    }
}

/// Keeps `work` until the answer's body, or the tunnel, has ended.
pub(super) async fn forward(
    lines: &Lines,
    sandbox: &Sandbox,
    port: u16,
    mut request: Request,
    work: Option<Work>,
) -> Result<Response, Broken> {
    let wanted = hop::wanted_upgrade(request.headers());
    let client = wanted.is_some().then(|| hyper::upgrade::on(&mut request));
    let (parts, body) =
        towards_sandbox(request, wanted, mask(sandbox, port)).map_err(Broken::Head)?.into_parts();
    let (upload, upload_is_whole) = Upload::new(body);
    let request = http::Request::from_parts(parts, upload);
    let kept = lines.kept(&sandbox.run, port).await;
    let (mut response, connection) = lines.send(&sandbox.run, port, kept.as_deref(), request).await?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let client = client.ok_or(Broken::Switched)?;
        tokio::spawn(tunnel(client, hyper::upgrade::on(&mut response), work));
        return Ok(towards_client(response.map(|_| Body::empty())));
    }
    let flow = |body| Body::new(Download::new(body, upload_is_whole, connection, kept, work));
    Ok(towards_client(response.map(flow)))
}

/// The proxy's own request. The body flows.
fn towards_sandbox(
    request: Request,
    upgrade: Option<HeaderValue>,
    mask: Option<HeaderValue>,
) -> Result<Request, http::Error> {
    let asked = route::host(&request).ok().and_then(|host| HeaderValue::from_str(host).ok());
    let host = mask.or(asked);
    let (mut parts, body) = request.into_parts();
    hop::strip_hop_by_hop(&mut parts.headers);
    for name in OWN_HEADERS.iter().chain([&CONTROL_HEADER]) {
        parts.headers.remove(name);
    }
    if let Some(host) = host {
        parts.headers.insert(HOST, host);
    }
    if let Some(protocol) = upgrade {
        hop::set_upgrade(&mut parts.headers, protocol);
    }
    let path = parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    parts.uri = Uri::builder().path_and_query(path).build()?;
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    Ok(Request::from_parts(parts, body))
}

/// What the server in the sandbox sees as its host, if not what the client named.
fn mask(sandbox: &Sandbox, port: u16) -> Option<HeaderValue> {
    let mask = sandbox.entrance.host_mask.as_ref().filter(|_| port != AGENT_PORT)?;
    HeaderValue::from_str(&mask.replace("${PORT}", &port.to_string())).ok()
}

fn towards_client(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    let switched = parts.status == StatusCode::SWITCHING_PROTOCOLS;
    let protocol = parts.headers.get(UPGRADE).cloned().filter(|_| switched);
    let ends =
        parts.headers.get(CONNECTION).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"));
    hop::strip_hop_by_hop(&mut parts.headers);
    // It may have answered before it read everything: then the client's connection is not read to its end either.
    if ends {
        parts.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some(protocol) = protocol {
        hop::set_upgrade(&mut parts.headers, protocol);
    }
    parts.version = Version::HTTP_11;
    Response::from_parts(parts, body)
}

/// Carries bytes both ways until one side ends, or the sandbox does. How it ended concerns its two ends alone.
async fn tunnel(client: OnUpgrade, sandbox: OnUpgrade, _work: Option<Work>) {
    if let Ok((client, sandbox)) = tokio::try_join!(client, sandbox) {
        let _bytes = copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(sandbox)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forwarded_answer_says_that_the_connection_ends_if_its_server_said_so() {
        let told = |connection: &str| {
            let answer = Response::builder().header("connection", connection).header("x-hop", "1");
            let answer = towards_client(answer.body(Body::empty()).unwrap());
            answer.headers().get("connection").map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(told("Close").unwrap(), "close");
        assert_eq!(told("keep-alive, x-hop"), None);
    }

    #[test]
    fn a_forwarded_request_keeps_path_query_and_host_and_loses_what_is_the_proxys() {
        let request = Request::get("http://8000-iabc.x/a%2Fb?c=%20d")
            .header("x-flames-control", "secret")
            .header("e2b-sandbox-id", "iabc")
            .header("e2b-traffic-access-token", "t")
            .header("connection", "x-hop")
            .header("x-hop", "1")
            .header("x-access-token", "t")
            .body(Body::empty())
            .unwrap();
        let request = towards_sandbox(request, None, None).unwrap();
        assert_eq!(request.uri().path_and_query().unwrap(), "/a%2Fb?c=%20d");
        let names: Vec<_> = request.headers().keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["x-access-token", "host"]);
        assert_eq!(request.headers()["host"], "8000-iabc.x");
    }
}
