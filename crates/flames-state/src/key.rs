//! Names of records, leases and holders.

use flames_provider::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

/// Longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 512;

/// A name: any UTF-8 text of 1 to [`MAX_KEY_BYTES`] bytes, ordered by its bytes.
///
/// ```
/// use flames_state::Key;
/// let key = Key::parse("sandbox/abc")?;
/// assert_eq!(key.as_str(), "sandbox/abc");
/// assert!(Key::parse("").is_err());
/// # Ok::<(), flames_state::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Key(String);

impl Key {
    /// Checks the length.
    ///
    /// # Errors
    /// `InvalidInput` for an empty name or one that is too long.
    pub fn parse(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        match name.len() {
            1..=MAX_KEY_BYTES => Ok(Self(name)),
            length => Err(wrong_length(&name, length)),
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name's bytes, as stores order them.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Gives the text back.
    pub fn into_string(self) -> String {
        self.0
    }
}

fn wrong_length(name: &str, length: usize) -> Error {
    let start: String = name.chars().take(40).collect();
    Error::new(ErrorKind::InvalidInput, "key", start)
        .detail(format!("a key has 1 to {MAX_KEY_BYTES} bytes, this one has {length}"))
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?})", self.0)
    }
}

impl AsRef<str> for Key {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// `str` orders by bytes, as keys do.
impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl FromStr for Key {
    type Err = Error;
    fn from_str(name: &str) -> Result<Self> {
        Self::parse(name)
    }
}

impl TryFrom<String> for Key {
    type Error = Error;
    fn try_from(name: String) -> Result<Self> {
        Self::parse(name)
    }
}

impl TryFrom<&str> for Key {
    type Error = Error;
    fn try_from(name: &str) -> Result<Self> {
        Self::parse(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_1_to_512_bytes_of_any_utf8() {
        assert_eq!(Key::parse("").unwrap_err().kind(), ErrorKind::InvalidInput);
        assert!(Key::parse("k".repeat(512)).is_ok());
        assert_eq!(Key::parse("k".repeat(513)).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert!(Key::parse("ä".repeat(257)).is_err(), "bytes count, not characters");
        assert!(Key::parse("\0\n%_\\'\"/../🔥").is_ok());
    }
}
