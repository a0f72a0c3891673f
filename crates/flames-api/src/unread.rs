//! Answers that were given before the request was read to its end.

use axum::body::{Body, HttpBody as _};
use axum::extract::Request;
use axum::http::{HeaderValue, Version, header};
use axum::middleware::Next;
use axum::response::Response;

/// Says that the connection ends with a refusal of a request that has a body: what was not read of it is in the way of
/// the next request, so the server closes, and a client that was not told would send the next one in vain.
pub(crate) async fn end_connection(request: Request<Body>, next: Next) -> Response {
    let in_the_way = request.version() <= Version::HTTP_11 && !request.body().is_end_stream();
    let mut response = next.run(request).await;
    let refused = response.status().is_client_error() || response.status().is_server_error();
    if in_the_way && refused {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
