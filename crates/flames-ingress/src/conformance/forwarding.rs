//! Promises about what passes from one hop to the next.

use super::client::{get, open, raw, send, with_body};
use super::upstream::TestUpstream;
use super::{Fixture, route};
use bytes::Bytes;
use http::{HeaderValue, StatusCode};

/// Neither the usual ones nor those that `Connection` names, in both directions.
pub async fn hop_by_hop_headers_stay_on_their_hop(fixture: Fixture) {
    let Some(entrance) = fixture.entrance() else { return };
    let a = TestUpstream::start("a").await;
    fixture.apply([route("a", "a.example.com", a.address)]).await;
    let mut request = get("a.example.com", "/");
    let sent = [
        ("connection", "keep-alive, X-Own-Hop"),
        ("x-own-hop", "secret"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("te", "deflate"),
        ("x-end-to-end", "kept"),
    ];
    for (name, value) in sent {
        request.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    let seen = send(entrance, request).await.json();
    for name in ["x-own-hop", "keep-alive", "proxy-connection", "te"] {
        assert!(seen["headers"][name].is_null(), "{name} reached the upstream: {seen}");
    }
    assert_eq!(seen["headers"]["x-end-to-end"][0], "kept");

    let answer = send(entrance, get("a.example.com", "/hop")).await;
    assert_eq!(answer.headers["x-end-to-end"], "kept");
    let passed = ["x-own-hop", "proxy-connection"].iter().find(|name| answer.headers.contains_key(**name));
    assert_eq!(passed, None, "a hop-by-hop header reached the client");
    assert!(answer.headers.get("keep-alive").is_none_or(|value| value != "timeout=77"));
}

/// `X-Forwarded-For`, `-Proto`, `-Host` and `Via` are the provider's word, not the client's.
pub async fn the_upstream_learns_the_client_and_forged_headers_do_not_pass(fixture: Fixture) {
    let Some(entrance) = fixture.entrance() else { return };
    let a = TestUpstream::start("a").await;
    fixture.apply([route("a", "a.example.com", a.address)]).await;
    let mut request = get("a.example.com", "/");
    let forged =
        [("x-forwarded-for", "6.6.6.6"), ("x-forwarded-proto", "gopher"), ("x-forwarded-host", "evil.com")];
    for (name, value) in forged {
        request.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    let seen = send(entrance, request).await.json();
    assert_eq!(seen["headers"]["x-forwarded-for"], serde_json::json!(["127.0.0.1"]));
    assert_eq!(seen["headers"]["x-forwarded-proto"], serde_json::json!(["http"]));
    assert_eq!(seen["headers"]["x-forwarded-host"], serde_json::json!(["a.example.com"]));
    assert_eq!(seen["headers"]["host"], serde_json::json!(["a.example.com"]));
    assert!(seen["headers"]["via"][0].as_str().is_some_and(|via| via.starts_with("1.1 ")), "{seen}");
}

/// The provider reads the path to choose a route and leaves it as it is.
pub async fn method_path_query_and_body_pass_unchanged(fixture: Fixture) {
    let Some(entrance) = fixture.entrance() else { return };
    let a = TestUpstream::start("a").await;
    fixture.apply([route("a", "a.example.com", a.address)]).await;
    let path = "/a%20b/c?x=%2F&y=1&empty";
    for method in ["PUT", "DELETE", "PATCH", "PROPFIND"] {
        let body = Bytes::from_static(b"hello");
        let seen = send(entrance, with_body(method, "a.example.com", path, body)).await.json();
        assert_eq!(
            (&seen["method"], &seen["path"], &seen["body"]),
            (&method.into(), &path.into(), &"hello".into())
        );
    }
}

/// `HEAD`, 204 and 304 have no body and do not make the next answer unreadable.
pub async fn answers_without_a_body_keep_their_framing(fixture: Fixture) {
    let Some(entrance) = fixture.entrance() else { return };
    let a = TestUpstream::start("a").await;
    fixture.apply([route("a", "a.example.com", a.address)]).await;
    let head = send(entrance, with_body("HEAD", "a.example.com", "/", Bytes::new())).await;
    assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
    let pairs = [("/no-content", StatusCode::NO_CONTENT), ("/not-modified", StatusCode::NOT_MODIFIED)];
    for (path, status) in pairs {
        let answer = send(entrance, get("a.example.com", path)).await;
        assert_eq!((answer.status, answer.body.len()), (status, 0));
    }
    assert_eq!(open(entrance, get("a.example.com", "/")).await.status(), StatusCode::OK);
}

/// Request smuggling: what the provider takes for one request, the upstream takes for one.
pub async fn two_framings_of_one_request_are_refused_or_made_one(fixture: Fixture) {
    let Some(entrance) = fixture.entrance() else { return };
    let a = TestUpstream::start("a").await;
    fixture.apply([route("a", "a.example.com", a.address)]).await;
    let smuggled = "POST / HTTP/1.1\r\nHost: a.example.com\r\nConnection: close\r\nContent-Length: 60\r\n\
                    Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a.example.com\r\n\r\n";
    let answer = raw(entrance, smuggled.as_bytes()).await;
    assert!(!answer.contains("smuggled"), "{answer}");
    assert!(a.requests() <= 1, "one request became {}", a.requests());
    let twice = "POST / HTTP/1.1\r\nHost: a.example.com\r\nConnection: close\r\nContent-Length: 5\r\n\
                 Content-Length: 6\r\n\r\nhello!";
    let before = a.requests();
    assert!(raw(entrance, twice.as_bytes()).await.starts_with("HTTP/1.1 400"));
    assert_eq!(a.requests(), before);
}
