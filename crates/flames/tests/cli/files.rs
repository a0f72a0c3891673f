//! `flames cp`, both ways.

use crate::home::Home;
use sha2::{Digest, Sha256};
use std::fs;
use std::path::Path;

#[test]
fn vm_files_and_trees_go_both_ways_unchanged() {
    let Some(mut home) = Home::with_vms() else { return };
    home.up();
    let id = home.create(&[]);
    step_a_large_file_arrives_and_comes_back(&home, &id);
    step_a_tree_arrives_and_comes_back(&home, &id);
    step_standard_input_and_output_work_as_files(&home, &id);
    step_a_directory_needs_recursive_and_a_missing_file_is_said(&home, &id);
    step_a_path_that_climbs_out_ends_at_the_sandboxs_own_root(&home, &id);
}

fn step_a_large_file_arrives_and_comes_back(home: &Home, id: &str) {
    let content: Vec<u8> =
        (0..20 << 20_u32).map(|place: u32| place.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    fs::write(home.file("large"), &content).unwrap();
    copy(home, &home.file("large"), &format!("{id}:/tmp/large"));
    let seen = home.sh(id, "sha256sum /tmp/large | cut -d' ' -f1; stat -c %U /tmp/large");
    assert_eq!(seen, format!("{}\nuser\n", hex::encode(Sha256::digest(&content))));
    fetch(home, &format!("{id}:/tmp/large"), &home.file("back"));
    assert!(fs::read(home.file("back")).unwrap() == content);
}

fn step_a_tree_arrives_and_comes_back(home: &Home, id: &str) {
    let tree = home.file("tree");
    fs::create_dir_all(tree.join("a/b c")).unwrap();
    fs::write(tree.join("top"), "1").unwrap();
    fs::write(tree.join("a/b c/ä%20&x"), "2").unwrap();
    let remote = format!("{id}:/tmp/tree");
    home.ok(&["cp", "-r", tree.to_str().unwrap(), &remote]);
    assert_eq!(home.sh(id, "find /tmp/tree -type f | wc -l").trim(), "2");
    home.ok(&["cp", "-r", &remote, home.file("tree-back").to_str().unwrap()]);
    assert_eq!(fs::read_to_string(home.file("tree-back/top")).unwrap(), "1");
    assert_eq!(fs::read_to_string(home.file("tree-back/a/b c/ä%20&x")).unwrap(), "2");
}

fn step_standard_input_and_output_work_as_files(home: &Home, id: &str) {
    let remote = format!("{id}:/tmp/piped");
    assert_eq!(home.flames_fed(&["cp", "-", &remote], b"through a pipe").code, 0);
    assert_eq!(home.ok(&["cp", &remote, "-"]), "through a pipe");
}

fn step_a_directory_needs_recursive_and_a_missing_file_is_said(home: &Home, id: &str) {
    let directory = home.flames(&["cp", home.file("tree").to_str().unwrap(), &format!("{id}:/tmp/x")]);
    assert!(directory.code == 1 && directory.stderr.contains("--recursive"), "{directory:?}");
    let missing = home.refused(&["cp", &format!("{id}:/no/such"), home.file("x").to_str().unwrap()]);
    assert_eq!((&missing["code"], &missing["status"]), (&"guest_not_found".into(), &404.into()));
    assert!(!home.file("x").exists(), "a failed download leaves no file");
}

fn step_a_path_that_climbs_out_ends_at_the_sandboxs_own_root(home: &Home, id: &str) {
    let climbing = format!("{id}:../../../../../../../..{}", home.file("secret").display());
    fs::write(home.file("secret"), "the host's").unwrap();
    assert_eq!(home.refused(&["cp", &climbing, "-"])["status"], 404);
    assert_eq!(home.flames_fed(&["cp", "-", &climbing], b"the guest's").code, 0);
    assert_eq!(home.ok(&["cp", &climbing, "-"]), "the guest's");
    assert_eq!(fs::read_to_string(home.file("secret")).unwrap(), "the host's");
}

fn copy(home: &Home, from: &Path, to: &str) {
    home.ok(&["cp", from.to_str().unwrap(), to]);
}

fn fetch(home: &Home, from: &str, to: &Path) {
    home.ok(&["cp", from, to.to_str().unwrap()]);
}
