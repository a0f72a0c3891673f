//! The rules can fail: each catches a house that was made up to break it, and leaves the good one alone.

use crate::house::{Crate, House, Root, SourceFile, forbids_unsafe, own_keys};
use crate::rules::{self, Broken};

/// A small house that keeps every rule.
fn good() -> House {
    House::default()
        .with("flames-provider", "crates", &["thiserror"])
        .with("flames-state", "crates", &["flames-provider"])
        .with("flames-queue", "crates", &["flames-provider"])
        .with("flames-guest", "crates", &["serde"])
        .with("flames-node", "crates", &["flames-guest", "nix"])
        .with("flames-core", "crates", &["flames-node", "flames-state", "flames-provider"])
        .with("flames-api", "crates", &["flames-core", "axum"])
        .with("flames-state-sqlite", "adapters", &["flames-state", "sqlx"])
        .with("flames", "crates", &["flames-api", "flames-state-sqlite", "reqwest"])
}

impl House {
    /// The same house with one crate more, or with more needs of a crate.
    fn with(mut self, name: &str, folder: &str, uses: &[&str]) -> Self {
        if !self.crates.iter().any(|one| one.name == name) {
            let root = Root { path: format!("{folder}/{name}/src/lib.rs"), forbids_unsafe: true };
            self.crates.push(Crate {
                name: name.to_owned(),
                folder: format!("{folder}/{name}"),
                description: "Something.".to_owned(),
                own_keys: vec![],
                roots: vec![root],
            });
        }
        self.uses.entry(name.to_owned()).or_default().extend(uses.iter().map(|used| (*used).to_owned()));
        self
    }

    fn change(mut self, name: &str, change: impl FnOnce(&mut Crate)) -> Self {
        change(self.crates.iter_mut().find(|one| one.name == name).unwrap());
        self
    }

    fn with_file(mut self, path: &str, lines: usize) -> Self {
        self.files.push(SourceFile { path: path.to_owned(), lines });
        self
    }
}

#[track_caller]
fn assert_caught(rule: fn(&House) -> Vec<Broken>, bad: &House, who: &str, what: &str) {
    assert_eq!(rule(&good()), [], "the good house");
    let broken = rule(bad);
    assert_eq!(broken.len(), 1, "{broken:#?}");
    assert_eq!(broken[0].who, who);
    assert!(broken[0].what.contains(what), "{}", broken[0]);
}

#[test]
fn a_crate_without_a_layer_is_caught() {
    let bad = good().with("flames-misc", "crates", &[]);
    assert_caught(rules::every_crate_has_a_layer, &bad, "flames-misc", "no layer");
}

#[test]
fn an_import_that_points_up_is_caught() {
    let bad = good().with("flames-node", "crates", &["flames-core"]);
    assert_caught(rules::imports_point_one_way, &bad, "flames-node", "flames-core");
}

#[test]
fn an_import_within_a_layer_is_caught() {
    let bad = good().with("flames-state", "crates", &["flames-queue"]);
    assert_caught(rules::imports_point_one_way, &bad, "flames-state", "flames-queue");
}

#[test]
fn a_program_that_needs_the_test_servers_is_caught() {
    let bad = good().with("flames-testkit", "crates", &[]).with("flames", "crates", &["flames-testkit"]);
    assert_caught(rules::imports_point_one_way, &bad, "flames", "flames-testkit");
}

#[test]
fn an_adapter_with_a_second_dependency_is_caught() {
    let bad = good().with("flames-state-sqlite", "adapters", &["flames-provider"]);
    let rule = rules::an_adapter_depends_on_its_interface_alone;
    assert_caught(rule, &bad, "flames-state-sqlite", "flames-provider, flames-state");
}

#[test]
fn an_adapter_that_is_named_after_another_interface_is_caught() {
    let bad = good().with("flames-queue-redis", "adapters", &["flames-state"]);
    assert_caught(
        rules::an_adapter_depends_on_its_interface_alone,
        &bad,
        "flames-queue-redis",
        "flames-state",
    );
}

#[test]
fn an_adapter_without_an_interface_is_caught() {
    let bad = good().with("flames-queue-redis", "adapters", &["redis"]);
    assert_caught(rules::an_adapter_depends_on_its_interface_alone, &bad, "flames-queue-redis", "nothing");
}

#[test]
fn an_interface_that_knows_another_is_caught() {
    let bad = good().with("flames-queue", "crates", &["flames-state"]);
    let rule = rules::an_interface_depends_on_flames_provider_alone;
    assert_caught(rule, &bad, "flames-queue", "flames-provider, flames-state");
}

#[test]
fn an_adapter_named_outside_the_binary_is_caught() {
    let bad = good().with("flames-core", "crates", &["flames-state-sqlite"]);
    assert_caught(rules::only_the_binary_names_adapters, &bad, "flames-core", "flames-state-sqlite");
}

#[test]
fn the_guest_protocol_outside_the_node_is_caught() {
    let bad = good().with("flames-api", "crates", &["flames-guest"]);
    assert_caught(rules::only_the_node_speaks_the_guest_protocol, &bad, "flames-api", "flames-guest");
}

#[test]
fn a_client_at_the_end_of_a_chain_is_caught_with_the_whole_chain() {
    let mut bad = good().with("flames-api", "crates", &["pretty-middleware"]);
    bad.uses.insert("pretty-middleware".to_owned(), ["reqwest".to_owned()].into());
    let rule = rules::core_api_and_node_reach_no_client_of_infrastructure;
    assert_caught(rule, &bad, "flames-api", "flames-api -> pretty-middleware -> reqwest");
}

#[test]
fn a_client_below_the_core_is_caught_in_everybody_above() {
    let bad = good().with("flames-node", "crates", &["redis"]);
    let broken = rules::core_api_and_node_reach_no_client_of_infrastructure(&bad);
    let who: Vec<_> = broken.iter().map(|broken| broken.who.as_str()).collect();
    assert_eq!(who, ["flames-node", "flames-core", "flames-api"]);
}

#[test]
fn a_manifest_that_goes_its_own_way_is_caught() {
    let bad = good().change("flames-api", |one| one.own_keys = vec!["license".to_owned()]);
    assert_caught(rules::every_crate_takes_its_manifest_from_the_workspace, &bad, "flames-api", "license");
}

#[test]
fn keys_that_a_manifest_sets_or_leaves_out_are_its_own() {
    let manifest = "[package]\nversion.workspace = true\nedition = \"2021\"\nlicense.workspace = true\n\
         [lints]\nworkspace = true\n";
    assert_eq!(own_keys(&manifest.parse().unwrap()), ["edition", "rust-version"]);
    let manifest = format!("{}rust-version.workspace = true\n", manifest.split("edition").next().unwrap());
    assert_eq!(own_keys(&manifest.parse().unwrap()), ["edition", "license", "lints"]);
}

#[test]
fn a_crate_without_a_description_is_caught() {
    let bad = good().change("flames-api", |one| one.description = " ".to_owned());
    assert_caught(rules::every_crate_says_what_it_is, &bad, "flames-api", "description");
}

#[test]
fn a_root_that_allows_unsafe_code_is_caught() {
    let bad = good().change("flames-api", |one| one.roots[0].forbids_unsafe = false);
    let rule = rules::unsafe_code_is_forbidden_outside_node_and_guest;
    assert_caught(rule, &bad, "crates/flames-api/src/lib.rs", "unsafe");
}

#[test]
fn node_and_guest_may_allow_unsafe_code() {
    let house = good().change("flames-node", |one| one.roots[0].forbids_unsafe = false);
    let house = house.change("flames-guest", |one| one.roots[0].forbids_unsafe = false);
    assert_eq!(rules::unsafe_code_is_forbidden_outside_node_and_guest(&house), []);
}

#[test]
fn a_comment_about_unsafe_code_forbids_nothing() {
    assert!(forbids_unsafe("//! Doc.\n\n#![forbid(unsafe_code)]\n"));
    assert!(!forbids_unsafe("//! We say #![forbid(unsafe_code)] here.\n// #![forbid(unsafe_code)]\n"));
}

#[test]
fn a_file_of_601_lines_is_caught_and_one_of_600_is_not() {
    let bad = good().with_file("crates/a/src/lib.rs", 600).with_file("crates/a/src/long.rs", 601);
    assert_caught(rules::no_source_file_is_too_long, &bad, "crates/a/src/long.rs", "601 lines");
}

#[test]
fn an_exception_lets_a_long_file_pass_and_is_caught_when_it_is_stale() {
    let exceptions = [("crates/a/src/long.rs", "a table")];
    assert_eq!(rules::long_files(&good().with_file("crates/a/src/long.rs", 700), &exceptions), []);
    let stale = rules::long_files(&good().with_file("crates/a/src/long.rs", 500), &exceptions);
    assert_eq!(stale.len(), 1);
    assert!(stale[0].what.contains("is not long"), "{}", stale[0]);
}

#[test]
fn every_message_says_how_to_mend() {
    let bad = good().with("flames-node", "crates", &["flames-core"]);
    let told = rules::imports_point_one_way(&bad)[0].to_string();
    assert!(told.starts_with("flames-node depends on flames-core") && told.contains("mend: "), "{told}");
}
