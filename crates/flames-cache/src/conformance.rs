//! The promises of [`CacheStore`], one public function each: memory, every decorator and every adapter run
//! them all through [`cache_conformance!`](crate::cache_conformance), so that a red line names the promise.
//!
//! A case panics when its promise is broken. Loss is legal in use, but a suite that allowed it could not
//! fail: the cache under test has room and no faults.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc, missing_docs)]

mod counters;
mod entries;
mod locks;

pub use counters::*;
pub use entries::*;
pub use locks::*;

pub use flames_provider::conformance::{is_required, skip, unique_prefix};

use crate::{CacheKey, CacheStore, CacheValue, SetIfAbsent, Ttl};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a case works on: a cache whose keys nobody else uses, and the power to lose all of them.
pub struct Subject {
    cache: Arc<dyn CacheStore>,
    wipe: Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>,
    _keep: Box<dyn Any + Send + Sync>,
}

impl Subject {
    /// `wipe` loses all entries behind the cache's back.
    pub fn new<Wipe>(cache: impl CacheStore, wipe: impl Fn() -> Wipe + Send + Sync + 'static) -> Self
    where
        Wipe: Future<Output = ()> + Send + 'static,
    {
        Self { cache: Arc::new(cache), wipe: Box::new(move || Box::pin(wipe())), _keep: Box::new(()) }
    }

    /// Keeps `guard` (a server) alive as long as the case runs.
    #[must_use]
    pub fn keeping(self, guard: impl Any + Send + Sync) -> Self {
        Self { _keep: Box::new(guard), ..self }
    }

    /// Puts a decorator around the cache.
    #[must_use]
    pub fn wrapped<W: CacheStore>(self, wrap: impl FnOnce(Arc<dyn CacheStore>) -> W) -> Self {
        Self { cache: Arc::new(wrap(self.cache)), ..self }
    }

    pub fn cache(&self) -> Arc<dyn CacheStore> {
        self.cache.clone()
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject").field("cache", &self.cache).finish_non_exhaustive()
    }
}

/// Expands to one test per promise. The expression is a future of an `Option<Subject>`; `None` skips, and
/// the factory says so with [`skip`].
#[macro_export]
macro_rules! cache_conformance {
    ($factory:expr) => {
        $crate::cache_conformance!(@cases $factory;
            a_value_comes_back_as_it_was_set
            a_missing_key_has_no_value
            an_empty_value_is_a_value
            the_largest_value_and_the_longest_key_work
            any_text_is_a_key_of_its_own
            set_replaces_the_value
            set_replaces_the_time_to_live
            a_value_ends_when_its_time_is_over
            a_value_ends_to_the_second_or_better
            delete_removes_the_value
            delete_of_a_missing_key_does_nothing
            a_wiped_cache_is_empty_and_goes_on
            set_if_absent_stores_where_nothing_is
            set_if_absent_leaves_what_is_there
            a_lock_is_free_again_when_its_time_is_over
            a_lock_is_free_again_after_a_delete
            a_refused_lock_does_not_live_longer
            a_race_for_a_lock_has_exactly_one_winner
            a_lock_is_free_again_after_a_wipe
            a_counter_starts_at_zero_and_adds
            a_counter_counts_down_below_zero
            a_counter_reads_as_its_digits
            a_number_that_was_set_can_be_counted_on
            increment_keeps_the_time_of_the_first
            a_counter_starts_again_when_its_time_is_over
            increment_of_a_text_is_invalid_and_leaves_it
            increment_past_the_largest_number_is_invalid_and_leaves_it
            increments_at_the_same_time_are_all_counted
            counters_of_different_keys_do_not_disturb_each_other
            a_counter_starts_again_after_a_wipe
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

fn key(text: &str) -> CacheKey {
    CacheKey::parse(text).unwrap()
}

fn value(bytes: impl Into<Bytes>) -> CacheValue {
    CacheValue::new(bytes).unwrap()
}

fn ttl(millis: u64) -> Ttl {
    Ttl::new(Duration::from_millis(millis)).unwrap()
}

/// For values that should outlive their case.
fn long() -> Ttl {
    ttl(600_000)
}

async fn set(subject: &Subject, name: &str, text: &str, ttl: Ttl) {
    subject.cache.set(&key(name), value(text.to_owned()), ttl).await.unwrap();
}

async fn get(subject: &Subject, name: &str) -> Option<Bytes> {
    subject.cache.get(&key(name)).await.unwrap()
}

async fn lock(subject: &Subject, name: &str, ttl: Ttl) -> SetIfAbsent {
    subject.cache.set_if_absent(&key(name), value("holder"), ttl).await.unwrap()
}

async fn count(subject: &Subject, name: &str, by: i64) -> i64 {
    subject.cache.increment(&key(name), by, long()).await.unwrap()
}

/// Asks until the entry is gone, and returns how long that took. Only time ends an entry: there is no event
/// to wait for.
async fn time_until_gone(subject: &Subject, name: &str) -> Duration {
    let start = Instant::now();
    while get(subject, name).await.is_some() {
        assert!(start.elapsed() < Duration::from_secs(10), "{name} does not end");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    start.elapsed()
}
