//! The suite can fail: every flaw is caught by the promise that is about it.
#![allow(clippy::unwrap_used)]

use flames_state::conformance::{BrokenStateStore, Fixture, Flaw};
use futures::future::BoxFuture;
use std::sync::Arc;

type Promise = fn(Fixture) -> BoxFuture<'static, ()>;

macro_rules! table {
    ([] $($promise:ident)+) => {
        const PROMISES: &[(&str, Promise)] =
            &[$((stringify!($promise), |fixture| Box::pin(flames_state::conformance::$promise(fixture)))),+];
    };
}
flames_state::__state_promises! { table, }

fn promise(name: &str) -> Promise {
    PROMISES.iter().find(|(promise, _)| *promise == name).unwrap_or_else(|| panic!("no promise `{name}`")).1
}

async fn keeps(flaw: Flaw, name: &str) -> bool {
    let fixture = Fixture::new(Arc::new(BrokenStateStore::new(flaw)));
    tokio::spawn(promise(name)(fixture)).await.is_ok()
}

/// Time is virtual, so that waiting for an event that never comes costs nothing.
#[tokio::test(start_paused = true)]
async fn every_flaw_is_caught_by_its_promise() {
    let mut missed = Vec::new();
    for (flaw, name) in Flaw::CAUGHT_BY {
        if keeps(*flaw, name).await {
            missed.push((flaw, name));
        }
    }
    assert!(missed.is_empty(), "not caught: {missed:#?}");
}

#[tokio::test(start_paused = true)]
async fn the_same_store_without_a_flaw_keeps_every_promise() {
    for (name, _) in PROMISES {
        assert!(keeps(Flaw::None, name).await, "{name}");
    }
}

#[test]
fn every_promise_is_broken_by_some_flaw() {
    let caught: Vec<_> = Flaw::CAUGHT_BY.iter().map(|(_, name)| *name).collect();
    let unproven: Vec<_> =
        PROMISES.iter().map(|(name, _)| *name).filter(|name| !caught.contains(name)).collect();
    assert!(unproven.is_empty(), "nothing shows that these can fail: {unproven:#?}");
}
