//! What can be said with the required methods alone.

use crate::{Key, MAX_PAGE_RECORDS, Page, Precondition, Record, Revision, StateStore, Write};
use async_trait::async_trait;
use bytes::Bytes;
use flames_provider::{Error, ErrorKind, Result};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use serde::{Serialize, de::DeserializeOwned};

/// A parsed value and the commit that wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned<T> {
    /// The value.
    pub value: T,
    /// The commit that wrote it: the precondition of the next write.
    pub revision: Revision,
}

/// Sugar for every [`StateStore`].
#[async_trait]
pub trait StateStoreExt: StateStore {
    /// Writes a record that must not exist yet.
    ///
    /// # Errors
    /// `AlreadyExists`, and those of [`StateStore::commit`].
    async fn create(&self, key: Key, value: Bytes) -> Result<Revision> {
        self.commit(vec![Write::Put { key, value, precondition: Precondition::Absent }]).await
    }

    /// Writes a record whatever was there.
    ///
    /// # Errors
    /// Those of [`StateStore::commit`].
    async fn put(&self, key: Key, value: Bytes) -> Result<Revision> {
        self.commit(vec![Write::Put { key, value, precondition: Precondition::None }]).await
    }

    /// Replaces a record that is still as commit `expected` left it.
    ///
    /// # Errors
    /// `Conflict` or `NotFound`, and those of [`StateStore::commit`].
    async fn compare_and_swap(&self, key: Key, value: Bytes, expected: Revision) -> Result<Revision> {
        self.commit(vec![Write::Put { key, value, precondition: Precondition::Revision(expected) }]).await
    }

    /// Removes a record; removing a missing one is no error.
    ///
    /// # Errors
    /// Those of [`StateStore::commit`] with `precondition`.
    async fn delete(&self, key: Key, precondition: Precondition) -> Result<Revision> {
        self.commit(vec![Write::Delete { key, precondition }]).await
    }

    /// All records under `prefix` in order, a page at a time.
    fn list_all<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<Record>> {
        let pages = stream::try_unfold(Some(None), move |cursor: Option<Option<Key>>| async move {
            let Some(after) = cursor else { return Ok::<_, Error>(None) };
            let Page { records, next } = self.list(prefix, after.as_ref(), MAX_PAGE_RECORDS).await?;
            Ok(Some((stream::iter(records).map(Ok), next.map(Some))))
        });
        pages.try_flatten().boxed()
    }

    /// Reads a record as JSON.
    ///
    /// # Errors
    /// `Corrupt` when the value is not such JSON, and those of [`StateStore::get`].
    async fn get_json<T: DeserializeOwned + Send>(&self, key: &Key) -> Result<Option<Versioned<T>>> {
        self.get(key).await?.map(|record| from_json(&record, self.adapter())).transpose()
    }

    /// Writes a record as JSON.
    ///
    /// # Errors
    /// `InvalidInput` when the value has no JSON form, and those of [`StateStore::commit`].
    async fn put_json<T: Serialize + Sync>(
        &self,
        key: Key,
        value: &T,
        precondition: Precondition,
    ) -> Result<Revision> {
        let value = to_json(&key, value)?;
        self.commit(vec![Write::Put { key, value, precondition }]).await
    }
}

impl<S: StateStore + ?Sized> StateStoreExt for S {}

fn from_json<T: DeserializeOwned>(record: &Record, adapter: &'static str) -> Result<Versioned<T>> {
    let value = serde_json::from_slice(&record.value).map_err(|error| {
        Error::new(ErrorKind::Corrupt, "record", record.key.as_str())
            .operation("get_json")
            .adapter(adapter)
            .detail("the value is not the JSON expected here")
            .source(error)
    })?;
    Ok(Versioned { value, revision: record.revision })
}

fn to_json<T: Serialize>(key: &Key, value: &T) -> Result<Bytes> {
    serde_json::to_vec(value).map(Bytes::from).map_err(|error| {
        Error::new(ErrorKind::InvalidInput, "record", key.as_str()).operation("put_json").source(error)
    })
}
