//! What fails leaves nothing.

use super::{LARGE, Subject, assert_holds, content, in_chunks, key, put, read};
use crate::{BlobMeta, BlobStoreExt, Error, ErrorKind, ListLimit, PutOptions, Result, Sha256};
use bytes::Bytes;
use futures::channel::mpsc;
use futures::{FutureExt, SinkExt, StreamExt, stream};
use std::time::Duration;
use tokio::task::JoinHandle;

pub async fn a_body_with_the_expected_hash_is_put(subject: &Subject) {
    let bytes = content(1000, 1);
    let options = PutOptions::CREATE_ONLY.expecting(Sha256::of(&bytes));
    subject.store.put_bytes(&key("expected"), options, bytes.clone()).await.unwrap();
    assert_holds(subject, "expected", &bytes).await;
}

pub async fn a_body_with_another_hash_is_corrupt_and_leaves_nothing(subject: &Subject) {
    wrong_hash_is_corrupt(subject, content(1000, 2)).await;
}

pub async fn a_large_body_with_another_hash_is_corrupt_and_leaves_nothing(subject: &Subject) {
    wrong_hash_is_corrupt(subject, content(LARGE, 3)).await;
}

async fn wrong_hash_is_corrupt(subject: &Subject, bytes: Bytes) {
    for base in [PutOptions::CREATE_ONLY, PutOptions::REPLACE] {
        let options = base.expecting(Sha256::of(b"something else"));
        let error = subject.store.put(&key("wrong"), options, in_chunks(&bytes, 1 << 20)).await.unwrap_err();
        assert_eq!((error.kind(), error.id()), (ErrorKind::Corrupt, "wrong"));
        assert_nothing_there(subject).await;
    }
}

pub async fn a_body_that_fails_leaves_nothing_and_gives_its_error(subject: &Subject) {
    for size in [0, 1000, LARGE] {
        let body = failing_body(&content(size, 4));
        let error = subject.store.put(&key("failing"), PutOptions::CREATE_ONLY, body).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.resource(), error.id()),
            (ErrorKind::PermissionDenied, "file", "source")
        );
        assert_nothing_there(subject).await;
    }
}

pub async fn a_failed_replace_keeps_the_old_blob(subject: &Subject) {
    let old = content(500, 5);
    put(subject, "old", &old).await;
    let new = content(LARGE, 6);
    let wrong = PutOptions::REPLACE.expecting(Sha256::of(&old));
    subject.store.put(&key("old"), PutOptions::REPLACE, failing_body(&new)).await.unwrap_err();
    subject.store.put(&key("old"), wrong, in_chunks(&new, 1 << 20)).await.unwrap_err();
    assert_holds(subject, "old", &old).await;
}

pub async fn a_blob_is_invisible_until_its_body_ended(subject: &Subject) {
    let mut put = HeldPut::start(subject, PutOptions::CREATE_ONLY).await;
    assert_nothing_there(subject).await;
    put.send(content(10, 7)).await;
    put.finish().await.unwrap();
    assert!(read(subject, HELD).await.is_ok());
}

pub async fn a_dropped_put_leaves_nothing_visible(subject: &Subject) {
    for options in [PutOptions::CREATE_ONLY, PutOptions::REPLACE, expecting_anything()] {
        HeldPut::start(subject, options).await.abort().await;
        assert_nothing_there(subject).await;
    }
}

pub async fn a_dropped_replace_keeps_the_old_blob(subject: &Subject) {
    let old = content(500, 8);
    put(subject, HELD, &old).await;
    HeldPut::start(subject, PutOptions::REPLACE).await.abort().await;
    assert_holds(subject, HELD, &old).await;
}

pub async fn a_key_is_free_after_a_dropped_put(subject: &Subject) {
    HeldPut::start(subject, PutOptions::CREATE_ONLY).await.abort().await;
    let new = content(500, 9);
    subject.store.put_bytes(&key(HELD), PutOptions::CREATE_ONLY, new.clone()).await.unwrap();
    assert_holds(subject, HELD, &new).await;
}

pub async fn leftovers_of_dropped_puts_can_be_collected(subject: &Subject) {
    HeldPut::start(subject, expecting_anything()).await.abort().await;
    HeldPut::start(subject, PutOptions::CREATE_ONLY).await.abort().await;
    subject.store.collect_garbage(Duration::ZERO).await.unwrap();
    assert_eq!(
        subject.store.collect_garbage(Duration::ZERO).await.unwrap(),
        0,
        "nothing is left the second time"
    );
    assert_nothing_there(subject).await;
}

pub async fn collecting_garbage_touches_no_blob(subject: &Subject) {
    for (name, size) in [("kept/empty", 0), ("kept/small", 100), ("kept/large", LARGE)] {
        put(subject, name, &content(size, 10)).await;
    }
    assert_eq!(subject.store.collect_garbage(Duration::ZERO).await.unwrap(), 0, "there were no leftovers");
    for (name, size) in [("kept/empty", 0), ("kept/small", 100), ("kept/large", LARGE)] {
        assert_holds(subject, name, &content(size, 10)).await;
    }
}

pub async fn collecting_garbage_spares_a_young_put(subject: &Subject) {
    let put = HeldPut::start(subject, PutOptions::CREATE_ONLY).await;
    subject.store.collect_garbage(Duration::from_secs(3600)).await.unwrap();
    put.finish().await.unwrap();
    assert!(read(subject, HELD).await.is_ok());
}

pub async fn a_damaged_blob_is_corrupt_at_the_end_of_its_stream(subject: &Subject) {
    for size in [1, 1000, 3 << 20] {
        put(subject, "damaged", &content(size, 11)).await;
        (subject.damage)(&key("damaged"));
        let error = read(subject, "damaged").await.unwrap_err();
        assert_eq!((error.kind(), error.id()), (ErrorKind::Corrupt, "damaged"), "of {size} bytes");
    }
}

async fn assert_nothing_there(subject: &Subject) {
    let page = subject.store.list(None, None, ListLimit::MAX).await.unwrap();
    assert!(page.entries.is_empty(), "a failed put shows in the list: {:?}", page.entries);
    for name in [HELD, "wrong", "failing"] {
        assert_eq!(subject.store.head(&key(name)).await.unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(read(subject, name).await.unwrap_err().kind(), ErrorKind::NotFound);
    }
}

fn failing_body(bytes: &Bytes) -> crate::ByteStream {
    let error = Error::new(ErrorKind::PermissionDenied, "file", "source");
    in_chunks(bytes, 1 << 20).chain(stream::iter([Err(error)])).boxed()
}

/// Lets an adapter take the way it takes for a body whose hash is known.
fn expecting_anything() -> PutOptions {
    PutOptions::CREATE_ONLY.expecting(Sha256::of(b"anything"))
}

const HELD: &str = "held/back";

/// A put whose body waits in the middle.
struct HeldPut {
    body: mpsc::Sender<Result<Bytes>>,
    running: JoinHandle<Result<BlobMeta>>,
}

impl HeldPut {
    /// Returns when the put has taken so much of the body that an adapter has begun to write.
    async fn start(subject: &Subject, options: PutOptions) -> Self {
        let (body, chunks) = mpsc::channel(0);
        let store = subject.store.clone();
        let running = tokio::spawn(async move { store.put(&key(HELD), options, chunks.boxed()).await });
        let mut put = Self { body, running };
        let chunk = content(1 << 20, 12);
        for _ in 0..LARGE >> 20 {
            put.send(chunk.clone()).await;
        }
        put
    }

    async fn send(&mut self, chunk: Bytes) {
        self.body.send(Ok(chunk)).await.unwrap();
    }

    async fn finish(self) -> Result<BlobMeta> {
        drop(self.body);
        self.running.await.unwrap()
    }

    /// Drops the put's future.
    async fn abort(self) {
        self.running.abort();
        let ended = self.running.map(|ended| ended.unwrap_err().is_cancelled()).await;
        assert!(ended, "the put ended although its body did not");
    }
}
