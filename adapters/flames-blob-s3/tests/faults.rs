//! What goes wrong with a service far away.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use bytes::Bytes;
use common::{BUCKET, S3Server, SECRET};
use flames_blob::{BlobKey, BlobStore, BlobStoreExt, ErrorKind, ListLimit, PutOptions, Sha256};
use flames_blob_s3::{Credentials, S3BlobStore, S3Config};
use futures::{StreamExt, stream};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;

fn key(text: &str) -> BlobKey {
    BlobKey::parse(text).unwrap()
}

#[tokio::test]
async fn a_bucket_that_does_not_exist_is_named_at_open() {
    let server = S3Server::start().await;
    let error = S3BlobStore::open(server.config("no-such-bucket")).await.unwrap_err();
    assert_eq!((error.kind(), error.id()), (ErrorKind::NotFound, "no-such-bucket"));
    assert!(error.to_string().contains("does not exist"), "{error}");
}

#[tokio::test]
async fn wrong_keys_are_refused_at_open_and_not_shown() {
    let server = S3Server::start().await;
    let credentials = Credentials::Keys {
        access_key_id: "flames-id".into(),
        secret_access_key: "wrong-secret".into(),
        session_token: None,
    };
    let error = S3BlobStore::open(S3Config { credentials, ..server.config(BUCKET) }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
    assert!(!format!("{error:?}").contains("wrong-secret"));
}

#[tokio::test]
async fn the_secret_is_shown_nowhere() {
    let server = S3Server::start().await;
    let store = server.store().await;
    let missing = store.head(&key("missing")).await.unwrap_err();
    for text in [format!("{store:?}"), format!("{missing:?}"), format!("{:?}", server.config(BUCKET))] {
        assert!(!text.contains(SECRET), "{text}");
    }
}

#[tokio::test]
async fn a_service_that_is_down_is_unavailable_in_bounded_time_and_used_again_when_it_is_up() {
    let server = S3Server::start().await;
    let address = server.address;
    let store = server.store().await;
    drop(server);
    let start = Instant::now();
    let error = store.head(&key("a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.is_retryable());
    assert!(start.elapsed() < Duration::from_secs(20), "took {:?}", start.elapsed());

    let _server = S3Server::start_at(address).await;
    store.put_bytes(&key("a"), PutOptions::CREATE_ONLY, Bytes::from_static(b"again")).await.unwrap();
    assert_eq!(store.get_bytes(&key("a"), 100).await.unwrap(), "again");
}

#[tokio::test]
async fn a_service_that_takes_connections_and_never_answers_is_given_up() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("s3://id:secret@bucket?endpoint=http://{}", silent.local_addr().unwrap());
    let start = Instant::now();
    let opening = S3BlobStore::open(S3Config::from_url(&url, |_| None).unwrap());
    let error = tokio::time::timeout(Duration::from_secs(60), opening).await.unwrap().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Unavailable), "{error:?}");
    assert!(start.elapsed() < Duration::from_secs(40), "took {:?}", start.elapsed());
}

#[tokio::test]
async fn the_parts_of_a_dropped_upload_stay_until_they_are_collected() {
    let server = S3Server::start().await;
    let store = server.store().await;
    let chunk = Bytes::from(vec![1; 1 << 20]);
    let endless = stream::iter((0..30).map(move |_| Ok(chunk.clone()))).chain(stream::pending()).boxed();
    let options = PutOptions::CREATE_ONLY.expecting(Sha256::of(b"anything"));
    let name = key("dropped");
    let put = store.put(&name, options, endless);
    assert!(tokio::time::timeout(Duration::from_secs(3), put).await.is_err());
    assert!(server.parts() > 0, "parts were on their way");
    assert!(store.list(None, None, ListLimit::MAX).await.unwrap().entries.is_empty());
    assert_eq!(store.collect_garbage(Duration::from_secs(3600)).await.unwrap(), 0, "too young");
    assert_eq!(store.collect_garbage(Duration::ZERO).await.unwrap(), 1);
    assert_eq!(server.parts(), 0);
}

#[tokio::test]
async fn a_failed_upload_leaves_no_parts() {
    let server = S3Server::start().await;
    let store = server.store().await;
    let options = PutOptions::CREATE_ONLY.expecting(Sha256::of(b"something else"));
    let large = Bytes::from(vec![1; 20 << 20]);
    let error = store.put_bytes(&key("failed"), options, large).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(server.parts(), 0);
    assert_eq!(store.collect_garbage(Duration::ZERO).await.unwrap(), 0);
}

#[tokio::test]
async fn an_object_of_a_stranger_is_not_taken_for_a_blob() {
    let server = S3Server::start().await;
    let store = server.store().await;
    store.put_bytes(&key("mine"), PutOptions::REPLACE, Bytes::from_static(b"x")).await.unwrap();
    std::fs::write(server.path(&key("mine")).with_file_name("a stranger's"), "y").unwrap();
    std::fs::write(server.path(&key("no-metadata")), "z").unwrap();
    let page = store.list(None, None, ListLimit::new(1).unwrap()).await.unwrap();
    assert_eq!(page.entries[0].key, key("mine"));
    assert_eq!(store.head(&key("no-metadata")).await.unwrap_err().kind(), ErrorKind::Corrupt);
}
