//! Promises about jobs that used up their attempts.

use super::Fixture;
use super::ground::{Ground, LONG, PATIENCE, SHORT, attempts, batch, job, pass, payload};
use crate::{DeadLetter, Delay, ErrorKind, FailureKind, JobId, Nacked, Page, Reason};
use tokio::time::Instant;

/// See the name.
pub async fn a_job_is_dead_after_its_last_attempt_with_the_reason_of_each(fixture: Fixture) {
    let ground = Ground::of(&fixture);
    let id = ground.put_job(job("hopeless").max_attempts(attempts(3))).await;
    assert_eq!(fail(&ground, "first", "no disk\nleft, \"ä\"").await, Nacked::WillRetry);
    ground.wait_for_one("second", SHORT, PATIENCE).await.expect("a second attempt, which expires");
    assert_eq!(fail(&ground, "third", "no memory").await, Nacked::Dead);
    let letters = ground.dead().await;
    let [letter] = letters.as_slice() else { panic!("one dead letter, not {letters:?}") };
    assert_eq!((&letter.id, &letter.payload, letter.max_attempts), (&id, &payload("hopeless"), attempts(3)));
    let told: Vec<_> = letter.failures.iter().map(|f| (f.attempt, f.consumer.as_str(), f.kind)).collect();
    let (nacked, expired) = (FailureKind::Nacked, FailureKind::Expired);
    assert_eq!(told, [(1, "first", nacked), (2, "second", expired), (3, "third", nacked)]);
    let reasons: Vec<_> = letter.failures.iter().map(|failure| failure.reason.as_str()).collect();
    assert_eq!((reasons[0], reasons[2]), ("no disk\nleft, \"ä\"", "no memory"));
    assert!(reasons[1].contains("expired"), "{reasons:?}");
}

/// See the name.
pub async fn a_last_attempt_that_expires_is_dead_without_any_consumer(fixture: Fixture) {
    let ground = Ground::of(&fixture);
    let id = ground.put_job(job("last").max_attempts(attempts(1))).await;
    ground.take_one(SHORT).await;
    pass(SHORT * 2).await;
    let letter = only_dead(&ground).await;
    assert_eq!((&letter.id, letter.failures.len()), (&id, 1));
    assert_eq!(letter.failures[0].kind, FailureKind::Expired);
    assert_eq!((ground.depth().await.dead, ground.depth().await.ready), (1, 0));
}

/// See the name.
pub async fn a_dead_job_is_not_leased(fixture: Fixture) {
    let ground = Ground::of(&fixture);
    kill(&ground, "dead").await;
    assert!(ground.wait_for_one("hopeful", LONG, SHORT).await.is_none());
}

/// See the name.
pub async fn a_requeued_dead_job_has_all_its_attempts_again(fixture: Fixture) {
    let ground = Ground::of(&fixture);
    let dead = kill(&ground, "second life").await;
    let id = ground.queue.requeue_dead(&ground.name, &dead).await.expect("requeue");
    assert!(ground.dead().await.is_empty(), "it lives and is dead");
    let leased = ground.take_one(LONG).await;
    assert_eq!((&leased.lease.job, leased.attempt), (&id, 1));
    assert_eq!(leased.payload, payload("second life"));
    ground.queue.nack(&leased.lease, &Reason::new("again"), Delay::NONE).await.expect("nack");
    let letter = only_dead(&ground).await;
    assert_eq!((letter.failures.len(), letter.failures[0].reason.as_str()), (1, "again"));
}

/// See the name.
pub async fn a_purged_dead_job_is_gone(fixture: Fixture) {
    let ground = Ground::of(&fixture);
    let (first, second) = (kill(&ground, "first").await, kill(&ground, "second").await);
    ground.queue.purge_dead(&ground.name, &first).await.expect("purge");
    assert_eq!(only_dead(&ground).await.id, second);
    assert_eq!(ground.depth().await.dead, 1);
    let again = ground.queue.purge_dead(&ground.name, &first).await;
    assert_eq!(again.expect_err("a second purge").kind(), ErrorKind::NotFound);
}

/// See the name.
pub async fn an_unknown_dead_job_is_not_found(fixture: Fixture) {
    let ground = Ground::of(&fixture);
    let live = ground.put("alive").await;
    for id in [live, JobId::from_number(u64::from(u32::MAX)), JobId::new("no such id"), JobId::new("")] {
        let purged = ground.queue.purge_dead(&ground.name, &id).await.expect_err("purged");
        let requeued = ground.queue.requeue_dead(&ground.name, &id).await.expect_err("requeued");
        assert_eq!((purged.kind(), requeued.kind()), (ErrorKind::NotFound, ErrorKind::NotFound));
    }
    assert_eq!(ground.depth().await.ready, 1);
}

/// See the name.
pub async fn dead_letters_are_paged_in_order_each_exactly_once(fixture: Fixture) {
    let ground = Ground::of(&fixture);
    let mut expected = Vec::new();
    for number in 0..5 {
        expected.push(kill(&ground, &number.to_string()).await);
    }
    expected.sort();
    let mut page = Page::first(batch(2));
    let mut seen = Vec::new();
    for _ in 0..5 {
        let answer = ground.queue.dead_letters(&ground.name, page).await.expect("dead letters");
        assert!(answer.letters.len() <= 2, "{} letters on a page of two", answer.letters.len());
        seen.extend(answer.letters.into_iter().map(|letter| letter.id));
        let Some(next) = answer.next else { break };
        page = Page::after(next, batch(2));
    }
    assert_eq!(seen, expected);
}

/// Adds a job with one attempt and fails it.
async fn kill(ground: &Ground, text: &str) -> JobId {
    let id = ground.put_job(job(text).max_attempts(attempts(1))).await;
    assert_eq!(fail(ground, "killer", "dead").await, Nacked::Dead);
    id
}

async fn fail(ground: &Ground, consumer: &str, reason: &str) -> Nacked {
    let leased = ground.wait_for_one(consumer, LONG, PATIENCE).await.expect("a job to fail");
    ground.queue.nack(&leased.lease, &Reason::new(reason), Delay::NONE).await.expect("nack")
}

/// The one dead letter, which a backend that acts on expiry by a timer may show a moment late.
async fn only_dead(ground: &Ground) -> DeadLetter {
    let started = Instant::now();
    loop {
        let mut letters = ground.dead().await;
        if let (Some(letter), 0) = (letters.pop(), letters.len()) {
            return letter;
        }
        assert!(started.elapsed() < PATIENCE, "not exactly one dead letter: {letters:?}");
        pass(SHORT / 4).await;
    }
}
