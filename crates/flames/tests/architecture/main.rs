//! The house keeps its shape: one test per rule, over what `cargo metadata` and the sources say.
//!
//! | module | what |
//! |---|---|
//! | `rules` | the rules: pure functions over a [`house::House`] |
//! | `house` | what the rules look at, and how it is read from this workspace |
//! | `proof` | each rule holds a house made up to break it against itself: the rules can fail |
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod house;
mod proof;
mod rules;

use house::House;
use rules::Broken;
use std::sync::LazyLock;

static THIS_WORKSPACE: LazyLock<House> = LazyLock::new(House::of_this_workspace);

#[track_caller]
fn assert_kept(rule: fn(&House) -> Vec<Broken>) {
    let broken = rule(&THIS_WORKSPACE);
    let told: Vec<_> = broken.iter().map(|broken| format!("  {broken}\n")).collect();
    assert!(broken.is_empty(), "the architecture is broken:\n{}", told.concat());
}

/// A house that was read wrongly would keep every rule.
#[test]
fn the_workspace_is_read_whole() {
    let one = |name: &str| THIS_WORKSPACE.crates.iter().find(|one| one.name == name).unwrap();
    let binary = THIS_WORKSPACE.in_house(one("flames"));
    assert!(binary.iter().any(|used| used.name == "flames-api"), "in-house edges");
    let sqlite = one("flames-state-sqlite");
    assert!(sqlite.is_adapter() && THIS_WORKSPACE.uses[&sqlite.name].contains("sqlx"), "edges that lead out");
    assert!(THIS_WORKSPACE.uses["sqlx"].contains("sqlx-core"), "edges of others");
    assert!(one("flames-guest").roots.len() == 2, "libraries and programs");
    assert!(THIS_WORKSPACE.files.iter().any(|file| file.path == "crates/flames/src/main.rs"), "files");
}

#[test]
fn every_crate_has_a_layer() {
    assert_kept(rules::every_crate_has_a_layer);
}

#[test]
fn imports_point_one_way() {
    assert_kept(rules::imports_point_one_way);
}

#[test]
fn an_adapter_depends_on_its_interface_alone() {
    assert_kept(rules::an_adapter_depends_on_its_interface_alone);
}

#[test]
fn an_interface_depends_on_flames_provider_alone() {
    assert_kept(rules::an_interface_depends_on_flames_provider_alone);
}

#[test]
fn only_the_binary_names_adapters() {
    assert_kept(rules::only_the_binary_names_adapters);
}

#[test]
fn only_the_node_speaks_the_guest_protocol() {
    assert_kept(rules::only_the_node_speaks_the_guest_protocol);
}

#[test]
fn core_api_and_node_reach_no_client_of_infrastructure() {
    assert_kept(rules::core_api_and_node_reach_no_client_of_infrastructure);
}

#[test]
fn every_crate_takes_its_manifest_from_the_workspace() {
    assert_kept(rules::every_crate_takes_its_manifest_from_the_workspace);
}

#[test]
fn every_crate_says_what_it_is() {
    assert_kept(rules::every_crate_says_what_it_is);
}

#[test]
fn unsafe_code_is_forbidden_outside_node_and_guest() {
    assert_kept(rules::unsafe_code_is_forbidden_outside_node_and_guest);
}

#[test]
fn no_source_file_is_too_long() {
    assert_kept(rules::no_source_file_is_too_long);
}
