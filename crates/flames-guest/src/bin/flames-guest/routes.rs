//! Which call a request is, and whether its caller may make it.
//!
//! | who | shows | may |
//! |---|---|---|
//! | anybody | nothing | `GET /health`, and `OPTIONS` of everything |
//! | the node | the control token | `/flames/v1/*` |
//! | the sandbox's owner | the access token, after the first init | everything else |
//! | who has a signed URL | its signature | that one `/files` call |

use crate::agent::Agent;
use crate::connections::Via;
use crate::http::{Answer, Failure, header, query, with_status};
use crate::{control, cors, files, filesystem, metrics, process, tunnel};
use base64::Engine as _;
use flames_guest::ACCESS_TOKEN_HEADER;
use flames_guest::control::{CONNECT_PATH, CONTROL_HEADER, FREEZE_PATH, INIT_PATH, SHUTDOWN_PATH, THAW_PATH};
use flames_guest::files::{COMPOSE_PATH, Operation, Signed, signature};
use flames_guest::rpc::{Code, RpcError};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HeaderMap, ORIGIN};
use hyper::{Method, Request, StatusCode};
use std::sync::Arc;

/// Answers one request, whatever it is.
pub(crate) async fn answer(agent: Arc<Agent>, request: Request<Incoming>, via: Via) -> Answer {
    let from_page = request.headers().contains_key(ORIGIN);
    let mut answer = Box::pin(dispatch(agent, request, via)).await.unwrap_or_else(Failure::into_answer);
    if from_page {
        cors::allow(answer.headers_mut());
    }
    answer
}

async fn dispatch(agent: Arc<Agent>, request: Request<Incoming>, via: Via) -> Result<Answer, Failure> {
    let path = request.uri().path().to_owned();
    match (request.method(), path.as_str()) {
        (&Method::GET | &Method::HEAD, "/health") => Ok(with_status(StatusCode::NO_CONTENT)),
        (&Method::POST, INIT_PATH) => {
            require_control(&agent, request.headers())?;
            control::init(&agent, request, via).await
        }
        (&Method::POST, SHUTDOWN_PATH) => {
            require_control(&agent, request.headers())?;
            Ok(control::shutdown(&agent))
        }
        (&Method::POST, FREEZE_PATH) => {
            require_control(&agent, request.headers())?;
            control::freeze(&agent).await
        }
        (&Method::POST, THAW_PATH) => {
            require_control(&agent, request.headers())?;
            control::thaw(&agent)
        }
        (&Method::POST, CONNECT_PATH) => {
            require_control(&agent, request.headers())?;
            tunnel::open(request.headers()).await
        }
        (&Method::GET | &Method::HEAD, "/files") => {
            let caller = file_caller(&agent, &request, Operation::Read)?;
            files::download(agent, request, caller).await
        }
        (&Method::POST, "/files") => {
            let caller = file_caller(&agent, &request, Operation::Write)?;
            files::upload(agent, request, caller).await
        }
        (&Method::POST, COMPOSE_PATH) => {
            require_token(&agent, request.headers())?;
            files::compose(agent, request).await
        }
        (&Method::OPTIONS, _) => Ok(cors::preflight(request.headers())),
        (&Method::GET, "/metrics") => {
            require_token(&agent, request.headers()).and_then(|()| metrics::answer(&agent))
        }
        (&Method::GET, "/envs") => {
            require_token(&agent, request.headers()).map(|()| metrics::environment(&agent))
        }
        (&Method::POST, _) => call(agent, request, &path).await,
        _ => Err(unknown(&path)),
    }
}

/// Services are mounted by name: `/package.Service/Method`.
async fn call(agent: Arc<Agent>, request: Request<Incoming>, path: &str) -> Result<Answer, Failure> {
    let Some((service, method)) = path.trim_start_matches('/').split_once('/') else {
        return Err(unknown(path));
    };
    match service {
        flames_guest::process::SERVICE => {
            require_token(&agent, request.headers())?;
            process::call(agent, request, method).await
        }
        flames_guest::filesystem::SERVICE => {
            require_token(&agent, request.headers())?;
            filesystem::call(agent, request, method).await
        }
        _ => Err(unknown(path)),
    }
}

fn unknown(path: &str) -> Failure {
    Failure::http(StatusCode::NOT_FOUND, format!("no such call: {path}"))
}

fn require_control(agent: &Agent, headers: &HeaderMap) -> Result<(), Failure> {
    match headers.get(CONTROL_HEADER) {
        Some(token) if agent.is_control_token(token.as_bytes()) => Ok(()),
        _ => Err(Failure::http(StatusCode::UNAUTHORIZED, "the control token is missing or wrong")),
    }
}

/// Before the first init there is no token that could be right.
fn require_init(agent: &Agent) -> Result<(), Failure> {
    if agent.settings().access_token.is_some() {
        return Ok(());
    }
    Err(Failure::http(StatusCode::SERVICE_UNAVAILABLE, "the sandbox is not initialised yet"))
}

fn require_token(agent: &Agent, headers: &HeaderMap) -> Result<(), Failure> {
    require_init(agent)?;
    if shows_token(agent, headers) {
        return Ok(());
    }
    Err(Failure::http(StatusCode::UNAUTHORIZED, "the access token is missing or wrong"))
}

fn shows_token(agent: &Agent, headers: &HeaderMap) -> bool {
    headers.get(ACCESS_TOKEN_HEADER).is_some_and(|token| agent.is_access_token(token.as_bytes()))
}

/// Who a `/files` call runs as, once its token or its signature was found right.
fn file_caller(
    agent: &Agent,
    request: &Request<Incoming>,
    operation: Operation,
) -> Result<Option<String>, Failure> {
    require_init(agent)?;
    let username = query(request, "username");
    if !shows_token(agent, request.headers()) {
        require_signature(agent, request, operation, username.as_deref().unwrap_or_default())?;
    }
    Ok(username)
}

fn require_signature(
    agent: &Agent,
    request: &Request<Incoming>,
    operation: Operation,
    username: &str,
) -> Result<(), Failure> {
    let refused = |message: &str| Failure::http(StatusCode::UNAUTHORIZED, message);
    let shown = query(request, "signature").ok_or_else(|| refused("missing signature query parameter"))?;
    let path = query(request, "path").unwrap_or_default();
    let expires = query(request, "signature_expiration").map(|seconds| seconds.parse::<i64>()).transpose();
    let expires = expires.map_err(|_| refused("signature_expiration is no number of seconds"))?;
    let signed = Signed { path: &path, operation, username, expires };
    let token = agent.settings().access_token.clone().unwrap_or_default();
    if !crate::agent::same(shown.as_bytes(), signature(signed, &token).as_bytes()) {
        return Err(refused("invalid signature"));
    }
    match expires {
        Some(expires) if expires < crate::system::now_unix_nanos() / 1_000_000_000 => {
            Err(refused("signature is already expired"))
        }
        _ => Ok(()),
    }
}

/// The user that a call names by HTTP basic authentication without a password.
///
/// # Errors
/// `unauthenticated` for a header of another form.
pub(crate) fn named_user(headers: &HeaderMap) -> Result<Option<String>, RpcError> {
    let Some(value) = header(headers, AUTHORIZATION.as_str()) else { return Ok(None) };
    let decode = || {
        let bytes =
            base64::engine::general_purpose::STANDARD.decode(value.strip_prefix("Basic ")?.trim()).ok()?;
        Some(String::from_utf8(bytes).ok()?.split_once(':')?.0.to_owned())
    };
    decode()
        .map(Some)
        .ok_or_else(|| RpcError::new(Code::Unauthenticated, "the Authorization header names no user"))
}
