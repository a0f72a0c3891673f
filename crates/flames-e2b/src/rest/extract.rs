//! Extractors whose refusals are errors that the clients can parse.

use crate::error::ApiError;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use bytes::Bytes;
use flames_core::SandboxId;
use serde::de::DeserializeOwned;
use std::time::Duration;
use tokio::time::timeout;

/// A body takes longer from a client that does not want to be answered.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// A JSON body, whatever its type is called. An absent one is an empty object.
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes = timeout(BODY_TIMEOUT, Bytes::from_request(request, state)).await.map_err(|_| {
            let message = format!("the body did not end within {} s", BODY_TIMEOUT.as_secs());
            ApiError::new(StatusCode::REQUEST_TIMEOUT, message)
        })?;
        let bytes = bytes.map_err(|rejection| {
            ApiError::new(rejection.status(), format!("the body cannot be read: {}", rejection.body_text()))
        })?;
        parse(&bytes).map(Self)
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let bytes = if bytes.trim_ascii().is_empty() { b"{}" } else { bytes };
    serde_json::from_slice(bytes).map_err(|error| ApiError::bad_request(format!("invalid body: {error}")))
}

/// The sandbox in the path, with or without the name of a client behind a dash.
pub(super) struct Id(pub(super) SandboxId);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| ApiError::new(rejection.status(), rejection.body_text()))?;
        let id = text.split('-').next().unwrap_or_default();
        // What cannot be an id is not the id of a sandbox.
        SandboxId::parse(id).map(Self).map_err(|_| ApiError::no_sandbox(&text))
    }
}

/// What stands behind the question mark, decoded once. The first of a name counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Params(Vec<(String, String)>);

impl Params {
    pub(super) fn of(query: &str) -> Self {
        Self(url::form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    /// `None` for what is absent or empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    pub(super) fn parse<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, ApiError> {
        let invalid = |text: &str| ApiError::bad_request(format!("`{name}`: cannot be `{text:.80}`"));
        self.get(name).map(|text| text.parse().map_err(|_| invalid(text))).transpose()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self::of(parts.uri.query().unwrap_or_default()))
    }
}

/// What no client of ours sends, and a limit is said for.
pub(super) fn too_large(what: &str, limit: usize) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, format!("{what}: at most {limit}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default)]
    struct Timeout {
        timeout: Option<i64>,
    }

    #[test]
    fn an_absent_body_is_an_empty_one_and_a_wrong_one_is_refused() {
        assert_eq!(parse::<Timeout>(b" ").unwrap(), Timeout::default());
        assert_eq!(parse::<Timeout>(b"{\"timeout\":3,\"new\":1}").unwrap(), Timeout { timeout: Some(3) });
        for bad in [&b"{"[..], b"[]x", b"{\"timeout\":\"3\"}", b"\xff", b"7"] {
            assert_eq!(parse::<Timeout>(bad).unwrap_err().code, 400);
        }
    }

    #[test]
    fn the_first_parameter_of_a_name_counts() {
        let params = Params::of("a=1&a=2&b=&c=%C3%A4+x");
        assert_eq!((params.get("a"), params.get("b"), params.get("c")), (Some("1"), None, Some("ä x")));
        assert_eq!(params.parse::<u8>("a").unwrap(), Some(1));
        assert!(params.parse::<u8>("c").is_err());
    }
}
