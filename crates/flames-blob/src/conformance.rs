//! The promises of [`BlobStore`], one public function each: memory, every decorator and every adapter run
//! them all through [`blob_conformance!`](crate::blob_conformance), so that a red line names the promise.
//!
//! A case panics when its promise is broken.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc, missing_docs)]

mod contents;
mod failures;
mod listing;
mod races;

pub use contents::*;
pub use failures::*;
pub use listing::*;
pub use races::*;

pub use flames_provider::conformance::{is_required, skip, unique_prefix};

use crate::{BlobKey, BlobMeta, BlobStore, BlobStoreExt, ByteStream, MAX_BLOB_BYTES, PutOptions, Result};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// What a case works on: a store nobody else uses, and the power to damage what it keeps.
pub struct Subject {
    store: Arc<dyn BlobStore>,
    damage: Box<dyn Fn(&BlobKey) + Send + Sync>,
    _keep: Box<dyn Any + Send + Sync>,
}

impl Subject {
    /// `damage` changes a stored blob behind the store's back.
    pub fn new(store: impl BlobStore, damage: impl Fn(&BlobKey) + Send + Sync + 'static) -> Self {
        Self { store: Arc::new(store), damage: Box::new(damage), _keep: Box::new(()) }
    }

    /// Keeps `guard` (a server, a temporary folder) alive as long as the case runs.
    #[must_use]
    pub fn keeping(self, guard: impl Any + Send + Sync) -> Self {
        Self { _keep: Box::new(guard), ..self }
    }

    /// Puts a decorator around the store.
    #[must_use]
    pub fn wrapped<W: BlobStore>(self, wrap: impl FnOnce(Arc<dyn BlobStore>) -> W) -> Self {
        Self { store: Arc::new(wrap(self.store)), ..self }
    }

    pub fn store(&self) -> Arc<dyn BlobStore> {
        self.store.clone()
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject").field("store", &self.store).finish_non_exhaustive()
    }
}

/// Expands to one test per promise about names: for backends that keep no blob as a file of that name. The
/// S3 server that tests use does, with its limits; S3 itself does not.
#[macro_export]
macro_rules! blob_name_conformance {
    ($factory:expr) => {
        $crate::blob_conformance!(@cases $factory;
            the_longest_key_works
            a_folder_is_no_blob
            a_blob_may_lie_beneath_another
        );
    };
}

/// Expands to one test per promise. The expression is a future of an `Option<Subject>`; `None` skips, and
/// the factory says so with [`skip`].
#[macro_export]
macro_rules! blob_conformance {
    ($factory:expr) => {
        $crate::blob_conformance!(@cases $factory;
            a_blob_of_any_size_comes_back_as_it_was_put
            an_empty_blob_is_a_blob
            a_large_blob_comes_back_as_it_was_put
            the_chunks_of_a_body_do_not_matter
            a_blob_that_need_not_survive_a_loss_of_power_is_a_blob_like_others
            meta_tells_size_hash_and_time
            head_says_what_get_says
            a_missing_blob_is_not_found
            a_range_returns_exactly_its_bytes
            a_range_that_ends_behind_the_blob_is_cut
            a_range_behind_the_blob_is_invalid
            a_stream_that_is_not_read_to_its_end_does_no_harm
            create_only_refuses_a_taken_key_and_leaves_the_blob
            create_only_refuses_a_taken_key_also_for_a_large_body
            replace_takes_the_place_of_the_whole_blob
            delete_removes_the_blob
            delete_of_a_missing_blob_does_nothing
            a_deleted_key_can_be_created_again
            a_body_with_the_expected_hash_is_put
            a_body_with_another_hash_is_corrupt_and_leaves_nothing
            a_large_body_with_another_hash_is_corrupt_and_leaves_nothing
            a_body_that_fails_leaves_nothing_and_gives_its_error
            a_failed_replace_keeps_the_old_blob
            a_blob_is_invisible_until_its_body_ended
            a_dropped_put_leaves_nothing_visible
            a_dropped_replace_keeps_the_old_blob
            a_key_is_free_after_a_dropped_put
            leftovers_of_dropped_puts_can_be_collected
            collecting_garbage_touches_no_blob
            collecting_garbage_spares_a_young_put
            a_damaged_blob_is_corrupt_at_the_end_of_its_stream
            a_list_is_ordered_by_the_bytes_of_the_keys
            a_list_of_nothing_is_an_empty_page
            a_list_under_a_folder_leaves_out_its_neighbours
            a_page_has_at_most_its_limit
            pages_hold_every_blob_exactly_once
            pages_stay_stable_while_others_write
            a_list_can_start_behind_a_key_that_does_not_exist
            a_list_tells_size_and_time
            a_create_only_race_has_exactly_one_winner
            a_create_only_race_of_large_bodies_has_exactly_one_winner
            racing_replaces_leave_one_body_whole
            a_reader_sees_the_old_or_the_new_blob_never_a_mix
            writers_of_different_keys_do_not_disturb_each_other
            a_delete_during_a_read_does_not_mix_into_it
        );
    };
    (@cases $factory:expr; $($case:ident)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let subject: Option<$crate::conformance::Subject> = $factory.await;
                if let Some(subject) = subject {
                    $crate::conformance::$case(&subject).await;
                }
            }
        )+
    };
}

/// More than two of the smallest upload parts of S3 (5 MiB), so that a put takes several.
const LARGE: usize = (11 << 20) + 11;

fn key(text: &str) -> BlobKey {
    BlobKey::parse(text).unwrap()
}

/// Bytes that differ by place and by seed, so that a swapped, lost or repeated part shows.
fn content(size: usize, seed: u8) -> Bytes {
    let mut bytes = Vec::with_capacity(size);
    let mut block = [seed; 512];
    for index in 0..size.div_ceil(block.len()) {
        block[1..9].copy_from_slice(&index.to_le_bytes());
        bytes.extend_from_slice(&block[..block.len().min(size - bytes.len())]);
    }
    bytes.into()
}

fn in_chunks(bytes: &Bytes, chunk: usize) -> ByteStream {
    let starts = (0..bytes.len()).step_by(chunk.max(1));
    let parts: Vec<_> =
        starts.map(|start| Ok(bytes.slice(start..(start + chunk).min(bytes.len())))).collect();
    stream::iter(parts).boxed()
}

async fn put(subject: &Subject, name: &str, bytes: &Bytes) -> BlobMeta {
    subject.store.put_bytes(&key(name), PutOptions::REPLACE, bytes.clone()).await.unwrap()
}

async fn read(subject: &Subject, name: &str) -> Result<Bytes> {
    subject.store.get_bytes(&key(name), MAX_BLOB_BYTES).await
}

async fn assert_holds(subject: &Subject, name: &str, bytes: &Bytes) {
    let found = read(subject, name).await.unwrap();
    assert_eq!(found.len(), bytes.len(), "size of {name}");
    assert!(found == bytes, "content of {name} differs");
}

async fn gather(mut body: ByteStream) -> Result<Vec<u8>> {
    let mut whole = Vec::new();
    while let Some(chunk) = body.try_next().await? {
        whole.extend_from_slice(&chunk);
    }
    Ok(whole)
}
