//! The suite can fail: every flaw of the broken recorder is caught by the promise that is about it.

use flames_ingress::conformance::{BrokenIngress, Fixture, Flaw};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

type Promise = fn(Fixture) -> Pin<Box<dyn Future<Output = ()> + Send>>;

macro_rules! table {
    ([] $($promise:ident)+) => {
        const PROMISES: &[(&str, Promise)] =
            &[$((stringify!($promise), |fixture| Box::pin(flames_ingress::conformance::$promise(fixture)))),+];
    };
}
flames_ingress::__ingress_promises! { table, }

async fn keeps(flaw: Flaw, name: &str) -> bool {
    let Some((_, promise)) = PROMISES.iter().find(|(promise, _)| *promise == name) else {
        panic!("no promise `{name}`");
    };
    let fixture = Fixture::without_data_path(Arc::new(BrokenIngress::new(flaw)));
    tokio::spawn(promise(fixture)).await.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_flaw_is_caught_by_its_promise() {
    let mut missed = Vec::new();
    for (flaw, name) in Flaw::CAUGHT_BY {
        if keeps(*flaw, name).await {
            missed.push((flaw, name));
        }
    }
    assert!(missed.is_empty(), "not caught: {missed:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_recorder_without_a_flaw_keeps_every_promise() {
    for (name, _) in PROMISES {
        assert!(keeps(Flaw::None, name).await, "{name}");
    }
}
