//! One request on its way to a target and its answer on the way back.

use crate::answer;
use crate::body::{Answer, Forwarded, Upload};
use crate::dial::Dial;
use crate::exchange::{Exchange, Late, UploadState};
use crate::pool::Connection;
use crate::serve::{Place, Server, Visitor};
use crate::table::Target;
use crate::tunnel;
use flames_ingress::hop::{self, Client};
use hyper::body::{Body, Incoming};
use hyper::header::{HOST, HeaderMap, HeaderValue};
use hyper::http::uri::PathAndQuery;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use hyper_util::rt::TokioIo;
use std::io;
use std::sync::Arc;

/// Why a target gave no answer.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("the upstream cannot be reached: {0}")]
    Dial(#[source] io::Error),
    #[error("the upstream broke the connection before it answered")]
    Broken(#[source] hyper::Error),
}

/// A client that wants to switch protocols, and the place that its tunnel will take.
struct Switch {
    client: OnUpgrade,
    seat: Arc<Place>,
}

/// Serves one request of a client.
pub(crate) async fn serve<D: Dial>(
    server: Arc<Server<D>>,
    visitor: Visitor,
    request: Request<Incoming>,
) -> Response<Answer> {
    let host = match host_of(&request) {
        Ok(host) => host,
        Err(message) => return answer::bad_request(message),
    };
    let name = without_port(host.to_str().unwrap_or_default());
    let target = server.table.load().find(name, request.uri().path()).cloned();
    match target {
        Some(target) => forward(&server, target, visitor, host, request).await,
        None => answer::unknown_host(name),
    }
}

async fn forward<D: Dial>(
    server: &Arc<Server<D>>,
    target: Arc<Target>,
    visitor: Visitor,
    host: HeaderValue,
    mut request: Request<Incoming>,
) -> Response<Answer> {
    if request.body().size_hint().lower() > target.limits.max_body_bytes {
        return too_large(&target);
    }
    let upgrade = hop::wanted_upgrade(request.headers());
    let switch =
        upgrade.is_some().then(|| Switch { client: hyper::upgrade::on(&mut request), seat: visitor.seat });
    let exchange = Arc::new(Exchange::new(target.limits));
    let mut request = towards(&target, visitor.client, host, request, &exchange);
    if let Some(protocol) = upgrade {
        hop::set_upgrade(request.headers_mut(), protocol);
    }
    match exchange.bound(send(server, &target, request)).await {
        Ok(Ok((response, connection))) => back(server, &target, exchange, switch, response, connection),
        Ok(Err(_)) if exchange.upload() == UploadState::TooLarge => too_large(&target),
        Ok(Err(fault)) => answer::failed(StatusCode::BAD_GATEWAY, &target, &fault.to_string()),
        Err(Late::Client) => {
            answer::failed(StatusCode::REQUEST_TIMEOUT, &target, "the request's body stopped")
        }
        Err(Late::Upstream) => {
            answer::failed(StatusCode::GATEWAY_TIMEOUT, &target, "the upstream did not answer in time")
        }
    }
}

/// The proxy's own request.
fn towards(
    target: &Target,
    client: Client,
    host: HeaderValue,
    request: Request<Incoming>,
    exchange: &Arc<Exchange>,
) -> Request<Upload> {
    let (mut parts, body) = request.into_parts();
    hop::towards_upstream(&mut parts.headers, client, &host);
    parts.headers.insert(HOST, host);
    parts.uri = origin_form(parts.uri);
    parts.version = Version::HTTP_11;
    Request::from_parts(parts, Upload::new(body, target.limits.max_body_bytes, Arc::clone(exchange)))
}

/// Sends on a kept connection if one stands, else on a new one.
async fn send<D: Dial>(
    server: &Server<D>,
    target: &Target,
    mut request: Request<Upload>,
) -> Result<(Response<Incoming>, Connection), Fault> {
    while let Some(mut connection) = target.pool.take() {
        if connection.ready().await.is_err() {
            continue;
        }
        match connection.try_send_request(request).await {
            Ok(response) => return Ok((response, connection)),
            // Given back means untouched: the kept connection had closed meanwhile.
            Err(mut refused) => match refused.take_message() {
                Some(untouched) => request = untouched,
                None => return Err(Fault::Broken(refused.into_error())),
            },
        }
    }
    let mut connection = connect(server, target).await?;
    let response = connection.send_request(request).await.map_err(Fault::Broken)?;
    Ok((response, connection))
}

async fn connect<D: Dial>(server: &Server<D>, target: &Target) -> Result<Connection, Fault> {
    let dialled =
        tokio::time::timeout(server.config.connect_timeout, server.dial.dial(&target.upstream)).await;
    let stream = dialled.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(Fault::Dial)?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (sender, connection) = handshake.map_err(Fault::Broken)?;
    // Ends when `sender` is dropped or the upstream closes; whoever waits on `sender` learns how.
    tokio::spawn(connection.with_upgrades());
    Ok(sender)
}

/// The answer for the client: a stream, or the start of a tunnel.
fn back<D: Dial>(
    server: &Arc<Server<D>>,
    target: &Arc<Target>,
    exchange: Arc<Exchange>,
    switch: Option<Switch>,
    mut response: Response<Incoming>,
    connection: Connection,
) -> Response<Answer> {
    let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    match switch {
        Some(Switch { client, seat }) if switched => {
            let upstream = hyper::upgrade::on(&mut response);
            let (exchange, open) = (Arc::clone(&exchange), Arc::clone(&target.tunnels));
            server.spawn(async move {
                tunnel::run(client, upstream, exchange, open).await;
                drop(seat);
            });
        }
        None if switched => {
            return answer::failed(
                StatusCode::BAD_GATEWAY,
                target,
                "the upstream switched protocols unasked",
            );
        }
        _ => {}
    }
    let (mut parts, body) = response.into_parts();
    let protocol = parts.headers.get("upgrade").cloned().filter(|_| switched);
    hop::strip_hop_by_hop(&mut parts.headers);
    if let Some(protocol) = protocol {
        hop::set_upgrade(&mut parts.headers, protocol);
    }
    parts.version = Version::HTTP_11;
    let pool = Arc::clone(&target.pool);
    Response::from_parts(parts, Answer::Forwarded(Box::new(Forwarded::new(body, exchange, connection, pool))))
}

fn too_large(target: &Target) -> Response<Answer> {
    let message = format!("the body is larger than the route's {} bytes", target.limits.max_body_bytes);
    answer::failed(StatusCode::PAYLOAD_TOO_LARGE, target, &message)
}

/// The host a request is for: that of an absolute target, else the one `Host` header.
fn host_of(request: &Request<Incoming>) -> Result<HeaderValue, &'static str> {
    if request.method() == Method::CONNECT {
        return Err("CONNECT is not served");
    }
    match request.uri().authority() {
        Some(authority) => {
            HeaderValue::try_from(authority.as_str()).map_err(|_| "the target's host is malformed")
        }
        None => single_host(request.headers()),
    }
}

fn single_host(headers: &HeaderMap) -> Result<HeaderValue, &'static str> {
    let mut hosts = headers.get_all(HOST).into_iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => Ok(host.clone()),
        (None, _) => Err("the Host header is missing"),
        (Some(_), Some(_)) => Err("there is more than one Host header"),
    }
}

/// `a.x:80` and `[::1]:80` without their ports.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

/// `*` of an `OPTIONS *` is kept.
fn origin_form(uri: Uri) -> Uri {
    let path = uri.into_parts().path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
    Uri::from(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_cut_and_an_address_is_not_torn() {
        for (host, name) in
            [("a.x:80", "a.x"), ("a.x", "a.x"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]"), ("a:b", "a:b")]
        {
            assert_eq!(without_port(host), name);
        }
    }

    #[test]
    fn an_absolute_target_becomes_its_path() {
        for (uri, path) in [("http://a.x/p?q", "/p?q"), ("http://a.x", "/"), ("/p", "/p"), ("*", "*")] {
            assert_eq!(origin_form(uri.parse().unwrap()).to_string(), path);
        }
    }

    #[test]
    fn a_request_has_exactly_one_host() {
        let mut headers = HeaderMap::new();
        assert!(single_host(&headers).is_err());
        headers.append(HOST, HeaderValue::from_static("a.x"));
        assert_eq!(single_host(&headers).unwrap(), "a.x");
        headers.append(HOST, HeaderValue::from_static("b.x"));
        assert!(single_host(&headers).is_err());
    }
}
