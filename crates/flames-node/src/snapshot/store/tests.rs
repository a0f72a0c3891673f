use super::*;
use crate::snapshot::GuestFacts;
use crate::{AccessToken, TemplateName};
use flames_vmm::MiB;

fn guest() -> GuestFacts {
    GuestFacts {
        template: TemplateName::parse("mini").unwrap(),
        template_sha256: "aa".into(),
        kernel_sha256: "bb".into(),
        agent_sha256: "cc".into(),
        agent_version: "1".into(),
        vcpus: 1,
        memory: MiB(64),
        disk: MiB(64),
        start_up: None,
    }
}

fn id(text: &str) -> SnapshotId {
    SnapshotId::parse(text).unwrap()
}

fn write_parts(partial: &Partial) {
    for name in crate::snapshot::Contents::MemoryAndDisk.parts() {
        std::fs::write(partial.dir().join(name), "x").unwrap();
    }
}

fn take(store: &Snapshots, name: &str) -> Arc<Snapshot> {
    let partial = store.begin(&id(name)).unwrap();
    write_parts(&partial);
    let host = HostFacts::here("fake", "1".into());
    let control_token = AccessToken::new("control");
    let captured = Captured { host, guest: guest(), control_token, settings: None };
    store.publish(partial, Keep::UntilRemoved, 7, captured).unwrap()
}

fn names(root: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(root).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_snapshot_is_seen_only_once_it_is_whole_and_by_a_later_daemon_too() {
    let root = tempfile::tempdir().unwrap();
    let store = Snapshots::open(root.path().into()).unwrap();
    let partial = store.begin(&id("s1")).unwrap();
    assert!(store.list().unwrap().is_empty());
    drop(partial);
    assert!(names(root.path()).is_empty(), "half a snapshot stayed");
    drop(take(&store, "s1"));
    drop(store);
    let later = Snapshots::open(root.path().into()).unwrap();
    assert_eq!(later.list().unwrap().len(), 1);
    later.find(&id("s1")).unwrap().check(&HostFacts::here("fake", "1".into())).unwrap();
}

#[test]
fn an_id_in_use_is_refused_and_the_first_snapshot_stays() {
    let root = tempfile::tempdir().unwrap();
    let store = Snapshots::open(root.path().into()).unwrap();
    drop(take(&store, "s1"));
    assert_eq!(store.begin(&id("s1")).unwrap_err().kind(), ErrorKind::AlreadyExists);
    let _first = store.begin(&id("s2")).unwrap();
    assert_eq!(store.begin(&id("s2")).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(store.list().unwrap().len(), 1);
}

#[test]
fn a_removed_snapshot_stays_for_who_uses_it_and_goes_with_the_last() {
    let root = tempfile::tempdir().unwrap();
    let store = Snapshots::open(root.path().into()).unwrap();
    let (one, two) = (take(&store, "s1"), store.find(&id("s1")).unwrap());
    store.remove(&id("s1")).unwrap();
    assert_eq!(store.find(&id("s1")).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(store.remove(&id("s1")).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(store.list().unwrap().is_empty());
    drop(one);
    assert!(two.parts().memory.exists());
    drop(two);
    assert!(names(root.path()).is_empty());
}

#[test]
fn another_daemon_does_not_take_away_what_this_one_uses() {
    let root = tempfile::tempdir().unwrap();
    let store = Snapshots::open(root.path().into()).unwrap();
    let used = take(&store, "s1");
    let half = store.begin(&id("s2")).unwrap();
    let other = Snapshots::open(root.path().into()).unwrap();
    assert!(half.dir().exists(), "a snapshot in the making was taken for a leftover");
    other.remove(&id("s1")).unwrap();
    assert!(used.parts().memory.exists());
    drop(store); // forgets its own
    drop(used);
    assert!(!names(root.path()).contains(&"s1".to_owned()));
}

#[test]
fn after_a_restart_what_was_removed_goes_unless_a_run_attached_to_it() {
    let root = tempfile::tempdir().unwrap();
    let store = Snapshots::open(root.path().into()).unwrap();
    for name in ["s1", "s2"] {
        // Held beyond the end of the daemon, as by a process that is killed.
        let held = take(&store, name);
        File::create(held.dir.join(REMOVED)).unwrap();
        std::mem::forget(held);
    }
    store.known().clear();
    let (used, unused) = (store.attach(&id("s1")).unwrap(), root.path().join("s2"));
    assert!(used.is_removed() && unused.exists());
    std::fs::remove_file(unused.join(LOCK)).unwrap(); // the kernel drops a dead process's locks
    store.collect().unwrap();
    assert_eq!(names(root.path()), ["s1"]);
}

#[test]
fn an_image_is_kept_though_its_own_name_goes() {
    let root = tempfile::tempdir().unwrap();
    let store = Snapshots::open(root.path().join("snapshots")).unwrap();
    let image = root.path().join("image.erofs");
    std::fs::write(&image, "image").unwrap();
    let partial = store.begin(&id("s1")).unwrap();
    partial.keep_image(IMAGE_DISK, &image).unwrap();
    std::fs::remove_file(&image).unwrap();
    assert_eq!(std::fs::read(partial.dir().join(IMAGE_DISK)).unwrap(), b"image");
    assert_eq!(partial.keep_image(AGENT_DISK, &image).unwrap_err().kind(), ErrorKind::NotFound);
}
