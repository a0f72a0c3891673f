//! `filesystem.Filesystem`.

use crate::support::{Guest, is_root, uid};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};

const STAT: &str = "filesystem.Filesystem/Stat";
const LIST: &str = "filesystem.Filesystem/ListDir";
const MAKE: &str = "filesystem.Filesystem/MakeDir";
const MOVE: &str = "filesystem.Filesystem/Move";
const REMOVE: &str = "filesystem.Filesystem/Remove";

fn names(listing: &Value, base: &str) -> Vec<String> {
    let entries = listing["entries"].as_array().unwrap();
    entries
        .iter()
        .map(|entry| entry["path"].as_str().unwrap().strip_prefix(base).unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn a_file_is_described_with_the_names_of_its_owners() {
    let guest = Guest::start().await;
    guest.output_of("printf 12345 > ~/f; chmod 640 ~/f; touch -d 2024-02-29T12:00:00Z ~/f").await;
    let entry = guest.ok(STAT, json!({"path": "f"})).await["entry"].take();
    let want = json!({
        "name": "f", "type": "FILE_TYPE_FILE", "path": guest.path("f"), "size": "5", "mode": 0o640,
        "permissions": "-rw-r-----", "owner": "user", "group": "user", "modifiedTime": "2024-02-29T12:00:00Z",
    });
    assert_eq!(entry, want);
}

#[tokio::test]
async fn a_link_is_described_by_what_it_leads_to() {
    let guest = Guest::start().await;
    fs::create_dir(guest.path("dir")).unwrap();
    symlink("dir", guest.path("link")).unwrap();
    symlink("link", guest.path("chain")).unwrap();
    symlink("nowhere", guest.path("broken")).unwrap();
    let entry = guest.ok(STAT, json!({"path": "chain"})).await["entry"].take();
    let target = fs::canonicalize(guest.path("dir")).unwrap();
    assert_eq!(entry["type"], "FILE_TYPE_DIRECTORY");
    assert_eq!(entry["symlinkTarget"], target.to_string_lossy().as_ref());
    assert_eq!((&entry["name"], entry.get("isSymlink")), (&json!("chain"), None));
    let broken = guest.ok(STAT, json!({"path": "broken"})).await["entry"].take();
    assert_eq!((&broken["type"], &broken["symlinkTarget"]), (&json!("FILE_TYPE_SYMLINK"), &json!("nowhere")));
}

#[tokio::test]
async fn what_is_missing_is_not_found() {
    let guest = Guest::start().await;
    assert_eq!(guest.error(STAT, json!({"path": "none"})).await, "not_found");
    assert_eq!(guest.error(LIST, json!({"path": "none"})).await, "not_found");
    assert_eq!(guest.error(MOVE, json!({"source": "none", "destination": "b"})).await, "not_found");
    assert_eq!(guest.ok(REMOVE, json!({"path": "none"})).await, json!({}));
}

#[tokio::test]
async fn a_listing_goes_as_deep_as_asked_by_name_and_not_into_links() {
    let guest = Guest::start().await;
    fs::create_dir_all(guest.path("d/b/c")).unwrap();
    for file in ["d/b/c/deep", "d/b/x", "d/a", "d/z"] {
        fs::write(guest.path(file), "").unwrap();
    }
    symlink("b", guest.path("d/link")).unwrap();
    let base = format!("{}/", guest.path("d"));
    let flat = ["a", "b", "link", "z"];
    for depth in [json!({"path": "d"}), json!({"path": "d", "depth": 0}), json!({"path": "d", "depth": 1})] {
        assert_eq!(names(&guest.ok(LIST, depth).await, &base), flat);
    }
    let two = guest.ok(LIST, json!({"path": "d", "depth": 2})).await;
    assert_eq!(names(&two, &base), ["a", "b", "b/c", "b/x", "link", "z"]);
    let all = guest.ok(LIST, json!({"path": "d", "depth": 9})).await;
    assert_eq!(names(&all, &base), ["a", "b", "b/c", "b/c/deep", "b/x", "link", "z"]);
    assert_eq!(guest.error(LIST, json!({"path": "d/a"})).await, "invalid_argument");
}

#[tokio::test]
async fn entries_of_a_linked_directory_keep_the_path_that_was_asked_for() {
    let guest = Guest::start().await;
    fs::create_dir(guest.path("real")).unwrap();
    fs::write(guest.path("real/f"), "").unwrap();
    symlink("real", guest.path("alias")).unwrap();
    let listing = guest.ok(LIST, json!({"path": "alias"})).await;
    assert_eq!(names(&listing, &format!("{}/", guest.path("alias"))), ["f"]);
}

#[tokio::test]
async fn a_made_directory_and_its_parents_belong_to_the_user() {
    let guest = Guest::start().await;
    let entry = guest.ok(MAKE, json!({"path": "a/b/c"})).await["entry"].take();
    assert_eq!(
        (&entry["type"], &entry["permissions"]),
        (&json!("FILE_TYPE_DIRECTORY"), &json!("drwxr-xr-x"))
    );
    for dir in ["a", "a/b", "a/b/c"] {
        assert_eq!(fs::metadata(guest.path(dir)).unwrap().uid(), uid());
    }
    assert_eq!(guest.error(MAKE, json!({"path": "a/b"})).await, "already_exists");
    fs::write(guest.path("file"), "").unwrap();
    assert_eq!(guest.error(MAKE, json!({"path": "file"})).await, "invalid_argument");
    assert_eq!(guest.error(MAKE, json!({"path": "file/below"})).await, "invalid_argument");
}

#[tokio::test]
async fn a_move_replaces_a_file_and_makes_parents() {
    let guest = Guest::start().await;
    fs::write(guest.path("a"), "new").unwrap();
    let entry = guest.ok(MOVE, json!({"source": "a", "destination": "deep/er/b"})).await["entry"].take();
    assert_eq!((&entry["path"], &entry["size"]), (&json!(guest.path("deep/er/b")), &json!("3")));
    fs::write(guest.path("old"), "old").unwrap();
    guest.ok(MOVE, json!({"source": "deep/er/b", "destination": "old"})).await;
    assert_eq!(fs::read_to_string(guest.path("old")).unwrap(), "new");
    assert!(!fs::exists(guest.path("deep/er/b")).unwrap());
}

#[tokio::test]
async fn a_tree_is_removed_whole_and_a_link_alone() {
    let guest = Guest::start().await;
    fs::create_dir_all(guest.path("tree/below")).unwrap();
    fs::write(guest.path("kept"), "").unwrap();
    symlink(guest.path("kept"), guest.path("tree/link")).unwrap();
    guest.ok(REMOVE, json!({"path": "tree"})).await;
    assert!(!fs::exists(guest.path("tree")).unwrap());
    assert!(fs::exists(guest.path("kept")).unwrap());
    assert_eq!(guest.error(REMOVE, json!({"path": "/"})).await, "invalid_argument");
}

#[tokio::test]
async fn numbers_stand_in_for_owners_without_a_name() {
    if !is_root() {
        eprintln!("SKIPPED: only root can give files away");
        return;
    }
    let guest = Guest::start().await;
    fs::write(guest.path("f"), "").unwrap();
    std::os::unix::fs::chown(guest.path("f"), Some(61_234), Some(61_235)).unwrap();
    let entry = guest.ok(STAT, json!({"path": "f"})).await["entry"].take();
    assert_eq!((&entry["owner"], &entry["group"]), (&json!("61234"), &json!("61235")));
}
