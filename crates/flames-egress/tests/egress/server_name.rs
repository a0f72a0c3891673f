//! The name in a client's first bytes is found, and nothing a client sends confuses it.

use flames_egress::{Body, DomainName, MAX_PEEK, RequestHead, ServerName};
use proptest::prelude::*;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use std::sync::Arc;

/// What a real client sends first.
fn client_hello(server: &str) -> Vec<u8> {
    let config = ClientConfig::builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    let mut client = ClientConnection::new(Arc::new(config), server.to_owned().try_into().unwrap()).unwrap();
    let mut sent = Vec::new();
    client.write_tls(&mut sent).unwrap();
    sent
}

fn name(text: &str) -> ServerName {
    ServerName::Named(DomainName::parse(text).unwrap())
}

/// What the head of a request says.
fn of_request_head(received: &[u8]) -> ServerName {
    match RequestHead::read(received) {
        Ok(None) => ServerName::Incomplete,
        Ok(Some(head)) => head.name.map_or(ServerName::Unnamed, ServerName::Named),
        Err(why) => ServerName::Malformed(why),
    }
}

/// The same handshake in records of at most `size` bytes each.
fn in_records_of(size: usize, hello: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in hello[5..].chunks(size) {
        out.extend_from_slice(&hello[..3]);
        out.extend_from_slice(&u16::try_from(part.len()).unwrap().to_be_bytes());
        out.extend_from_slice(part);
    }
    out
}

#[test]
fn a_client_hello_names_its_server_however_it_is_cut() {
    let hello = client_hello("API.example.com");
    assert_eq!(ServerName::of_client_hello(&hello), name("api.example.com"));
    assert_eq!(ServerName::of_client_hello(&in_records_of(64, &hello)), name("api.example.com"));
    for length in 0..hello.len() {
        assert_eq!(ServerName::of_client_hello(&hello[..length]), ServerName::Incomplete, "{length}");
    }
    let more = [hello.as_slice(), &[0x17, 3, 3, 0, 1, 0]].concat();
    assert_eq!(ServerName::of_client_hello(&more), name("api.example.com"));
}

#[test]
fn a_client_hello_without_a_name_names_nobody() {
    assert_eq!(ServerName::of_client_hello(&client_hello("203.0.113.7")), ServerName::Unnamed);
}

#[test]
fn what_is_no_client_hello_is_told() {
    for bytes in [b"GET / HTTP/1.1\r\n\r\n".as_slice(), b"SSH-2.0-x\r\n", &[0x16, 3, 1, 0, 0], &[0xff; 600]] {
        assert!(matches!(ServerName::of_client_hello(bytes), ServerName::Malformed(_)), "{bytes:?}");
    }
}

#[test]
fn a_request_names_its_host_in_every_legal_form() {
    for head in [
        "GET / HTTP/1.1\r\nHost: api.example.com\r\n\r\n",
        "GET /x?y=http://evil.test/ HTTP/1.1\r\nhost:  API.Example.com:80 \r\n\r\n",
        "POST http://api.example.com/x HTTP/1.1\r\nHost: api.example.com\r\n\r\nbody",
        "GET http://user@api.example.com:80 HTTP/1.0\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: api.example.com\r\n\r\n",
    ] {
        assert_eq!(of_request_head(head.as_bytes()), name("api.example.com"), "{head}");
    }
    for head in [
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: 203.0.113.7:80\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n\r\n",
    ] {
        assert_eq!(of_request_head(head.as_bytes()), ServerName::Unnamed, "{head}");
    }
}

#[test]
fn a_request_that_could_mean_two_hosts_is_refused() {
    for head in [
        "GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n",
        "GET http://b.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "GET http://a.test@b.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "CONNECT b.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "GET b.test HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test, b.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test/b.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a.test\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "\x16\x03\x01",
    ] {
        assert!(matches!(of_request_head(head.as_bytes()), ServerName::Malformed(_)), "{head}");
    }
}

#[test]
fn a_client_that_never_comes_to_the_point_is_refused_at_the_limit() {
    let endless = [b"GET / HTTP/1.1\r\nX: ".as_slice(), &vec![b'a'; MAX_PEEK]].concat();
    assert_eq!(of_request_head(&endless[..MAX_PEEK - 1]), ServerName::Incomplete);
    assert!(matches!(of_request_head(&endless), ServerName::Malformed(_)));
    let huge = [[0x16, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff].as_slice(), &vec![0; MAX_PEEK]].concat();
    assert!(matches!(ServerName::of_client_hello(&huge), ServerName::Malformed(_)));
}

fn head(text: &str) -> RequestHead {
    RequestHead::read(text.as_bytes()).unwrap().unwrap()
}

#[test]
fn a_request_is_passed_on_as_the_only_one_of_its_connection() {
    let request = "POST /x HTTP/1.1\nHost:a.test\r\nConnection: Keep-Alive, X\r\nkeep-alive: timeout=5\r\n\
                   Upgrade: h2c\r\nContent-Length: 3\r\nX: y\r\n\r\nabcGET /";
    let read = head(request);
    let alone = "POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\nX: y\r\nConnection: close\r\n\r\n";
    assert_eq!(str::from_utf8(&read.alone).unwrap(), alone);
    assert_eq!((read.body, &request[read.length..]), (Body::Length(3), "abcGET /"));
    // What was written is read as the same request.
    assert_eq!(head(alone), RequestHead { length: alone.len(), ..read });
}

#[test]
fn the_end_of_a_body_is_known_or_the_request_refused() {
    let of = |fields: &str| {
        RequestHead::read(format!("POST / HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n").as_bytes())
    };
    let body = |fields: &str| of(fields).unwrap().unwrap().body;
    assert_eq!(body(""), Body::Length(0));
    assert_eq!(body("Content-Length: 12\r\n"), Body::Length(12));
    assert_eq!(body("Transfer-Encoding: Chunked\r\n"), Body::Chunked);
    assert_eq!(body("Upgrade: websocket\r\nConnection: Upgrade\r\n"), Body::WebSocket);
    assert_eq!(body("Upgrade: h2c\r\nConnection: Upgrade\r\n"), Body::Length(0));
    for fields in [
        "Content-Length: 3\r\nContent-Length: 4\r\n",
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 3, 3\r\n",
        "Content-Length: +3\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 99999999999999999999999\r\n",
        "Content-Length:\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "X: a\r\n b\r\n",
        "Content-Length : 3\r\n",
    ] {
        assert!(of(fields).is_err(), "{fields}");
    }
    let old = b"POST / HTTP/1.0\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert!(RequestHead::read(old).is_err(), "a server of HTTP/1.0 knows no chunks");
}

proptest! {
    #[test]
    fn what_is_passed_on_is_one_head_for_the_same_host_and_nothing_after_it(
        noise in prop::collection::vec(prop::sample::select(b"aH:\r\n \tost/1".to_vec()), 0..40), at in 0usize..60
    ) {
        let mut bytes = b"GET /a HTTP/1.1\r\nHost: a.test\r\nAccept: */*\r\nContent-Length: 2\r\n\r\nxy".to_vec();
        bytes.splice(at..at, noise);
        if let Ok(Some(read)) = RequestHead::read(&bytes) {
            let again = RequestHead::read(&read.alone).unwrap().unwrap();
            prop_assert_eq!(again.length, read.alone.len());
            prop_assert_eq!((again.name, again.body), (read.name, read.body));
        }
    }

    #[test]
    fn no_bytes_make_the_parsers_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = ServerName::of_client_hello(&bytes);
        let _ = of_request_head(&bytes);
    }

    #[test]
    fn a_damaged_client_hello_never_names_a_server_that_its_bytes_do_not(at in 0usize..400, to in any::<u8>()) {
        let mut hello = client_hello("api.example.com");
        let at = at % hello.len();
        hello[at] = to;
        if let ServerName::Named(found) = ServerName::of_client_hello(&hello) {
            let bytes = found.as_str().as_bytes();
            prop_assert!(hello.windows(bytes.len()).any(|window| window.eq_ignore_ascii_case(bytes)));
        }
    }

    #[test]
    fn a_damaged_request_never_names_a_host_that_its_bytes_do_not(at in 0usize..60, to in any::<u8>()) {
        let mut head = b"GET /index HTTP/1.1\r\nHost: api.example.com\r\nAccept: *\r\n\r\n".to_vec();
        let at = at % head.len();
        head[at] = to;
        if let ServerName::Named(found) = of_request_head(&head) {
            let bytes = found.as_str().as_bytes();
            prop_assert!(head.windows(bytes.len()).any(|window| window.eq_ignore_ascii_case(bytes)));
        }
    }
}
