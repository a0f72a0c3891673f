//! Many at once.

use super::{LARGE, Subject, assert_holds, content, gather, in_chunks, key, put, read};
use crate::{ErrorKind, PutOptions, Result};
use bytes::Bytes;
use futures::StreamExt;
use futures::future::join_all;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Barrier;

pub async fn a_create_only_race_has_exactly_one_winner(subject: &Subject) {
    for round in 0..8 {
        one_of_many_wins(subject, &format!("race/{round}"), 16, 2000).await;
    }
}

pub async fn a_create_only_race_of_large_bodies_has_exactly_one_winner(subject: &Subject) {
    one_of_many_wins(subject, "race/large", 3, LARGE).await;
}

async fn one_of_many_wins(subject: &Subject, name: &str, writers: u8, size: usize) {
    let bodies: Vec<Bytes> = (0..writers).map(|writer| content(size, writer)).collect();
    let results = all_at_once(subject, name, PutOptions::CREATE_ONLY, &bodies).await;
    let winners: Vec<usize> = (0..bodies.len()).filter(|writer| results[*writer].is_ok()).collect();
    assert_eq!(winners.len(), 1, "winners of {name}: {winners:?}");
    for error in results.iter().filter_map(|result| result.as_ref().err()) {
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    }
    assert_holds(subject, name, &bodies[winners[0]]).await;
}

pub async fn racing_replaces_leave_one_body_whole(subject: &Subject) {
    let bodies: Vec<Bytes> = (1..9).map(|writer| content(30_000 * usize::from(writer), writer)).collect();
    let results = all_at_once(subject, "replaced", PutOptions::REPLACE, &bodies).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    let found = read(subject, "replaced").await.unwrap();
    assert!(bodies.contains(&found), "what is there is no body that was put");
}

pub async fn a_reader_sees_the_old_or_the_new_blob_never_a_mix(subject: &Subject) {
    let body = |round: u8| content(if round.is_multiple_of(2) { 300_000 } else { 200_000 }, round);
    put(subject, "read", &body(0)).await;
    let done = AtomicBool::new(false);
    let writer = async {
        for round in (0..=u8::MAX).cycle().take_while(|_| !done.load(Ordering::SeqCst)) {
            put(subject, "read", &body(round)).await;
            tokio::task::yield_now().await; // to the reader, also where a put never waits
        }
    };
    let reader = async {
        for _ in 0..20 {
            let found = read(subject, "read").await.unwrap();
            assert!(found == body(found[0]), "what was read is no body that was put");
            tokio::task::yield_now().await;
        }
        done.store(true, Ordering::SeqCst);
    };
    tokio::join!(writer, reader);
}

pub async fn writers_of_different_keys_do_not_disturb_each_other(subject: &Subject) {
    let name = |n: u8| format!("folder-{}/{n}", n % 3);
    join_all((0..30).map(|n| async move {
        put(subject, &name(n), &content(5000, n)).await;
        assert_holds(subject, &name(n), &content(5000, n)).await;
        if n % 2 == 0 {
            subject.store.delete(&key(&name(n))).await.unwrap();
        }
    }))
    .await;
    for n in 0..30 {
        match n % 2 {
            0 => assert_eq!(read(subject, &name(n)).await.unwrap_err().kind(), ErrorKind::NotFound),
            _ => assert_holds(subject, &name(n), &content(5000, n)).await,
        }
    }
}

pub async fn a_delete_during_a_read_does_not_mix_into_it(subject: &Subject) {
    let bytes = content(LARGE, 3);
    put(subject, "deleted", &bytes).await;
    let mut blob = subject.store.get(&key("deleted"), None).await.unwrap();
    let first = blob.body.next().await.unwrap().unwrap();
    subject.store.delete(&key("deleted")).await.unwrap();
    // A backend may end the stream with an error; it must not end it early as if that were all.
    if let Ok(rest) = gather(blob.body).await {
        assert!([first.to_vec(), rest].concat() == bytes, "the stream ended early or with other bytes");
    }
}

async fn all_at_once(
    subject: &Subject,
    name: &str,
    options: PutOptions,
    bodies: &[Bytes],
) -> Vec<Result<()>> {
    let start = Arc::new(Barrier::new(bodies.len()));
    let tasks = bodies.iter().map(|body| {
        let (store, start, body, key) = (subject.store(), start.clone(), body.clone(), key(name));
        tokio::spawn(async move {
            start.wait().await;
            let chunks = in_chunks(&body, 1 << 20);
            store.put(&key, options, chunks).await.map(|_| ())
        })
    });
    join_all(tasks).await.into_iter().map(|ended| ended.unwrap()).collect()
}
