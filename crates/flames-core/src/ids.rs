//! Names that are parsed once at the edge and trusted inside.

use rand::RngExt;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Names a sandbox: `i` and 20 of `a-z 0-9` (103 bits of randomness, so it cannot be guessed).
///
/// No dash and no upper case, because the id is part of host names: `<port>-<id>.<domain>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SandboxId(String);

/// A name that is not legal, with what would be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{value}` is not a {what}: {rule}")]
pub struct InvalidName {
    /// What was meant to be named.
    pub what: &'static str,
    /// What was given, shortened to 80 characters.
    pub value: String,
    /// What is legal.
    pub rule: &'static str,
}

const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
const RANDOM_CHARACTERS: usize = 20;

impl SandboxId {
    /// A new id that nobody else has.
    pub fn random() -> Self {
        let mut rng = rand::rng();
        let mut id = String::with_capacity(1 + RANDOM_CHARACTERS);
        id.push('i');
        id.extend((0..RANDOM_CHARACTERS).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())])));
        Self(id)
    }

    /// # Errors
    /// [`InvalidName`] for anything but 1 to 40 of `a-z 0-9`.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        if (1..=40).contains(&text.len()) && text.bytes().all(legal) {
            return Ok(Self(text.to_owned()));
        }
        Err(InvalidName::new("sandbox id", text, "1 to 40 of a-z and 0-9"))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl InvalidName {
    pub(crate) fn new(what: &'static str, value: &str, rule: &'static str) -> Self {
        Self { what, value: value.chars().take(80).collect(), rule }
    }
}

impl fmt::Display for SandboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for SandboxId {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
        Self::parse(&text)
    }
}

impl From<SandboxId> for String {
    fn from(id: SandboxId) -> Self {
        id.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_ids_are_legal_and_differ() {
        let (one, two) = (SandboxId::random(), SandboxId::random());
        assert_eq!(SandboxId::parse(one.as_str()).unwrap(), one);
        assert_ne!(one, two);
        assert_eq!(one.as_str().len(), 21);
    }

    #[test]
    fn an_id_that_could_change_a_path_or_a_host_is_refused() {
        for bad in ["", "A", "a-b", "a.b", "../x", "a/b", "ä", &"a".repeat(41)] {
            assert!(SandboxId::parse(bad).is_err(), "{bad:?}");
        }
    }
}
