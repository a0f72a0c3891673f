//! `GET /files` of what is large, byte by byte: such answers do not come from the HTTP server.

use crate::support::{Guest, TOKEN};
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

const LARGE: usize = 3 << 20;

fn content() -> Vec<u8> {
    (0..LARGE).map(|index| index.to_le_bytes()[index % 4]).collect()
}

/// One connection, on which several requests can be sent.
struct Line(BufReader<TcpStream>);

/// A status line, headers in small letters, and a body.
#[derive(Debug)]
struct Response {
    status: String,
    headers: Vec<String>,
    body: Vec<u8>,
}

impl Line {
    fn to(guest: &Guest) -> Self {
        Self(BufReader::new(TcpStream::connect(guest.url.trim_start_matches("http://")).unwrap()))
    }

    fn send(&mut self, requests: &str) {
        self.0.get_mut().write_all(requests.as_bytes()).unwrap();
    }

    fn head(&mut self) -> Response {
        let mut lines = self.0.by_ref().lines().map(Result::unwrap);
        let status = lines.next().unwrap();
        let headers = lines.take_while(|line| !line.is_empty()).map(|line| line.to_lowercase()).collect();
        Response { status, headers, body: Vec::new() }
    }

    fn receive(&mut self) -> Response {
        let mut response = self.head();
        response.body = vec![0; response.length()];
        self.0.read_exact(&mut response.body).unwrap();
        response
    }

    /// What comes until the other side closes.
    fn rest(mut self) -> usize {
        let mut rest = Vec::new();
        // A reset is an end, too.
        let _ended = self.0.read_to_end(&mut rest);
        rest.len()
    }
}

impl Response {
    fn length(&self) -> usize {
        self.header("content-length").map_or(0, |length| length.parse().unwrap())
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

fn get(version: &str, headers: &str) -> String {
    format!("GET /files?path=f {version}\r\nHost: guest\r\nX-Access-Token: {TOKEN}\r\n{headers}\r\n")
}

async fn guest_with_large_file() -> (Guest, Vec<u8>) {
    let (guest, content) = (Guest::start().await, content());
    fs::write(guest.path("f"), &content).unwrap();
    (guest, content)
}

#[tokio::test]
async fn the_connection_goes_on_after_a_large_file() {
    let (guest, content) = guest_with_large_file().await;
    let mut line = Line::to(&guest);
    for _ in 0..2 {
        line.send(&get("HTTP/1.1", ""));
        let whole = line.receive();
        assert_eq!(whole.status, "HTTP/1.1 200 OK");
        assert!(whole.body == content);
        assert!(whole.header("content-disposition").is_some() && whole.header("date").is_some(), "{whole:?}");
        line.send(&get("HTTP/1.1", "Range: bytes=1000000-1999999\r\nOrigin: http://page\r\n"));
        let part = line.receive();
        assert_eq!(part.status, "HTTP/1.1 206 Partial Content");
        assert_eq!(part.header("content-range"), Some("bytes 1000000-1999999/3145728"));
        assert_eq!(part.header("access-control-allow-origin"), Some("*"));
        assert!(part.body == content[1_000_000..2_000_000]);
        line.send("GET /health HTTP/1.1\r\nHost: guest\r\n\r\n");
        assert_eq!(line.receive().status, "HTTP/1.1 204 No Content");
    }
}

#[tokio::test]
async fn a_client_that_wants_the_connection_closed_gets_all_and_the_end() {
    let (guest, content) = guest_with_large_file().await;
    for request in [get("HTTP/1.1", "Connection: close\r\n"), get("HTTP/1.0", "")] {
        let mut line = Line::to(&guest);
        line.send(&request);
        assert!(line.receive().body == content, "{request}");
        assert_eq!(line.rest(), 0, "{request}");
    }
}

#[tokio::test]
async fn a_request_that_did_not_wait_for_a_large_file_sees_the_connection_end_behind_it() {
    let (guest, content) = guest_with_large_file().await;
    let mut line = Line::to(&guest);
    line.send(&get("HTTP/1.1", "").repeat(2));
    let first = line.receive();
    assert!(first.body == content);
    assert_eq!(first.header("connection"), Some("close"));
    assert_eq!(line.rest(), 0);
}

#[tokio::test]
async fn of_a_large_file_whose_head_is_asked_for_nothing_is_sent() {
    let (guest, _) = guest_with_large_file().await;
    let mut line = Line::to(&guest);
    line.send(&get("HTTP/1.1", "").replace("GET", "HEAD"));
    assert_eq!(line.head().length(), LARGE);
    line.send("GET /health HTTP/1.1\r\nHost: guest\r\n\r\n");
    assert_eq!(line.receive().status, "HTTP/1.1 204 No Content");
}

/// More than the buffers of two sockets hold, so that it is still being sent when it shrinks.
#[tokio::test]
async fn a_file_that_shrinks_while_it_is_sent_is_cut_off() {
    let guest = Guest::start().await;
    let file = File::create(guest.path("f")).unwrap();
    file.set_len(256 << 20).unwrap();
    let mut line = Line::to(&guest);
    line.send(&get("HTTP/1.1", ""));
    let announced = line.head().length();
    file.set_len(0).unwrap();
    let came = line.rest();
    assert!(came < announced, "{came} of {announced}");
    assert_eq!(guest.get("/health").send().await.unwrap().status(), 204);
}
