//! Names of blobs: safe as a path of any file system and as a key of any object store.

use flames_provider::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 512;
/// Longest part between two slashes, in bytes: leaves a file name room for what an adapter adds.
pub const MAX_SEGMENT_BYTES: usize = 200;

/// Segments of `A-Z a-z 0-9 . _ -` with `/` between them, ordered by bytes. No segment starts with a dot:
/// such names belong to the adapters.
///
/// ```
/// use flames_blob::BlobKey;
/// let key = BlobKey::parse("template/base/rootfs.erofs")?;
/// assert_eq!(key.as_str(), "template/base/rootfs.erofs");
/// assert!(BlobKey::parse("../etc/passwd").is_err());
/// # Ok::<(), flames_blob::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BlobKey(String);

impl BlobKey {
    /// Checks the text.
    ///
    /// # Errors
    /// `InvalidInput`, with the rule that was broken.
    pub fn parse(text: impl Into<String>) -> Result<Self> {
        let text = text.into();
        match broken_rule(&text) {
            None => Ok(Self(text)),
            Some(rule) => Err(refusal(&text, rule)),
        }
    }

    /// The key of `name` beneath this one.
    ///
    /// # Errors
    /// `InvalidInput` when the result is no key.
    pub fn join(&self, name: &str) -> Result<Self> {
        Self::parse(format!("{self}/{name}"))
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The parts between the slashes; at least one.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }

    /// True for `a/b` and `a`; false for `ab` and `a`, and for `a` and `a`.
    pub fn lies_beneath(&self, folder: &Self) -> bool {
        self.0.strip_prefix(folder.as_str()).is_some_and(|rest| rest.starts_with('/'))
    }
}

fn broken_rule(text: &str) -> Option<String> {
    if text.is_empty() || text.len() > MAX_KEY_BYTES {
        return Some(format!("a key has 1 to {MAX_KEY_BYTES} bytes, this one has {}", text.len()));
    }
    text.split('/').find_map(broken_segment_rule)
}

fn broken_segment_rule(segment: &str) -> Option<String> {
    if segment.is_empty() {
        return Some("a key has no empty segment: no slash at its start or end, and no two in a row".into());
    }
    if segment.len() > MAX_SEGMENT_BYTES {
        return Some(format!("a segment has at most {MAX_SEGMENT_BYTES} bytes, one has {}", segment.len()));
    }
    if segment.starts_with('.') {
        return Some("no segment starts with a dot".into());
    }
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (!segment.bytes().all(legal)).then(|| "a segment holds only A-Z a-z 0-9 . _ -".into())
}

fn refusal(text: &str, rule: String) -> Error {
    let start: String = text.chars().take(60).collect();
    Error::new(ErrorKind::InvalidInput, "blob key", start.escape_debug().to_string()).detail(rule)
}

impl fmt::Display for BlobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for BlobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobKey({:?})", self.0)
    }
}

impl FromStr for BlobKey {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

impl TryFrom<String> for BlobKey {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        Self::parse(text)
    }
}

impl From<BlobKey> for String {
    fn from(key: BlobKey) -> Self {
        key.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_key_that_could_leave_its_folder_or_confuse_a_backend_is_refused() {
        let long_segment = "s".repeat(201);
        let long_key = ["0123456789"; 60].join("/");
        let bad = [
            "", "/a", "a/", "a//b", ".", "..", "a/../b", ".tmp", "a/.b", "a b", "a\0", "ä", "a\\b", "a%2e",
            "a+b",
        ];
        for text in bad.into_iter().chain([long_segment.as_str(), long_key.as_str()]) {
            assert_eq!(BlobKey::parse(text).unwrap_err().kind(), ErrorKind::InvalidInput, "{text:?}");
        }
    }

    #[test]
    fn a_key_from_json_is_checked_too() {
        assert!(serde_json::from_str::<BlobKey>("\"../../etc\"").is_err());
        assert!(serde_json::from_str::<BlobKey>("\"a/b.c\"").is_ok());
    }

    #[test]
    fn beneath_means_behind_a_slash() {
        let key = |text: &str| BlobKey::parse(text).unwrap();
        assert!(key("a/b").lies_beneath(&key("a")));
        assert!(!key("ab").lies_beneath(&key("a")));
        assert!(!key("a").lies_beneath(&key("a")));
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_is_a_relative_path_without_dots(text in "[a-zA-Z./_ -]{0,40}|.{0,20}") {
            if let Ok(key) = BlobKey::parse(text.clone()) {
                let path = std::path::Path::new(key.as_str());
                prop_assert!(path.components().all(|part| matches!(part, std::path::Component::Normal(_))));
                prop_assert_eq!(key.as_str(), text);
            }
        }
    }
}
