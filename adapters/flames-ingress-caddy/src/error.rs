//! What Caddy's answers mean to a caller.

use crate::config::CaddyConfig;
use flames_ingress::{Error, ErrorKind};
use reqwest::StatusCode;
use serde_json::Value;

pub(crate) const ADAPTER: &str = "caddy";

/// Longest part of Caddy's own words in an error.
const MAX_DETAIL_CHARS: usize = 600;

/// No answer.
pub(crate) fn unanswered(operation: &'static str, config: &CaddyConfig, error: reqwest::Error) -> Error {
    let (kind, detail) = match error.is_timeout() && !error.is_connect() {
        true => (ErrorKind::Timeout, format!("no answer within {} s", config.timeout.as_secs())),
        false => (
            ErrorKind::Unavailable,
            "cannot be reached; is Caddy running, and is its admin API on?".to_owned(),
        ),
    };
    // The address may hold a password: the error shows host and port alone.
    about(kind, operation, "admin API", &endpoint(config)).detail(detail).source(error.without_url())
}

/// An answer other than success.
pub(crate) fn refused(
    operation: &'static str,
    config: &CaddyConfig,
    status: StatusCode,
    text: &str,
) -> Error {
    let kind = match status {
        StatusCode::PRECONDITION_FAILED => ErrorKind::Conflict,
        StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => ErrorKind::PermissionDenied,
        status if status.is_server_error() => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    };
    about(kind, operation, "admin API", &endpoint(config)).detail(format!("{status}: {}", message_of(text)))
}

/// Caddy does not load the block; the old one stays in force.
pub(crate) fn not_loaded(config: &CaddyConfig, status: StatusCode, text: &str, block: &Value) -> Error {
    match failed_route(text).and_then(|place| block["routes"][place]["@id"].as_str()) {
        Some(id) => refused_route(id, text),
        None => refused("apply", config, status, text),
    }
}

/// The block exists and is not ours.
pub(crate) fn foreign(operation: &'static str, config: &CaddyConfig) -> Error {
    about(ErrorKind::Conflict, operation, "server block", &config.server).detail(
        "this block of Caddy's configuration was not made by Flames and is not touched: choose another name",
    )
}

/// The block is ours and not as we wrote it.
pub(crate) fn edited(config: &CaddyConfig, fault: String) -> Error {
    about(ErrorKind::Corrupt, "routes", "server block", &config.server)
        .detail(format!("somebody edited it: {fault}; applying a set replaces it"))
}

fn refused_route(id: &str, text: &str) -> Error {
    about(ErrorKind::InvalidInput, "apply", "route", id).detail(message_of(text))
}

fn about(kind: ErrorKind, operation: &'static str, resource: &'static str, id: &str) -> Error {
    Error::new(kind, resource, id).operation(operation).adapter(ADAPTER)
}

fn endpoint(config: &CaddyConfig) -> String {
    let (host, port) = (config.admin.host_str(), config.admin.port_or_known_default());
    format!("{}:{}", host.unwrap_or_default(), port.unwrap_or_default())
}

/// Caddy answers `{"error": "..."}`.
fn message_of(text: &str) -> String {
    let parsed = serde_json::from_str::<Value>(text).ok();
    let message = parsed.as_ref().and_then(|value| value["error"].as_str()).unwrap_or(text);
    message.chars().take(MAX_DETAIL_CHARS).collect()
}

/// The place of the route that Caddy complains about, from `route 3:` in its message.
fn failed_route(text: &str) -> Option<usize> {
    text.split("route ").skip(1).find_map(|behind| behind.split_once(':')?.0.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_route_that_caddy_complains_about_is_found() {
        let text =
            "loading new config: http: server flames: setting up route handlers: route 12: loading handlers";
        assert_eq!(failed_route(text), Some(12));
        assert_eq!(failed_route("listen tcp 127.0.0.1:80: bind: permission denied"), None);
        assert_eq!(failed_route("route x"), None);
    }

    #[test]
    fn a_password_in_the_admin_url_is_in_no_error() {
        let admin = "http://user:hunter2@127.0.0.1:2019".parse().unwrap();
        let config = CaddyConfig::new(admin, ([127, 0, 0, 1], 80).into());
        let error = refused("apply", &config, StatusCode::BAD_REQUEST, r#"{"error":"no"}"#);
        assert!(!format!("{error} {error:?}").contains("hunter2"));
        assert!(error.to_string().contains("127.0.0.1:2019"));
    }
}
