//! `/files`: what an upload answers, and the signatures that stand in for a token in a URL.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// One written file, as an upload answers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteInfo {
    /// Last part of the path.
    pub name: String,
    /// Absolute path.
    pub path: String,
    /// Always `file`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What was stored with it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

/// `POST` [`COMPOSE_PATH`]: makes one file of several, which are then removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ComposeRequest {
    /// Regular files, in the order in which they are joined.
    pub source_paths: Vec<String>,
    /// What they become.
    pub destination: String,
    /// Who owns it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
}

/// Where a [`ComposeRequest`] goes.
pub const COMPOSE_PATH: &str = "/files/compose";

/// Body of an error of the plain HTTP calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpError {
    /// The HTTP status.
    pub code: u16,
    /// For a person.
    pub message: String,
}

/// What a signed URL allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Download.
    Read,
    /// Upload.
    Write,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// What a signature is over.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    /// The query's `path`, as it is.
    pub path: &'a str,
    /// What it allows.
    pub operation: Operation,
    /// The query's `username`, or empty.
    pub username: &'a str,
    /// The query's `signature_expiration` (seconds since 1970), if it has one.
    pub expires: Option<i64>,
}

/// The signature that only who knows the sandbox's access token can make.
///
/// ```
/// use flames_guest::files::{Operation, Signed, signature};
/// let url = Signed { path: "/a", operation: Operation::Read, username: "", expires: None };
/// assert!(signature(url, "token").starts_with("v1_"));
/// ```
pub fn signature(signed: Signed<'_>, access_token: &str) -> String {
    let mut hash = Sha256::new();
    for (index, part) in
        [signed.path, signed.operation.name(), signed.username, access_token].into_iter().enumerate()
    {
        if index > 0 {
            hash.update(b":");
        }
        hash.update(part.as_bytes());
    }
    if let Some(expires) = signed.expires {
        hash.update(format!(":{expires}").as_bytes());
    }
    format!("v1_{}", STANDARD_NO_PAD.encode(hash.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_the_hash_of_the_parts_joined_by_colons() {
        let url = Signed {
            path: "/tmp/a b",
            operation: Operation::Write,
            username: "user",
            expires: Some(1_700_000_000),
        };
        let want = STANDARD_NO_PAD.encode(Sha256::digest("/tmp/a b:write:user:secret:1700000000"));
        assert_eq!(signature(url, "secret"), format!("v1_{want}"));
    }

    #[test]
    fn every_part_changes_the_signature() {
        let base = Signed { path: "/a", operation: Operation::Read, username: "", expires: None };
        let all = [
            signature(base, "t"),
            signature(base, "u"),
            signature(Signed { path: "/b", ..base }, "t"),
            signature(Signed { operation: Operation::Write, ..base }, "t"),
            signature(Signed { username: "root", ..base }, "t"),
            signature(Signed { expires: Some(0), ..base }, "t"),
        ];
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
    }
}
