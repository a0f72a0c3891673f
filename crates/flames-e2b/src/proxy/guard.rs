//! What may be asked of the agent from outside, and which token made a signature.

use axum::http::{HeaderMap, HeaderValue, Method, Request};
use flames_core::ControlPlane;
use flames_core::sandbox::record::{Sandbox, Traffic};
use flames_node::{AGENT_PORT, AccessToken, Operation, Signed, signature};
use subtle::ConstantTimeEq;

/// Opens the servers of a sandbox whose traffic is not for everybody.
pub(super) const TRAFFIC_HEADER: &str = "e2b-traffic-access-token";
/// Calls that stand alone.
const CALLS: [&str; 5] = ["/health", "/metrics", "/envs", "/files", "/files/compose"];
/// How every signature begins, and its whole length: a hash of 32 bytes in base 64 without padding follows.
const SIGNATURE: (&str, usize) = ("v1_", 46);
/// Services whose methods may all be called.
const SERVICES: [&str; 2] = ["/process.Process/", "/filesystem.Filesystem/"];

/// Whether a path, exactly as it was sent, is a call that clients may make.
///
/// A list of what is allowed, letter by letter: encodings, doubled slashes, dots and other case are not on it, so
/// no trick of spelling reaches the control calls.
pub fn is_public_call(path: &str) -> bool {
    CALLS.contains(&path) || SERVICES.iter().filter_map(|service| path.strip_prefix(service)).any(is_name)
}

fn is_name(method: &str) -> bool {
    !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Whether a request shows what the sandbox's servers want to be shown. The agent has a token of its own.
pub(super) fn may_pass(plane: &ControlPlane, sandbox: &Sandbox, port: u16, headers: &HeaderMap) -> bool {
    if port == AGENT_PORT || sandbox.entrance.traffic == Traffic::Open {
        return true;
    }
    let shown = headers.get(TRAFFIC_HEADER).map(HeaderValue::as_bytes).unwrap_or_default();
    plane.traffic_token(&sandbox.id).expose().as_bytes().ct_eq(shown).into()
}

/// A signature and what it claims to be over.
#[derive(Debug)]
pub(super) struct Claim {
    signature: String,
    path: String,
    username: String,
    expires: Option<i64>,
    operation: Operation,
}

impl Claim {
    /// What a request for a file shows; `None` if it shows no signature that could be right.
    pub(super) fn of<B>(request: &Request<B>) -> Option<Self> {
        let query = request.uri().query().unwrap_or_default();
        let first = |name: &str| {
            let mut pairs = url::form_urlencoded::parse(query.as_bytes());
            pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
        };
        Some(Self {
            signature: first("signature").filter(|text| is_signature(text))?,
            path: first("path").unwrap_or_default(),
            username: first("username").unwrap_or_default(),
            expires: first("signature_expiration").map(|seconds| seconds.parse()).transpose().ok()?,
            operation: match *request.method() {
                Method::GET | Method::HEAD => Operation::Read,
                _ => Operation::Write,
            },
        })
    }

    /// Compares in a time that does not tell where the two differ.
    pub(super) fn is_made_with(&self, token: &AccessToken) -> bool {
        let signed = Signed {
            path: &self.path,
            operation: self.operation,
            username: &self.username,
            expires: self.expires,
        };
        signature(signed, token.expose()).as_bytes().ct_eq(self.signature.as_bytes()).into()
    }
}

fn is_signature(text: &str) -> bool {
    let (beginning, length) = SIGNATURE;
    text.len() == length && text.starts_with(beginning)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_calls_of_the_clients_are_public() {
        for path in ["/health", "/files", "/process.Process/Start", "/filesystem.Filesystem/WatchDir"] {
            assert!(is_public_call(path), "{path}");
        }
    }

    #[test]
    fn no_spelling_of_a_control_call_is_public() {
        for path in [
            "/flames/v1/init",
            "/flames/v1/shutdown",
            "//flames/v1/init",
            "/FLAMES/v1/init",
            "/%66lames/v1/init",
            "/flames%2fv1%2finit",
            "/process.Process/../flames/v1/init",
            "/process.Process/%2e%2e/flames/v1/init",
            "/process.Process//flames/v1/init",
            "/files/../flames/v1/init",
            "/files;/flames/v1/init",
            "/./flames/v1/init",
            "/health/",
            "/init",
            "/freeze",
            "/upgrade",
            "/process.Process/",
            "*",
            "",
        ] {
            assert!(!is_public_call(path), "{path}");
        }
    }

    proptest! {
        #[test]
        fn a_public_path_has_no_trick_in_it(path in "/[a-zA-Z%./;\\\\]{0,40}") {
            if is_public_call(&path) {
                prop_assert!(!path.contains(['%', ';', '\\']) && !path.contains("..") && !path.contains("//"));
            }
        }
    }

    #[test]
    fn a_signature_is_matched_to_its_token_and_to_no_other() {
        let (mine, other) = (AccessToken::new("mine"), AccessToken::new("other"));
        let signed = Signed { path: "/a b", operation: Operation::Read, username: "user", expires: Some(17) };
        let made = signature(signed, "mine").replace('+', "%2B").replace('/', "%2F");
        let uri = format!("/files?path=/a%20b&username=user&signature={made}&signature_expiration=17");
        let claim = Claim::of(&Request::get(&uri).body(()).unwrap()).unwrap();
        assert!(claim.is_made_with(&mine) && !claim.is_made_with(&other));
        let upload = Claim::of(&Request::post(&uri).body(()).unwrap()).unwrap();
        assert!(!upload.is_made_with(&mine));
        for nonsense in [uri.replace("=17", "=y"), uri.replace("v1_", "v2_"), "/files?signature=x".to_owned()]
        {
            assert!(Claim::of(&Request::get(&nonsense).body(()).unwrap()).is_none(), "{nonsense}");
        }
    }
}
