//! Hashes: made while a blob streams in, checked while it streams out.

use crate::{BlobKey, BlobMeta, ByteStream, MAX_BLOB_BYTES};
use bytes::Bytes;
use flames_provider::{Error, ErrorKind, Result};
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use sha2::Digest;
use std::fmt;
use std::str::FromStr;

/// A SHA-256, written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha256([u8; 32]);

impl Sha256 {
    /// A hash that was computed elsewhere.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The hash of bytes that are in memory anyway.
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// The hash as bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sha256({self})")
    }
}

impl FromStr for Sha256 {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let mut bytes = [0; 32];
        let refusal =
            || Error::new(ErrorKind::InvalidInput, "sha256", text).detail("must be 64 hexadecimal digits");
        hex::decode_to_slice(text, &mut bytes).map_err(|source| refusal().source(source))?;
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Sha256 {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Sha256> for String {
    fn from(hash: Sha256) -> Self {
        hash.to_string()
    }
}

/// Size and hash of a body that streams by. Every adapter's put runs its body through one.
#[derive(Clone, Debug)]
pub struct Measure {
    hasher: sha2::Sha256,
    size: u64,
    limit: u64,
}

impl Default for Measure {
    fn default() -> Self {
        Self { hasher: sha2::Sha256::new(), size: 0, limit: MAX_BLOB_BYTES }
    }
}

impl Measure {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// `InvalidInput` once there are more than [`MAX_BLOB_BYTES`].
    pub fn update(&mut self, key: &BlobKey, chunk: &[u8]) -> Result<()> {
        self.size = self.size.saturating_add(chunk.len() as u64);
        if self.size > self.limit {
            let detail = format!("a blob has at most {} bytes", self.limit);
            return Err(Error::new(ErrorKind::InvalidInput, "blob", key.as_str())
                .operation("put")
                .detail(detail));
        }
        self.hasher.update(chunk);
        Ok(())
    }

    /// Bytes so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The hash of all bytes.
    pub fn finish(self) -> Sha256 {
        Sha256(self.hasher.finalize().into())
    }

    /// The hash of all bytes, if it is the one that was expected.
    ///
    /// # Errors
    /// `Corrupt`, with both hashes.
    pub fn finish_as(self, key: &BlobKey, expected: Option<Sha256>) -> Result<Sha256> {
        let actual = self.finish();
        match expected {
            Some(expected) if expected != actual => {
                let detail = format!("the body has SHA-256 {actual}, expected was {expected}");
                Err(Error::new(ErrorKind::Corrupt, "blob", key.as_str()).operation("put").detail(detail))
            }
            _ => Ok(actual),
        }
    }
}

/// The same body, which ends with `Corrupt` when it is not what `meta` says. For an adapter's get of a whole
/// blob.
pub fn verified(body: ByteStream, key: &BlobKey, adapter: &'static str, meta: &BlobMeta) -> ByteStream {
    let start = Check { body, measure: Measure::default(), key: key.clone(), adapter, meta: meta.clone() };
    stream::try_unfold(Some(start), next_checked).boxed()
}

struct Check {
    body: ByteStream,
    measure: Measure,
    key: BlobKey,
    adapter: &'static str,
    meta: BlobMeta,
}

async fn next_checked(state: Option<Check>) -> Result<Option<(Bytes, Option<Check>)>> {
    let Some(mut check) = state else { return Ok(None) };
    match check.body.try_next().await? {
        Some(chunk) => {
            check.measure.update(&check.key, &chunk)?;
            Ok(Some((chunk, Some(check))))
        }
        None => check.verdict().map(|()| None),
    }
}

impl Check {
    fn verdict(self) -> Result<()> {
        let size = self.measure.size();
        let actual = self.measure.finish();
        if size == self.meta.size && actual == self.meta.sha256 {
            return Ok(());
        }
        let detail = format!(
            "read {size} bytes with SHA-256 {actual}, stored were {} with {}",
            self.meta.size, self.meta.sha256
        );
        let error = Error::new(ErrorKind::Corrupt, "blob", self.key.as_str());
        Err(error.operation("get").adapter(self.adapter).detail(detail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> BlobKey {
        BlobKey::parse("a").unwrap()
    }

    #[test]
    fn a_body_past_the_limit_is_refused_at_the_first_byte_too_many() {
        let mut measure = Measure { limit: 10, ..Measure::default() };
        measure.update(&key(), &[0; 10]).unwrap();
        assert_eq!(measure.update(&key(), &[0]).unwrap_err().kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn a_hash_is_written_and_read_as_64_hexadecimal_digits() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Sha256::of(b"").to_string(), empty);
        assert_eq!(empty.parse::<Sha256>().unwrap(), Sha256::of(b""));
        assert!("e3b0".parse::<Sha256>().is_err());
        assert!(serde_json::from_str::<Sha256>("\"xyz\"").is_err());
    }
}
