//! The names in a route. Parsed at the edge: a value of these types is valid.

use flames_provider::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A DNS name, or `*.` and a DNS name. Lower case, without a trailing dot.
///
/// A wildcard stands for exactly one label, as in a certificate: `*.example.com` covers `a.example.com`,
/// neither `example.com` nor `a.b.example.com`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Host(String);

/// Names a route: 1 to 128 of `A-Z a-z 0-9 . _ -`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RouteId(String);

/// The start of a path, whole segments only: `/api` covers `/api` and `/api/x`, not `/apix`. `/` covers all.
///
/// Case matters. Only `A-Z a-z 0-9 . _ ~ -` in segments, so that no two spellings mean the same prefix.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PathPrefix(String);

impl Host {
    /// Longest name in bytes, as DNS has it.
    pub const MAX_BYTES: usize = 253;

    /// Parses a name; upper case becomes lower case, one trailing dot goes.
    ///
    /// # Errors
    /// `InvalidInput` about the field `host`, with what is wrong.
    pub fn parse(text: &str) -> Result<Self> {
        let lower = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        match host_fault(&lower) {
            None => Ok(Self(lower)),
            Some(fault) => Err(invalid("host", text, fault)),
        }
    }

    /// The name, with its `*.` if it has one.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands behind `*.`, for a wildcard.
    pub fn wildcard_suffix(&self) -> Option<&str> {
        self.0.strip_prefix("*.")
    }

    /// Whether this covers `name`, which is lower case and without port and trailing dot.
    pub fn covers(&self, name: &str) -> bool {
        match self.wildcard_suffix() {
            None => self.0 == name,
            Some(suffix) => {
                name.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == suffix)
            }
        }
    }
}

impl RouteId {
    /// Longest id in bytes.
    pub const MAX_BYTES: usize = 128;

    /// Parses an id.
    ///
    /// # Errors
    /// `InvalidInput` about the field `id`.
    pub fn parse(text: &str) -> Result<Self> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if (1..=Self::MAX_BYTES).contains(&text.len()) && text.bytes().all(legal) {
            return Ok(Self(text.to_owned()));
        }
        Err(invalid("id", text, "a route id is 1 to 128 of `A-Z a-z 0-9 . _ -`".to_owned()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PathPrefix {
    /// Longest prefix in bytes.
    pub const MAX_BYTES: usize = 1024;

    /// The prefix of every path.
    pub fn root() -> Self {
        Self("/".to_owned())
    }

    /// Parses a prefix.
    ///
    /// # Errors
    /// `InvalidInput` about the field `path_prefix`.
    pub fn parse(text: &str) -> Result<Self> {
        if text == "/" || (text.len() <= Self::MAX_BYTES && are_segments(text)) {
            return Ok(Self(text.to_owned()));
        }
        let mend = "a path prefix is `/`, or segments of `A-Z a-z 0-9 . _ ~ -` such as `/api/v1`, \
                    without `.`, `..`, an empty segment or a trailing slash";
        Err(invalid("path_prefix", text, mend.to_owned()))
    }

    /// The prefix as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the prefix of every path.
    pub fn is_root(&self) -> bool {
        self.0 == "/"
    }

    /// Whether this covers `path`, without its query.
    pub fn covers(&self, path: &str) -> bool {
        self.is_root()
            || path.strip_prefix(&self.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl Default for PathPrefix {
    fn default() -> Self {
        Self::root()
    }
}

fn are_segments(text: &str) -> bool {
    text.strip_prefix('/').is_some_and(|rest| rest.split('/').all(is_segment))
}

fn is_segment(segment: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte);
    !segment.is_empty() && segment != "." && segment != ".." && segment.bytes().all(legal)
}

/// What is wrong with a lower-case name; `None` if nothing.
fn host_fault(name: &str) -> Option<String> {
    let plain = name.strip_prefix("*.").unwrap_or(name);
    if plain.is_empty() {
        return Some("is empty: use a DNS name such as `a.example.com` or `*.example.com`".to_owned());
    }
    if name.len() > Host::MAX_BYTES {
        return Some(format!("is {} bytes long: at most {} are allowed", name.len(), Host::MAX_BYTES));
    }
    if plain.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit())) {
        return Some("is an address or ends in a number: use a DNS name".to_owned());
    }
    plain.split('.').find_map(label_fault)
}

fn label_fault(label: &str) -> Option<String> {
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if label.is_empty() {
        return Some("has an empty label (two dots in a row, or one at the start)".to_owned());
    }
    if label.len() > 63 {
        return Some(format!("label `{label}` is longer than 63 bytes"));
    }
    if label.starts_with('-') || label.ends_with('-') {
        return Some(format!("label `{label}` starts or ends with a hyphen"));
    }
    (!label.bytes().all(legal)).then(|| {
        format!("label `{label}` holds something else than letters, digits and hyphens (no port, no scheme; `*.` only in front)")
    })
}

fn invalid(field: &'static str, text: &str, fault: String) -> Error {
    let shown: String = text.chars().take(300).collect();
    Error::new(ErrorKind::InvalidInput, field, shown).detail(fault)
}

/// What every name has: text in both directions.
macro_rules! textual {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self> {
                Self::parse(text)
            }
        }
        impl TryFrom<String> for $name {
            type Error = Error;
            fn try_from(text: String) -> Result<Self> {
                Self::parse(&text)
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }
    )*};
}

textual!(Host, RouteId, PathPrefix);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_bad_host_is_refused_and_the_error_names_the_field() {
        let long_label = format!("{}.com", "a".repeat(64));
        let long_name = "abcdefghi.".repeat(26) + "com";
        let bad = [
            "",
            ".",
            "*",
            "*.",
            "a..b",
            ".a",
            "-a.com",
            "a-.com",
            "a_b.com",
            "a b",
            "a.com:80",
            "http://a",
            "*.*.com",
            "a.*.com",
            "10.0.0.1",
            "1.2",
            "::1",
            "é.com",
            "a/b",
            &long_label,
            &long_name,
        ];
        for text in bad {
            let error = Host::parse(text).unwrap_err();
            assert_eq!((error.kind(), error.resource()), (ErrorKind::InvalidInput, "host"), "{text:?}");
            assert!(error.detail_text().is_some());
        }
    }

    #[test]
    fn a_good_host_is_kept_in_lower_case_without_its_last_dot() {
        for (text, kept) in [
            ("Example.COM.", "example.com"),
            ("*.X.io", "*.x.io"),
            ("localhost", "localhost"),
            ("8080-a.b", "8080-a.b"),
        ] {
            assert_eq!(Host::parse(text).unwrap().as_str(), kept);
        }
    }

    #[test]
    fn a_wildcard_covers_exactly_one_label() {
        let host = Host::parse("*.example.com").unwrap();
        assert!(host.covers("a.example.com"));
        for name in ["example.com", "a.b.example.com", ".example.com", "aexample.com"] {
            assert!(!host.covers(name), "{name}");
        }
    }

    #[test]
    fn a_prefix_covers_whole_segments_only() {
        let prefix = PathPrefix::parse("/api").unwrap();
        assert!(prefix.covers("/api") && prefix.covers("/api/") && prefix.covers("/api/x"));
        assert!(!prefix.covers("/apix") && !prefix.covers("/") && !prefix.covers("/API"));
        assert!(PathPrefix::root().covers("/anything") && PathPrefix::root().covers("*"));
    }

    #[test]
    fn a_bad_prefix_or_id_is_refused() {
        for text in ["", "api", "/a/", "//", "/a//b", "/a/../b", "/./a", "/a?b", "/a*", "/%41", "/a b"] {
            assert_eq!(PathPrefix::parse(text).unwrap_err().resource(), "path_prefix", "{text:?}");
        }
        for text in ["", "a/b", "a b", &"x".repeat(129)] {
            assert_eq!(RouteId::parse(text).unwrap_err().resource(), "id", "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_what_parses_parses_to_itself(text in "\\PC{0,80}|[a-zA-Z0-9.*-]{0,80}") {
            if let Ok(host) = Host::parse(&text) {
                prop_assert_eq!(Host::parse(host.as_str()).unwrap(), host.clone());
                prop_assert!(host.as_str().len() <= Host::MAX_BYTES);
            }
            let _ = (RouteId::parse(&text), PathPrefix::parse(&text));
        }
    }
}
