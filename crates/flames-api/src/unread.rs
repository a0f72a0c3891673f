//! Answers that were given before the request was read to its end.
//!
//! What was not read is in the way of the next request of HTTP/1, so the connection cannot be used again, and a client that
//! was not told would send the next one in vain. [`crate::server`] has this around every router that it serves.

use axum::body::{Body, HttpBody as _};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Version, header};
use axum::middleware::Next;
use axum::response::Response;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether a request of the connection was answered with bytes of it still to come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unread(Arc<AtomicBool>);

impl Unread {
    pub(crate) fn note(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_noted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Says that the connection ends, with a refusal of a request that has a body, and where the router says so itself: by
/// `Connection: close` in its answer, as it does for whom it forwards to. HTTP/2 has no word for it, and no need.
pub(crate) async fn end_connection(request: Request<Body>, next: Next) -> Response {
    let version = request.version();
    let has_body = !request.body().is_end_stream();
    let unread = request.extensions().get::<Unread>().cloned();
    let mut response = next.run(request).await;
    let refused = has_body && is_refusal(response.status());
    mark(version, refused, response.headers_mut());
    if let (true, Some(unread)) = (refused && version <= Version::HTTP_11, unread) {
        unread.note();
    }
    response
}

fn is_refusal(status: StatusCode) -> bool {
    status.is_client_error() || status.is_server_error()
}

fn mark(version: Version, refused_with_body: bool, headers: &mut HeaderMap) {
    if version > Version::HTTP_11 {
        headers.remove(header::CONNECTION);
    } else if refused_with_body {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(version: Version, has_body: bool, status: StatusCode, by_router: Option<&str>) -> Option<String> {
        let mut headers = HeaderMap::new();
        if let Some(told) = by_router {
            headers.insert(header::CONNECTION, told.parse().unwrap());
        }
        mark(version, has_body && is_refusal(status), &mut headers);
        headers.get(header::CONNECTION).map(|told| told.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_refusal_of_a_body_ends_a_connection_of_http_1_and_no_other() {
        for status in [StatusCode::NOT_FOUND, StatusCode::BAD_GATEWAY] {
            assert_eq!(told(Version::HTTP_11, true, status, None).unwrap(), "close");
            assert_eq!(told(Version::HTTP_11, false, status, None), None, "nothing is in the way");
            assert_eq!(told(Version::HTTP_2, true, status, None), None);
        }
        assert_eq!(told(Version::HTTP_11, true, StatusCode::OK, None), None);
    }

    #[test]
    fn what_a_forwarded_answer_says_stays_and_is_not_said_in_http_2() {
        let told = |version, by_router| told(version, false, StatusCode::OK, Some(by_router));
        assert_eq!(told(Version::HTTP_11, "close").unwrap(), "close");
        assert_eq!(told(Version::HTTP_11, "upgrade").unwrap(), "upgrade");
        assert_eq!(told(Version::HTTP_2, "close"), None);
    }
}
