//! What goes in comes out.

use super::{LARGE, Subject, assert_holds, content, gather, in_chunks, key, put, read};
use crate::{BlobKey, BlobStoreExt, ByteRange, Durability, ErrorKind, MAX_SEGMENT_BYTES, PutOptions, Sha256};
use bytes::Bytes;
use futures::{StreamExt, stream};
use std::time::{Duration, SystemTime};

pub async fn a_blob_of_any_size_comes_back_as_it_was_put(subject: &Subject) {
    for size in [1, 47, 48, 49, 4095, 4096, 65_537, 300_000] {
        let bytes = content(size, 1);
        put(subject, "any/size", &bytes).await;
        assert_holds(subject, "any/size", &bytes).await;
    }
}

pub async fn an_empty_blob_is_a_blob(subject: &Subject) {
    let meta =
        subject.store.put(&key("empty"), PutOptions::CREATE_ONLY, stream::empty().boxed()).await.unwrap();
    assert_eq!((meta.size, meta.sha256), (0, Sha256::of(b"")));
    assert_holds(subject, "empty", &Bytes::new()).await;
}

pub async fn a_large_blob_comes_back_as_it_was_put(subject: &Subject) {
    let bytes = content(LARGE, 2);
    let body = in_chunks(&bytes, 1 << 20);
    let meta = subject.store.put(&key("large"), PutOptions::CREATE_ONLY, body).await.unwrap();
    assert_eq!((meta.size, meta.sha256), (LARGE as u64, Sha256::of(&bytes)));
    assert_holds(subject, "large", &bytes).await;
    let options = PutOptions::REPLACE.expecting(meta.sha256);
    subject.store.put(&key("large"), options, in_chunks(&bytes, 3 << 20)).await.unwrap();
    assert_holds(subject, "large", &bytes).await;
}

pub async fn the_chunks_of_a_body_do_not_matter(subject: &Subject) {
    let bytes = content(10_000, 3);
    for chunk in [1, 7, 4096, 10_000] {
        let parts = in_chunks(&bytes, chunk);
        let with_empty_ones =
            stream::iter([Ok(Bytes::new())]).chain(parts).chain(stream::iter([Ok(Bytes::new())]));
        let meta =
            subject.store.put(&key("chunks"), PutOptions::REPLACE, with_empty_ones.boxed()).await.unwrap();
        assert_eq!(meta.sha256, Sha256::of(&bytes));
        assert_holds(subject, "chunks", &bytes).await;
    }
}

pub async fn a_blob_that_need_not_survive_a_loss_of_power_is_a_blob_like_others(subject: &Subject) {
    let (first, second) = (content(70_000, 20), content(300, 21));
    let create = PutOptions::CREATE_ONLY.surviving(Durability::Process);
    let replace = PutOptions::REPLACE.surviving(Durability::Process);
    let meta = subject.store.put_bytes(&key("light/one"), create, first.clone()).await.unwrap();
    assert_eq!((meta.size, meta.sha256), (70_000, Sha256::of(&first)));
    assert_holds(subject, "light/one", &first).await;
    let taken = subject.store.put_bytes(&key("light/one"), create, second.clone()).await.unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::AlreadyExists);
    subject.store.put_bytes(&key("light/one"), replace, second.clone()).await.unwrap();
    assert_holds(subject, "light/one", &second).await;
}

pub async fn meta_tells_size_hash_and_time(subject: &Subject) {
    let bytes = content(1000, 4);
    let meta = put(subject, "meta", &bytes).await;
    assert_eq!((meta.size, meta.sha256), (1000, Sha256::of(&bytes)));
    let age = SystemTime::now().duration_since(meta.modified).unwrap_or_default();
    assert!(age < Duration::from_secs(60), "put just now, says it is {age:?} old");
}

pub async fn head_says_what_get_says(subject: &Subject) {
    let put = put(subject, "head", &content(1000, 5)).await;
    let head = subject.store.head(&key("head")).await.unwrap();
    let get = subject.store.get(&key("head"), None).await.unwrap().meta;
    assert_eq!(head, get);
    assert_eq!((head.size, head.sha256), (put.size, put.sha256));
}

pub async fn a_missing_blob_is_not_found(subject: &Subject) {
    put(subject, "there", &content(1, 0)).await;
    assert_missing(subject, "missing").await;
    assert_missing(subject, "the").await;
    assert_missing(subject, "missing/there").await;
}

async fn assert_missing(subject: &Subject, name: &str) {
    let head = subject.store.head(&key(name)).await.unwrap_err();
    assert_eq!((head.kind(), head.id()), (ErrorKind::NotFound, name));
    assert_eq!(subject.store.get(&key(name), None).await.unwrap_err().kind(), ErrorKind::NotFound);
    let range = Some(ByteRange::starting_at(0));
    assert_eq!(subject.store.get(&key(name), range).await.unwrap_err().kind(), ErrorKind::NotFound);
}

pub async fn a_range_returns_exactly_its_bytes(subject: &Subject) {
    let bytes = content(200_000, 6);
    let meta = put(subject, "range", &bytes).await;
    for (start, end) in [(0, 1), (0, 200_000), (1, 2), (65_535, 65_537), (100, 150_000), (199_999, 200_000)] {
        let range = ByteRange::new(start, end).unwrap();
        let part = subject.store.get(&key("range"), Some(range)).await.unwrap();
        assert_eq!((part.meta.size, part.meta.sha256), (meta.size, meta.sha256), "meta is of the whole blob");
        let wanted = bytes.slice(usize::try_from(start).unwrap()..usize::try_from(end).unwrap());
        assert!(gather(part.body).await.unwrap() == wanted, "bytes {start}..{end} differ");
    }
}

pub async fn a_range_that_ends_behind_the_blob_is_cut(subject: &Subject) {
    let bytes = content(100, 7);
    put(subject, "range", &bytes).await;
    for range in [ByteRange::new(90, 1000).unwrap(), ByteRange::starting_at(90)] {
        let part = subject.store.get(&key("range"), Some(range)).await.unwrap();
        assert_eq!(gather(part.body).await.unwrap(), bytes[90..]);
    }
}

pub async fn a_range_behind_the_blob_is_invalid(subject: &Subject) {
    put(subject, "range", &content(100, 8)).await;
    put(subject, "empty", &Bytes::new()).await;
    for (name, start) in [("range", 100), ("range", 5000), ("empty", 0)] {
        let range = Some(ByteRange::starting_at(start));
        let error = subject.store.get(&key(name), range).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name} from {start}");
    }
}

pub async fn a_stream_that_is_not_read_to_its_end_does_no_harm(subject: &Subject) {
    let bytes = content(3 << 20, 9);
    put(subject, "unread", &bytes).await;
    let mut blob = subject.store.get(&key("unread"), None).await.unwrap();
    assert!(!blob.body.next().await.unwrap().unwrap().is_empty());
    drop(blob);
    assert_holds(subject, "unread", &bytes).await;
}

pub async fn create_only_refuses_a_taken_key_and_leaves_the_blob(subject: &Subject) {
    let (old, new) = (content(100, 10), content(200, 11));
    put(subject, "taken", &old).await;
    let error = subject.store.put_bytes(&key("taken"), PutOptions::CREATE_ONLY, new).await.unwrap_err();
    assert_eq!((error.kind(), error.id()), (ErrorKind::AlreadyExists, "taken"));
    assert_holds(subject, "taken", &old).await;
}

pub async fn create_only_refuses_a_taken_key_also_for_a_large_body(subject: &Subject) {
    let (old, new) = (content(100, 12), content(LARGE, 13));
    put(subject, "taken", &old).await;
    for options in [PutOptions::CREATE_ONLY, PutOptions::CREATE_ONLY.expecting(Sha256::of(&new))] {
        let error = subject.store.put(&key("taken"), options, in_chunks(&new, 1 << 20)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert_holds(subject, "taken", &old).await;
    }
}

pub async fn replace_takes_the_place_of_the_whole_blob(subject: &Subject) {
    put(subject, "replaced", &content(5000, 14)).await;
    let shorter = content(10, 15);
    put(subject, "replaced", &shorter).await;
    assert_holds(subject, "replaced", &shorter).await;
    assert_eq!(subject.store.head(&key("replaced")).await.unwrap().sha256, Sha256::of(&shorter));
}

pub async fn delete_removes_the_blob(subject: &Subject) {
    put(subject, "gone/a", &content(10, 16)).await;
    put(subject, "gone/b", &content(10, 17)).await;
    subject.store.delete(&key("gone/a")).await.unwrap();
    assert_eq!(read(subject, "gone/a").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_holds(subject, "gone/b", &content(10, 17)).await;
}

pub async fn delete_of_a_missing_blob_does_nothing(subject: &Subject) {
    put(subject, "kept", &content(10, 18)).await;
    for name in ["missing", "missing/too", "kep"] {
        subject.store.delete(&key(name)).await.unwrap();
    }
    assert_holds(subject, "kept", &content(10, 18)).await;
}

pub async fn a_deleted_key_can_be_created_again(subject: &Subject) {
    put(subject, "again/a", &content(10, 19)).await;
    subject.store.delete(&key("again/a")).await.unwrap();
    let new = content(20, 20);
    subject.store.put_bytes(&key("again/a"), PutOptions::CREATE_ONLY, new.clone()).await.unwrap();
    assert_holds(subject, "again/a", &new).await;
}

pub async fn the_longest_key_works(subject: &Subject) {
    let segment = "s".repeat(MAX_SEGMENT_BYTES);
    let longest = BlobKey::parse(format!("{segment}/{segment}/{}", "t".repeat(110))).unwrap();
    assert_eq!(longest.as_str().len(), crate::MAX_KEY_BYTES);
    put(subject, longest.as_str(), &content(10, 21)).await;
    assert_holds(subject, longest.as_str(), &content(10, 21)).await;
    let page = subject.store.list(None, None, crate::ListLimit::MAX).await.unwrap();
    assert_eq!(page.entries[0].key, longest);
}

pub async fn a_folder_is_no_blob(subject: &Subject) {
    put(subject, "there/it/is", &content(1, 0)).await;
    for name in ["there", "there/it", "there/it/is/not"] {
        assert_missing(subject, name).await;
        subject.store.delete(&key(name)).await.unwrap();
    }
    assert_holds(subject, "there/it/is", &content(1, 0)).await;
}

pub async fn a_blob_may_lie_beneath_another(subject: &Subject) {
    let (upper, lower) = (content(10, 1), content(20, 2));
    put(subject, "a", &upper).await;
    subject.store.put_bytes(&key("a/b"), PutOptions::CREATE_ONLY, lower.clone()).await.unwrap();
    assert_holds(subject, "a", &upper).await;
    assert_holds(subject, "a/b", &lower).await;
    subject.store.delete(&key("a")).await.unwrap();
    assert_holds(subject, "a/b", &lower).await;
}
