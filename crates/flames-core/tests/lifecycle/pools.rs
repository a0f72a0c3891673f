//! Pools are kept as they were asked for, also by the next daemon.

use crate::world::{World, life};
use flames_node::TemplateName;
use serde_json::json;

#[test]
fn a_pool_that_was_set_is_asked_for_again_by_the_next_daemon() {
    let world = World::new();
    let mini = TemplateName::parse("mini").unwrap();
    life(async {
        let written = json!({ "preset": "minimal", "maximum": 7 });
        let kept = world.plane().await.set_pool(&mini, written.as_object().unwrap()).await.unwrap();
        assert_eq!(world.node.pool_configs(), [kept]);
    });
    world.node.forget_pools();
    life(async {
        let _plane = world.plane().await;
        assert_eq!(world.node.pool_configs()[0].maximum, 7);
    });
}

#[test]
fn a_pool_that_the_node_refuses_is_not_remembered() {
    let world = World::new();
    let unknown = TemplateName::parse("unknown").unwrap();
    life(async {
        world.plane().await.set_pool(&unknown, &serde_json::Map::new()).await.unwrap_err();
        assert_eq!(flames_state::StateStore::list(&world.store, "pool/", None, 9).await.unwrap().records, []);
    });
}
