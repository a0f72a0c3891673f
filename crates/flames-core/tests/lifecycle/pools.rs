//! Pools are kept as they were asked for, also by the next daemon.

use crate::world::{World, life, mini};
use flames_core::TemplateSettings;
use flames_core::sandbox::admit::CreateSandbox;
use flames_node::{BootLevel, TemplateName};
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
fn a_level_is_that_of_the_create_else_of_its_template_else_of_the_daemon_also_the_next_one() {
    let world = World::new();
    let mini_name = TemplateName::parse("mini").unwrap();
    let settings = TemplateSettings { level: Some(BootLevel::Fast) };
    life(async {
        let plane = world.plane().await;
        assert_eq!(plane.create(mini()).await.unwrap().level, BootLevel::Instant);
        plane.set_template_settings(&mini_name, settings).await.unwrap();
        assert_eq!(plane.create(mini()).await.unwrap().level, BootLevel::Fast);
        let own = CreateSandbox { level: Some(BootLevel::Standard), ..mini() };
        assert_eq!(plane.create(own).await.unwrap().level, BootLevel::Standard);
    });
    life(async {
        let plane = world.plane().await;
        assert_eq!(plane.create(mini()).await.unwrap().level, BootLevel::Fast);
        plane.set_template_settings(&mini_name, TemplateSettings::default()).await.unwrap();
        assert_eq!(plane.create(mini()).await.unwrap().level, BootLevel::Instant);
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
