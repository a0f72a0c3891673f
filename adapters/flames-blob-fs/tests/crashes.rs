//! What a killed process leaves behind. The test binary starts itself again as the process to kill.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use bytes::Bytes;
use common::{damage, fresh_store, incoming_files, open};
use flames_blob::{BlobKey, BlobStore, BlobStoreExt, ErrorKind, ListLimit, MAX_BLOB_BYTES, PutOptions};
use futures::{StreamExt, stream};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Names the directory to a process that was started to be killed.
const VICTIM: &str = "FLAMES_TEST_KILL_IN";

fn key(text: &str) -> BlobKey {
    BlobKey::parse(text).unwrap()
}

#[tokio::test]
async fn a_killed_put_is_invisible_and_its_leftover_is_collected() {
    let (folder, store) = fresh_store().await;
    let mut victim = start_victim("victim_that_stops_in_the_middle_of_a_put", folder.path());
    victim.kill().unwrap();
    victim.wait().unwrap();
    assert_eq!(incoming_files(folder.path()), 1, "the killed put left its file");
    assert_eq!(store.head(&key("victim")).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(store.list(None, None, ListLimit::MAX).await.unwrap().entries.is_empty());
    assert_eq!(store.collect_garbage(Duration::from_secs(60)).await.unwrap(), 0, "too young");
    assert_eq!(store.collect_garbage(Duration::ZERO).await.unwrap(), 1);
    assert_eq!(incoming_files(folder.path()), 0);
}

#[tokio::test]
async fn a_put_of_a_living_process_is_never_collected() {
    let (folder, store) = fresh_store().await;
    let mut victim = start_victim("victim_that_stops_in_the_middle_of_a_put", folder.path());
    assert_eq!(store.collect_garbage(Duration::ZERO).await.unwrap(), 0);
    assert_eq!(incoming_files(folder.path()), 1);
    victim.kill().unwrap();
    victim.wait().unwrap();
}

#[tokio::test]
async fn a_writer_killed_at_any_moment_leaves_whole_blobs() {
    let (folder, _) = fresh_store().await;
    for round in 0..10_u64 {
        let mut victim = start_victim("victim_that_replaces_for_ever", folder.path());
        tokio::time::sleep(Duration::from_millis(7 * round)).await; // the moment is what is tried, not awaited
        victim.kill().unwrap();
        victim.wait().unwrap();
        let store = open(folder.path()).await;
        let found = store.get_bytes(&key("victim"), MAX_BLOB_BYTES).await.unwrap();
        assert!(found.iter().all(|byte| *byte == found[0]), "a mix of two bodies");
        store.collect_garbage(Duration::ZERO).await.unwrap();
        assert_eq!(incoming_files(folder.path()), 0);
    }
}

#[tokio::test]
async fn a_truncated_file_is_corrupt_at_once() {
    let (folder, store) = fresh_store().await;
    store.put_bytes(&key("cut"), PutOptions::REPLACE, Bytes::from_static(b"0123456789")).await.unwrap();
    for length in [57, 48, 47, 0] {
        let file =
            std::fs::OpenOptions::new().write(true).open(folder.path().join("blobs/cut+blob")).unwrap();
        file.set_len(length).unwrap();
        assert_eq!(store.head(&key("cut")).await.unwrap_err().kind(), ErrorKind::Corrupt);
    }
}

#[tokio::test]
async fn an_aborted_put_removes_its_file_at_once() {
    let (folder, store) = fresh_store().await;
    let endless = stream::iter([Ok(Bytes::from_static(b"x"))]).chain(stream::pending()).boxed();
    let key = key("aborted");
    let put = store.put(&key, PutOptions::CREATE_ONLY, endless);
    assert!(tokio::time::timeout(Duration::from_millis(100), put).await.is_err());
    assert_eq!(incoming_files(folder.path()), 0);
}

#[tokio::test]
async fn a_damaged_blob_can_be_replaced() {
    let (folder, store) = fresh_store().await;
    let bytes = Bytes::from_static(b"0123456789");
    store.put_bytes(&key("mended"), PutOptions::REPLACE, bytes.clone()).await.unwrap();
    damage(folder.path(), &key("mended"));
    store.put_bytes(&key("mended"), PutOptions::REPLACE, bytes.clone()).await.unwrap();
    assert_eq!(store.get_bytes(&key("mended"), 100).await.unwrap(), bytes);
}

#[tokio::test]
async fn a_delete_leaves_no_empty_folders() {
    let (folder, store) = fresh_store().await;
    store.put_bytes(&key("a/b/c"), PutOptions::REPLACE, Bytes::new()).await.unwrap();
    store.delete(&key("a/b/c")).await.unwrap();
    assert_eq!(std::fs::read_dir(folder.path().join("blobs")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_directory_that_cannot_be_made_is_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    let root = folder.path().join("file/root");
    let error =
        flames_blob_fs::FsBlobStore::open(flames_blob_fs::FsConfig { root: root.clone() }).await.unwrap_err();
    assert!(error.to_string().contains(root.to_str().unwrap()), "{error}");
}

/// Starts this binary with one test only, and waits until it says that it began.
fn start_victim(test: &str, root: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--include-ignored"]);
    let mut victim = command.env(VICTIM, root).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(victim.stdout.as_mut().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("VICTIM READY")), "the process to kill ended by itself");
    victim
}

#[tokio::test]
async fn victim_that_stops_in_the_middle_of_a_put() {
    let Ok(root) = std::env::var(VICTIM) else { return };
    let store = open(Path::new(&root)).await;
    let chunk = Bytes::from(vec![1; 1 << 20]);
    let chunks = stream::iter((0..20).map(move |_| Ok(chunk.clone())));
    let ready = stream::once(async {
        println!("VICTIM READY");
        Ok(Bytes::from_static(b"x"))
    });
    let body = chunks.chain(ready).chain(stream::pending()).boxed();
    store.put(&key("victim"), PutOptions::CREATE_ONLY, body).await.unwrap();
}

#[tokio::test]
async fn victim_that_replaces_for_ever() {
    let Ok(root) = std::env::var(VICTIM) else { return };
    let store = open(Path::new(&root)).await;
    for round in 0_u8.. {
        let body = Bytes::from(vec![round % 250; 100_000]);
        store.put_bytes(&key("victim"), PutOptions::REPLACE, body).await.unwrap();
        if round == 0 {
            println!("VICTIM READY");
        }
        if round == 200 {
            std::process::exit(3); // nobody killed it: an orphan must not write for ever
        }
    }
}
