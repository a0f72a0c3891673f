//! API keys: 256 random bits, shown once, stored as their SHA-256.
//!
//! A key looks like `e2b_<64 hex digits>`, the form that clients of the E2B interface insist on.

use crate::clock::Clock;
use crate::token::random_secret;
use flames_provider::{Error, ErrorKind, Result};
use flames_state::{Key, Precondition, StateStore, StateStoreExt};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;
use std::sync::Arc;

/// The keys that open the API.
#[derive(Clone, Debug)]
pub struct ApiKeys {
    store: Arc<dyn StateStore>,
    clock: Arc<dyn Clock>,
}

/// A key in the clear. Exists between its making and its showing.
#[derive(Clone)]
pub struct ApiKey(String);

/// What is remembered of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKeyInfo {
    /// The first 12 digits of the key's hash: enough to tell keys apart, useless to open anything.
    pub id: String,
    /// What its maker called it.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
}

const PREFIX: &str = "api-key/";
const ID_DIGITS: usize = 12;
const LIST_PAGE: usize = 500;

impl ApiKeys {
    /// Keys in `store`.
    pub fn new(store: Arc<dyn StateStore>, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock }
    }

    /// Makes a key. This is the only time it can be seen.
    ///
    /// # Errors
    /// `InvalidInput` for a name that is empty or longer than 64 bytes; what the store answers.
    pub async fn create(&self, name: &str) -> Result<(ApiKey, ApiKeyInfo)> {
        if name.is_empty() || name.len() > 64 {
            return Err(Error::new(ErrorKind::InvalidInput, "api key", name)
                .detail("the name must have 1 to 64 bytes"));
        }
        let key = ApiKey(format!("e2b_{}", hex::encode(random_secret()?)));
        let hash = hash(&key.0);
        let info = ApiKeyInfo {
            id: hash[..ID_DIGITS].to_owned(),
            name: name.to_owned(),
            created_at: self.clock.now(),
        };
        self.store.create(Key::parse(format!("{PREFIX}{hash}"))?, encode(&info)?).await?;
        Ok((key, info))
    }

    /// Makes a key if there is none yet.
    ///
    /// # Errors
    /// What the store answers.
    pub async fn ensure_first(&self) -> Result<Option<ApiKey>> {
        if self.list().await?.is_empty() {
            return Ok(Some(self.create("first").await?.0));
        }
        Ok(None)
    }

    /// Whose key this is. The look-up is by hash, so its duration tells nothing about any key.
    ///
    /// # Errors
    /// What the store answers.
    pub async fn verify(&self, presented: &str) -> Result<Option<ApiKeyInfo>> {
        let record = self.store.get(&Key::parse(format!("{PREFIX}{}", hash(presented)))?).await?;
        record.map(|record| decode(&record.value)).transpose()
    }

    /// All keys, in no promised order.
    ///
    /// # Errors
    /// What the store answers.
    pub async fn list(&self) -> Result<Vec<ApiKeyInfo>> {
        let page = self.store.list(PREFIX, None, LIST_PAGE).await?;
        page.records.iter().map(|record| decode(&record.value)).collect()
    }

    /// Makes a key useless at once.
    ///
    /// # Errors
    /// `NotFound` for an id that no key has.
    pub async fn revoke(&self, id: &str) -> Result<()> {
        let page = self.store.list(PREFIX, None, LIST_PAGE).await?;
        let is_it = |key: &str| id.len() == ID_DIGITS && key[PREFIX.len()..].starts_with(id);
        match page.records.into_iter().find(|record| is_it(record.key.as_str())) {
            Some(record) => self.store.delete(record.key, Precondition::None).await.map(drop),
            None => Err(Error::new(ErrorKind::NotFound, "api key", id)),
        }
    }
}

impl ApiKey {
    /// The key itself, to show it once.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(secret)")
    }
}

fn hash(key: &str) -> String {
    hex::encode(Sha256::digest(key.as_bytes()))
}

fn encode(info: &ApiKeyInfo) -> Result<bytes::Bytes> {
    serde_json::to_vec(info).map(Into::into).map_err(unreadable)
}

fn decode(value: &[u8]) -> Result<ApiKeyInfo> {
    serde_json::from_slice(value).map_err(unreadable)
}

fn unreadable(error: serde_json::Error) -> Error {
    Error::new(ErrorKind::Corrupt, "record", PREFIX).source(error)
}
