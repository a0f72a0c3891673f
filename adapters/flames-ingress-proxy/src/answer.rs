//! What the proxy says itself: JSON with the status as `code`, and the route and upstream it is about.

use crate::body::Answer;
use crate::table::Target;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

/// The request could not be understood.
pub(crate) fn bad_request(message: &str) -> Response<Answer> {
    refusal(StatusCode::BAD_REQUEST, json!({ "message": message }))
}

/// No route covers the request.
pub(crate) fn unknown_host(host: &str) -> Response<Answer> {
    let shown: String = host.chars().take(253).collect();
    refusal(
        StatusCode::NOT_FOUND,
        json!({ "message": format!("no route leads from host `{shown}` and this path") }),
    )
}

/// The target could not serve the request.
pub(crate) fn failed(status: StatusCode, target: &Target, message: &str) -> Response<Answer> {
    let (route, upstream) = (target.id.as_str(), target.upstream.to_string());
    refusal(status, json!({ "message": message, "route": route, "upstream": upstream }))
}

fn refusal(status: StatusCode, mut body: Value) -> Response<Answer> {
    body["code"] = status.as_u16().into();
    let mut response = Response::new(Answer::Own(Full::new(Bytes::from(body.to_string()))));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
