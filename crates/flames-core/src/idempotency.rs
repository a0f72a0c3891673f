//! A create that is sent twice makes one sandbox (hazard L4).
//!
//! The first request with a key claims it in the cache; the sandbox's id replaces the claim. Whoever comes
//! later with the same key gets that sandbox, or is told to wait. The cache may lose entries at any time: a
//! repeat is then a new sandbox, as without a key.

use crate::SandboxId;
use crate::sandbox::error::{CreateSandboxError, InvalidRequest};
use flames_cache::{CacheKey, CacheStore, CacheValue, SetIfAbsent, Ttl};
use flames_provider::Result;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;

/// Names a request, so that its repeat is known: 1 to 255 printable characters of ASCII, chosen by the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    cached_as: String,
}

/// How long a repeat is known.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);
/// How long a claim holds without an answer: longer than any create may take.
const CLAIMED: Duration = Duration::from_secs(300);
/// What stands for the sandbox while it is made.
const PENDING: &[u8] = b"pending";

impl IdempotencyKey {
    /// `scope` keeps the keys of different callers apart.
    ///
    /// # Errors
    /// [`InvalidRequest`] for anything but 1 to 255 printable characters of ASCII.
    pub fn parse(scope: &str, text: &str) -> Result<Self, InvalidRequest> {
        if !(1..=255).contains(&text.len()) || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            let rule = "must be 1 to 255 printable characters of ASCII";
            return Err(InvalidRequest::new("Idempotency-Key", rule));
        }
        // Hashed, so that the length of neither matters and no separator can be forged.
        let scope = hex::encode(Sha256::digest(scope));
        Ok(Self { cached_as: format!("idempotency/{scope}/{}", hex::encode(Sha256::digest(text))) })
    }
}

/// The memory of creates that had a key.
#[derive(Clone, Debug)]
pub(crate) struct Repeats {
    cache: Arc<dyn CacheStore>,
}

/// What is known of a request when it comes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Nothing: it is the first, and has claimed the key.
    First,
    /// It made this sandbox.
    Made(SandboxId),
}

impl Repeats {
    pub(crate) fn new(cache: Arc<dyn CacheStore>) -> Self {
        Self { cache }
    }

    /// Claims a key. A cache that is down makes every request the first.
    pub(crate) async fn claim(&self, key: &IdempotencyKey) -> Result<Seen, CreateSandboxError> {
        match self.try_claim(key).await {
            Ok(Some(seen)) => Ok(seen),
            Ok(None) => Err(CreateSandboxError::InProgress),
            Err(error) => {
                tracing::warn!(%error, "no idempotency: the cache does not answer");
                Ok(Seen::First)
            }
        }
    }

    /// Remembers what a claimed request made.
    pub(crate) async fn made(&self, key: &IdempotencyKey, id: &SandboxId) {
        self.logged("remember", self.try_remember(key, id).await);
    }

    /// Gives a key back whose request failed: the repeat is a new attempt.
    pub(crate) async fn failed(&self, key: &IdempotencyKey) {
        let forgotten = async { self.cache.delete(&CacheKey::parse(key.cached_as.as_str())?).await };
        self.logged("forget", forgotten.await);
    }

    /// `None` while another request with the key is under way.
    async fn try_claim(&self, key: &IdempotencyKey) -> Result<Option<Seen>> {
        let key = CacheKey::parse(key.cached_as.as_str())?;
        let claim = CacheValue::new(PENDING)?;
        if self.cache.set_if_absent(&key, claim, Ttl::new(CLAIMED)?).await? == SetIfAbsent::Stored {
            return Ok(Some(Seen::First));
        }
        let made = self.cache.get(&key).await?;
        let id = made
            .as_deref()
            .and_then(|value| std::str::from_utf8(value).ok())
            .filter(|id| id.as_bytes() != PENDING);
        Ok(id.and_then(|id| SandboxId::parse(id).ok()).map(Seen::Made))
    }

    async fn try_remember(&self, key: &IdempotencyKey, id: &SandboxId) -> Result<()> {
        let value = CacheValue::new(id.to_string())?;
        self.cache.set(&CacheKey::parse(key.cached_as.as_str())?, value, Ttl::new(REMEMBERED)?).await
    }

    fn logged(&self, what: &str, outcome: Result<()>) {
        if let Err(error) = outcome {
            tracing::warn!(%error, "cannot {what} an idempotency key");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flames_cache::MemoryCacheStore;

    fn repeats() -> (Repeats, IdempotencyKey) {
        (Repeats::new(Arc::new(MemoryCacheStore::new())), IdempotencyKey::parse("key-1", "abc").unwrap())
    }

    #[tokio::test]
    async fn a_repeat_gets_the_first_answer() {
        let (repeats, key) = repeats();
        let id = SandboxId::random();
        assert_eq!(repeats.claim(&key).await.unwrap(), Seen::First);
        assert!(matches!(repeats.claim(&key).await, Err(CreateSandboxError::InProgress)));
        repeats.made(&key, &id).await;
        assert_eq!(repeats.claim(&key).await.unwrap(), Seen::Made(id));
    }

    #[tokio::test]
    async fn a_failed_create_may_be_tried_again_under_its_key() {
        let (repeats, key) = repeats();
        assert_eq!(repeats.claim(&key).await.unwrap(), Seen::First);
        repeats.failed(&key).await;
        assert_eq!(repeats.claim(&key).await.unwrap(), Seen::First);
    }

    #[test]
    fn two_callers_never_share_a_key() {
        let of = |scope, text| IdempotencyKey::parse(scope, text).unwrap();
        assert_ne!(of("a", "bc"), of("ab", "c"));
        assert_eq!(of("a", "b"), of("a", "b"));
        assert!(IdempotencyKey::parse("a", "").is_err() && IdempotencyKey::parse("a", "x y").is_err());
    }
}
