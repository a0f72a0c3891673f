//! Lists, filters and the small notes on a record.

use crate::world::{World, life, mini};
use flames_core::ApiKeys;
use flames_core::clock::SystemClock;
use flames_core::sandbox::admit::CreateSandbox;
use flames_core::sandbox::error::LifecycleError;
use flames_core::sandbox::query::{Cursor, Filter, MAX_PAGE};
use flames_core::sandbox::state::State;
use flames_core::{ControlPlane, SandboxId};
use flames_provider::ErrorKind;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

async fn page(
    plane: &ControlPlane,
    after: Option<&Cursor>,
    limit: usize,
) -> (Vec<SandboxId>, Option<Cursor>) {
    let page = plane.list(&Filter::default(), after, limit).await.unwrap();
    (page.sandboxes.into_iter().map(|sandbox| sandbox.id).collect(), page.next)
}

#[test]
fn pages_show_each_sandbox_once_newest_first_while_others_come_and_go() {
    life(async {
        let plane = World::new().plane().await;
        let mut made = Vec::new();
        for _ in 0..6 {
            tokio::time::sleep(Duration::from_millis(1)).await;
            made.push(plane.create(mini()).await.unwrap().id);
        }
        made.reverse();
        let (first, next) = page(&plane, None, 2).await;
        assert_eq!(first, made[..2]);

        tokio::time::sleep(Duration::from_millis(1)).await;
        plane.create(mini()).await.unwrap();
        plane.destroy(&made[1]).await.unwrap();
        plane.destroy(&made[3]).await.unwrap();
        let (second, next) = page(&plane, next.as_ref(), 2).await;
        assert_eq!(second, [made[2].clone(), made[4].clone()]);
        let (third, next) = page(&plane, next.as_ref(), 2).await;
        assert_eq!((third.as_slice(), next), (&made[5..], None));
    });
}

#[test]
fn sandboxes_of_the_same_moment_are_on_one_page_each() {
    life(async {
        let plane = World::new().plane().await;
        let mut made = Vec::new();
        for _ in 0..7 {
            made.push(plane.create(mini()).await.unwrap().id);
        }
        let (mut seen, mut cursor) = page(&plane, None, 3).await;
        while let Some(after) = cursor {
            let (more, next) = page(&plane, Some(&after), 3).await;
            seen.extend(more);
            cursor = next;
        }
        made.sort();
        seen.sort();
        assert_eq!(seen, made);
    });
}

#[test]
fn a_page_of_none_or_of_too_many_is_refused() {
    life(async {
        let plane = World::new().plane().await;
        for limit in [0, MAX_PAGE + 1] {
            let refused = plane.list(&Filter::default(), None, limit).await.unwrap_err();
            assert!(matches!(&refused, LifecycleError::Invalid(invalid) if invalid.field == "limit"));
        }
    });
}

#[test]
fn a_filter_passes_only_what_has_all_of_it() {
    life(async {
        let plane = World::new().plane().await;
        let labels = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let both = CreateSandbox { metadata: labels(&[("a", "1"), ("b", "2")]), ..mini() };
        let both = plane.create(both).await.unwrap().id;
        plane.create(CreateSandbox { metadata: labels(&[("a", "1")]), ..mini() }).await.unwrap();
        let found = |filter: Filter| {
            let plane = plane.clone();
            async move { plane.list(&filter, None, 10).await.unwrap().sandboxes }
        };
        let with_both =
            found(Filter { metadata: labels(&[("a", "1"), ("b", "2")]), ..Filter::default() }).await;
        assert_eq!(with_both.iter().map(|sandbox| &sandbox.id).collect::<Vec<_>>(), [&both]);
        assert_eq!(found(Filter { metadata: labels(&[("a", "1")]), ..Filter::default() }).await.len(), 2);
        assert_eq!(found(Filter { template: Some("base".into()), ..Filter::default() }).await.len(), 0);
        assert_eq!(found(Filter { states: vec![State::Running], ..Filter::default() }).await.len(), 2);
        assert_eq!(found(Filter { states: vec![State::Failed], ..Filter::default() }).await.len(), 0);
    });
}

#[test]
fn the_first_commands_time_is_remembered_once() {
    life(async {
        let plane = World::new().plane().await;
        let id = plane.create(mini()).await.unwrap().id;
        assert_eq!(plane.get(&id).await.unwrap().timings.first_command_ms, None);
        plane.record_first_command(&id, 3.5).await.unwrap();
        plane.record_first_command(&id, 99.0).await.unwrap();
        assert_eq!(plane.get(&id).await.unwrap().timings.first_command_ms, Some(3.5));
    });
}

#[test]
fn a_key_opens_until_it_is_revoked_and_is_stored_as_a_hash_only() {
    life(async {
        let world = World::new();
        let keys = ApiKeys::new(Arc::new(world.store.clone()), Arc::new(SystemClock));
        let first = keys.ensure_first().await.unwrap().unwrap();
        assert!(keys.ensure_first().await.unwrap().is_none());
        let info = keys.verify(first.expose()).await.unwrap().unwrap();
        assert_eq!(keys.verify("e2b_0000").await.unwrap(), None);

        let stored = flames_state::StateStore::list(&world.store, "", None, 100).await.unwrap();
        let secret = first.expose().trim_start_matches("e2b_");
        for record in stored.records {
            assert!(!record.key.as_str().contains(secret));
            assert!(!String::from_utf8_lossy(&record.value).contains(secret));
        }

        keys.revoke(&info.id).await.unwrap();
        assert_eq!(keys.verify(first.expose()).await.unwrap(), None);
        assert_eq!(keys.revoke(&info.id).await.unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(keys.create("").await.unwrap_err().kind(), ErrorKind::InvalidInput);
    });
}
