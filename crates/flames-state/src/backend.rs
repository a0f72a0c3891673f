//! What the stores share: paging, events and the loop of a watch. For those who write an adapter.

use crate::{Change, Event, Key, Record, Revision, Watch};
use crate::{Error, ErrorKind, Page, Result};
use async_trait::async_trait;
use futures::stream::{self, StreamExt, TryStreamExt};
use std::ops::Range;

/// How many of the newest commits a store keeps for watches that start late.
pub const DEFAULT_HISTORY: u64 = 10_000;

/// Most bytes of values in one page, unless its first record alone is larger.
pub const MAX_PAGE_BYTES: usize = 4 * 1024 * 1024;

/// Where the loop of a watch gets its events from.
#[async_trait]
pub trait EventSource: Send + 'static {
    /// The next commits after `after`, a bounded number of them, as far as they touch `prefix`.
    ///
    /// # Errors
    /// `NotFound` from [`history_is_gone`], `InvalidInput` from [`not_reached`], and the backend's own.
    async fn read(&mut self, prefix: &str, after: Revision) -> Result<EventBatch>;

    /// Waits until there may be commits after the last one read. It may return too early, never too late:
    /// a commit between `read` and `changed` counts.
    ///
    /// # Errors
    /// When the backend is gone.
    async fn changed(&mut self) -> Result<()>;
}

/// A few commits of the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventBatch {
    /// Those that touch the prefix.
    pub events: Vec<Event>,
    /// The newest commit that was looked at.
    pub reached: Revision,
    /// The newest commit there is.
    pub newest: Revision,
}

/// Turns a source into the stream that [`StateStore::watch`](crate::StateStore::watch) promises. Reads once
/// before it returns, so that a revision nobody can watch from is refused at the call.
///
/// # Errors
/// Those of the first read.
pub async fn follow(mut source: impl EventSource, prefix: &str, from: Revision) -> Result<Watch> {
    let first = source.read(prefix, from).await?;
    let start = Following { source, prefix: prefix.to_owned(), batch: Some(first) };
    let batches = stream::try_unfold(start, |mut following| async move {
        let events = following.next().await?;
        Ok::<_, Error>(Some((stream::iter(events).map(Ok), following)))
    });
    Ok(batches.try_flatten().boxed())
}

struct Following<S> {
    source: S,
    prefix: String,
    /// Read and not yet given out; `reached` stays known through `after`.
    batch: Option<EventBatch>,
}

impl<S: EventSource> Following<S> {
    async fn next(&mut self) -> Result<Vec<Event>> {
        loop {
            let Some(batch) = self.batch.take() else { return Err(ended()) };
            if !batch.events.is_empty() {
                let events = batch.events;
                self.batch = Some(EventBatch { events: Vec::new(), ..batch });
                return Ok(events);
            }
            if batch.reached >= batch.newest {
                self.source.changed().await?;
            }
            self.batch = Some(self.source.read(&self.prefix, batch.reached).await?);
        }
    }
}

/// `next` after an error: `try_unfold` ends the stream there, so nobody sees this.
fn ended() -> Error {
    Error::new(ErrorKind::Internal, "watch", "").operation("watch").detail("the stream has ended")
}

/// The error for a watch from before the kept history.
pub fn history_is_gone(from: Revision, oldest: Revision) -> Error {
    Error::new(ErrorKind::NotFound, "revision", from.to_string())
        .operation("watch")
        .detail(format!("the kept history starts after revision {oldest}: list again"))
}

/// The error for a watch from the future.
pub fn not_reached(from: Revision, newest: Revision) -> Error {
    Error::new(ErrorKind::InvalidInput, "revision", from.to_string())
        .operation("watch")
        .detail(format!("the store has reached revision {newest} only"))
}

/// Collects rows, ordered by revision, into one event per commit.
pub fn group_events(rows: impl IntoIterator<Item = (Revision, Change)>) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    for (revision, change) in rows {
        match events.last_mut() {
            Some(event) if event.revision == revision => event.changes.push(change),
            _ => events.push(Event { revision, changes: vec![change] }),
        }
    }
    events
}

/// The keys of a list, as bytes: from the start up to, not including, the end.
///
/// ```
/// use flames_state::{Key, backend::key_range};
/// assert_eq!(key_range("a/", None), b"a/".to_vec()..b"a0".to_vec());
/// assert_eq!(key_range("a/", Some(&Key::parse("a/x")?)), b"a/x\0".to_vec()..b"a0".to_vec());
/// # Ok::<(), flames_state::Error>(())
/// ```
pub fn key_range(prefix: &str, after: Option<&Key>) -> Range<Vec<u8>> {
    // No byte of UTF-8 is 0xff: a last byte can always grow, and 0xff alone is above every key.
    let mut end = prefix.as_bytes().to_vec();
    match end.last_mut() {
        Some(last) => *last += 1,
        None => end.push(0xff),
    }
    let start = match after {
        // Nothing lies between a key and the same key with a zero behind it.
        Some(after) if after.as_str() >= prefix => [after.as_bytes(), &[0]].concat(),
        _ => prefix.as_bytes().to_vec(),
    };
    start..end
}

/// Fills a page in order, up to a number of records and of bytes.
#[derive(Debug)]
pub struct PageBuilder {
    limit: usize,
    bytes: usize,
    records: Vec<Record>,
}

impl PageBuilder {
    /// An empty page for `limit` records.
    pub fn new(limit: usize) -> Self {
        Self { limit, bytes: 0, records: Vec::with_capacity(limit.min(64)) }
    }

    /// Adds the next record in order.
    pub fn push(&mut self, record: Record) {
        self.bytes += record.value.len();
        self.records.push(record);
    }

    /// True when the next record belongs on the next page.
    pub fn is_full(&self) -> bool {
        self.records.len() >= self.limit || self.bytes >= MAX_PAGE_BYTES
    }

    /// The page. A full one always says where to go on, since more may follow.
    pub fn finish(self) -> Page {
        let next: Option<Key> =
            if self.is_full() { self.records.last().map(|last| last.key.clone()) } else { None };
        Page { records: self.records, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_key_is_in_the_range_exactly_when_it_has_the_prefix_and_is_behind(
            prefix in "[a-c\u{0}\u{10ffff}]{0,3}",
            after in proptest::option::of("[a-c\u{0}\u{10ffff}]{1,4}"),
            name in "[a-c\u{0}\u{10ffff}]{1,5}",
        ) {
            let after = after.map(|name| Key::parse(name).unwrap());
            let range = key_range(&prefix, after.as_ref());
            let wanted = name.starts_with(&prefix) && after.is_none_or(|after| name.as_bytes() > after.as_bytes());
            let inside = range.start.as_slice() <= name.as_bytes() && name.as_bytes() < range.end.as_slice();
            prop_assert_eq!(inside, wanted);
        }
    }
}
