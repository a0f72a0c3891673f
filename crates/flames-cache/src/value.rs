//! What the calls take and give, parsed at the edge.

use bytes::Bytes;
use flames_provider::{Error, ErrorKind, Result};
use std::fmt;
use std::time::Duration;

/// Longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 512;
/// Largest value, in bytes: 1 MiB.
pub const MAX_VALUE_BYTES: usize = 1 << 20;
/// Longest time to live: 30 days.
pub const MAX_TTL: Duration = Duration::from_secs(30 * 24 * 3600);

/// Any UTF-8 text of 1 to [`MAX_KEY_BYTES`] bytes.
///
/// ```
/// use flames_cache::CacheKey;
/// assert!(CacheKey::parse("rate/team-1/2026-11-22T10:00")?.as_str().starts_with("rate/"));
/// assert!(CacheKey::parse("").is_err());
/// # Ok::<(), flames_cache::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CacheKey(String);

impl CacheKey {
    /// # Errors
    /// `InvalidInput` for an empty text or one that is too long.
    pub fn parse(text: impl Into<String>) -> Result<Self> {
        let text = text.into();
        if (1..=MAX_KEY_BYTES).contains(&text.len()) {
            return Ok(Self(text));
        }
        let start: String = text.chars().take(40).collect();
        let detail = format!("a key has 1 to {MAX_KEY_BYTES} bytes, this one has {}", text.len());
        Err(Error::new(ErrorKind::InvalidInput, "cache key", start).detail(detail))
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CacheKey({:?})", self.0)
    }
}

/// At most [`MAX_VALUE_BYTES`]. `Debug` does not show them: they may be secret.
#[derive(Clone, PartialEq, Eq)]
pub struct CacheValue(Bytes);

impl CacheValue {
    /// # Errors
    /// `InvalidInput` for more than [`MAX_VALUE_BYTES`].
    pub fn new(bytes: impl Into<Bytes>) -> Result<Self> {
        let bytes = bytes.into();
        if bytes.len() <= MAX_VALUE_BYTES {
            return Ok(Self(bytes));
        }
        let detail = format!("a value has at most {MAX_VALUE_BYTES} bytes");
        Err(Error::new(ErrorKind::InvalidInput, "cache value", format!("{} bytes", bytes.len()))
            .detail(detail))
    }

    /// Gives the bytes back.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for CacheValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CacheValue({} bytes)", self.0.len())
    }
}

/// How long a value lives: 1 ms to [`MAX_TTL`], kept to the millisecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ttl(Duration);

impl Ttl {
    /// # Errors
    /// `InvalidInput` for less than 1 ms or more than [`MAX_TTL`].
    pub fn new(duration: Duration) -> Result<Self> {
        if (Duration::from_millis(1)..=MAX_TTL).contains(&duration) {
            return Ok(Self(duration));
        }
        let detail = format!("a time to live is 1 ms to {} s", MAX_TTL.as_secs());
        Err(Error::new(ErrorKind::InvalidInput, "time to live", format!("{duration:?}")).detail(detail))
    }

    /// The time.
    pub fn get(self) -> Duration {
        self.0
    }

    /// The time in whole milliseconds.
    pub fn as_millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }
}

/// What [`crate::CacheStore::set_if_absent`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetIfAbsent {
    /// The value is stored; the caller has the lock.
    Stored,
    /// Another value is there, and stays.
    Taken,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_1_to_512_bytes() {
        assert_eq!(CacheKey::parse("").unwrap_err().kind(), ErrorKind::InvalidInput);
        assert!(CacheKey::parse("k".repeat(512)).is_ok());
        assert_eq!(CacheKey::parse("k".repeat(513)).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert!(CacheKey::parse("ä".repeat(257)).is_err(), "bytes count, not characters");
    }

    #[test]
    fn a_value_has_at_most_a_mebibyte_and_is_not_shown() {
        assert!(CacheValue::new(vec![0; MAX_VALUE_BYTES]).is_ok());
        assert_eq!(
            CacheValue::new(vec![0; MAX_VALUE_BYTES + 1]).unwrap_err().kind(),
            ErrorKind::InvalidInput
        );
        assert_eq!(format!("{:?}", CacheValue::new("secret").unwrap()), "CacheValue(6 bytes)");
    }

    #[test]
    fn a_time_to_live_is_neither_nothing_nor_for_ever() {
        for bad in [Duration::ZERO, Duration::from_micros(999), MAX_TTL + Duration::from_millis(1)] {
            assert_eq!(Ttl::new(bad).unwrap_err().kind(), ErrorKind::InvalidInput);
        }
        assert_eq!(Ttl::new(Duration::from_micros(1500)).unwrap().as_millis(), 1);
    }
}
