//! What passes from one hop to the next (RFC 9110, section 7.6), and what a proxy adds. Pure functions, for
//! every proxy of this house.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use std::net::IpAddr;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Of one connection, whatever `Connection` says.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Who asks, as the listener saw it.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// Where the connection comes from.
    pub address: IpAddr,
    /// `http` or `https`.
    pub scheme: &'static str,
}

/// The protocol a request wants to switch to. `h2c` is none: it would carry requests past the routes.
pub fn wanted_upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let upgrade = headers.get(header::UPGRADE)?;
    let asks = connection_tokens(headers).any(|token| token.eq_ignore_ascii_case("upgrade"));
    let is_h2c = upgrade.to_str().is_ok_and(|protocol| protocol.trim().eq_ignore_ascii_case("h2c"));
    (asks && !is_h2c).then(|| upgrade.clone())
}

/// Removes what belongs to the hop it came from.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = connection_tokens(headers).filter_map(|token| token.parse().ok()).collect();
    for name in named.iter().filter(|name| !is_end_to_end(name)) {
        headers.remove(name);
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Makes a client's headers the proxy's own request. `X-Forwarded-*` of a client are replaced: nobody in
/// front of this proxy is trusted.
pub fn towards_upstream(headers: &mut HeaderMap, client: Client, host: &HeaderValue) {
    let wants_trailers = headers.get(header::TE).is_some_and(|te| te == "trailers");
    strip_hop_by_hop(headers);
    if wants_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if let Ok(address) = HeaderValue::try_from(client.address.to_canonical().to_string()) {
        headers.insert(FORWARDED_FOR, address);
    }
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static(client.scheme));
    headers.insert(FORWARDED_HOST, host.clone());
    headers.append(header::VIA, HeaderValue::from_static("1.1 flames"));
}

/// Asks for (or confirms) a switch on this hop.
pub fn set_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, protocol);
}

fn connection_tokens(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(header::CONNECTION).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

/// `Connection: host` must not make the proxy forget where a request goes or how long its body is.
fn is_end_to_end(name: &HeaderName) -> bool {
    [header::HOST, header::CONTENT_LENGTH, header::VIA, FORWARDED_FOR, FORWARDED_PROTO, FORWARDED_HOST]
        .contains(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn headers_that_connection_names_go_and_the_message_stays_readable() {
        let mut headers =
            map(&[("connection", "close, X-A ,host,content-length"), ("x-a", "1"), ("x-b", "2")]);
        headers.extend(map(&[("host", "h"), ("content-length", "3"), ("transfer-encoding", "chunked")]));
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers, map(&[("x-b", "2"), ("host", "h"), ("content-length", "3")]));
    }

    #[test]
    fn only_a_wanted_switch_other_than_h2c_is_passed_on() {
        assert!(
            wanted_upgrade(&map(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")]))
                .is_some()
        );
        assert!(wanted_upgrade(&map(&[("upgrade", "websocket")])).is_none());
        assert!(wanted_upgrade(&map(&[("connection", "upgrade"), ("upgrade", "H2C")])).is_none());
    }

    #[test]
    fn via_is_extended_and_forged_addresses_are_replaced() {
        let mut headers = map(&[("via", "1.0 before"), ("x-forwarded-for", "6.6.6.6"), ("te", "trailers")]);
        headers.append("x-forwarded-for", HeaderValue::from_static("7.7.7.7"));
        let client = Client { address: "::ffff:10.0.0.9".parse().unwrap(), scheme: "https" };
        towards_upstream(&mut headers, client, &HeaderValue::from_static("a.x"));
        let via: Vec<_> = headers.get_all("via").iter().collect();
        assert_eq!(via, ["1.0 before", "1.1 flames"]);
        let for_: Vec<_> = headers.get_all("x-forwarded-for").iter().collect();
        assert_eq!(for_, ["10.0.0.9"]);
        assert_eq!(
            (&headers["x-forwarded-proto"], &headers["te"]),
            (&"https".parse().unwrap(), &"trailers".parse().unwrap())
        );
    }
}
