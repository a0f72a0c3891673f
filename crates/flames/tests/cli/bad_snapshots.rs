//! Captures that cannot be taken and snapshots that cannot be restored: each is refused with its code, id and mend, the
//! source goes on, and nothing half-made stays.

use crate::home::Home;
use serde_json::Value;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A refusal with everything that a client needs.
fn assert_refused(refused: &Value, status: u16, code: &str, id: &str) {
    assert_eq!((&refused["status"], &refused["code"]), (&status.into(), &code.into()), "{refused}");
    assert_eq!(refused["id"], id, "{refused}");
    assert!(refused["mend"].as_str().is_some_and(|mend| !mend.is_empty()), "{refused}");
}

/// One sandbox that works, the snapshots of these names, and no folder that no record knows.
fn assert_nothing_half_made(home: &Home, source: &str, names: &[&str]) {
    assert_eq!(home.ok(&["ls", "-q"]).trim(), source);
    let listed = home.json(&["snapshot", "ls"]);
    let listed: Vec<&str> =
        listed.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(listed, names);
    let partial = |path: &PathBuf| path.to_str().unwrap().ends_with(".partial");
    let folders = fs::read_dir(home.data().join("snapshots")).unwrap().map(|entry| entry.unwrap().path());
    assert_eq!(folders.filter(partial).collect::<Vec<_>>(), [] as [PathBuf; 0]);
    assert_eq!(home.sh(source, "echo fine"), "fine\n");
}

#[test]
fn vm_that_does_not_run_is_neither_captured_nor_forked() {
    let Some(mut home) = Home::with_vms() else { return };
    home.up();
    let id = home.create(&["--timeout", "600"]);
    let capture = |status, code| {
        for words in [&["snapshot", "create", "--name", "never", &id][..], &["fork", "-n", "2", &id]] {
            assert_refused(&home.refused(words), status, code, &id);
        }
    };
    for pause in [&["pause", "--memory", &id][..], &["pause", &id]] {
        home.ok(pause);
        capture(409, "sandbox_not_running");
        home.ok(&["resume", &id]);
        assert_nothing_half_made(&home, &id, &[]);
    }
    for count in ["0", "21"] {
        let refused = home.refused(&["fork", "-n", count, &id]);
        assert_eq!((&refused["status"], &refused["id"]), (&400.into(), &"count".into()), "{refused}");
        assert!(refused["detail"].as_str().unwrap().contains("1 to 20"), "{refused}");
    }
    assert_nothing_half_made(&home, &id, &[]);
    home.ok(&["rm", &id]);
    capture(404, "sandbox_not_found");
    assert_eq!(home.json(&["snapshot", "ls"]), Value::Array(vec![]));
}

#[test]
fn vm_snapshot_of_another_vmm_cpu_or_architecture_is_refused_and_is_whole_afterwards() {
    let Some(mut home) = Home::with_vms() else { return };
    home.up();
    let source = home.create(&["--timeout", "600"]);
    let snapshot = home.ok(&["snapshot", "create", "--name", "moved", &source]).trim().to_owned();
    let taken = home.refused(&["snapshot", "create", "--name", "moved", &source]);
    assert_refused(&taken, 409, "snapshot_name_taken", "moved");
    let path = home.data().join("snapshots").join(&snapshot).join("manifest.json");
    let own = fs::read_to_string(&path).unwrap();
    for (fact, word) in
        [("vmm_version", "VMM version"), ("cpu_model", "CPU"), ("architecture", "architecture")]
    {
        // A daemon reads a manifest once.
        home.down("TERM");
        let mut foreign: Value = serde_json::from_str(&own).unwrap();
        foreign["host"][fact] = "foreign".into();
        fs::write(&path, foreign.to_string()).unwrap();
        home.up();
        let refused = home.refused(&["create", "--from-snapshot", "moved"]);
        assert_refused(&refused, 409, "snapshot_unusable", &snapshot);
        let detail = refused["detail"].as_str().unwrap();
        assert!(detail.contains(&format!("its {word} is `foreign`")), "{detail}");
        assert_nothing_half_made(&home, &source, &["moved"]);
    }
    home.down("TERM");
    fs::write(&path, own).unwrap();
    home.up();
    let clone = home.ok(&["create", "--from-snapshot", "moved"]).trim().to_owned();
    assert_eq!(home.sh(&clone, "echo fine"), "fine\n");
}

#[test]
fn vm_snapshot_with_one_byte_altered_is_refused_and_works_again_with_it_back() {
    let Some(mut home) = Home::with_vms() else { return };
    home.up();
    let source = home.create(&["--timeout", "600"]);
    let snapshot = home.ok(&["snapshot", "create", "--name", "rotten", &source]).trim().to_owned();
    let folder = home.data().join("snapshots").join(&snapshot);
    for part in ["memory", "disk.ext4", "device_state"] {
        flip_a_byte(&folder.join(part));
        let refused = home.refused(&["create", "--from-snapshot", "rotten"]);
        assert_refused(&refused, 409, "snapshot_unusable", &snapshot);
        let detail = refused["detail"].as_str().unwrap();
        assert!(detail.contains(part) && detail.contains("altered"), "{detail}");
        assert_nothing_half_made(&home, &source, &["rotten"]);
        flip_a_byte(&folder.join(part));
    }
    let clone = home.ok(&["create", "--from-snapshot", "rotten"]).trim().to_owned();
    assert_eq!(home.sh(&clone, "echo fine"), "fine\n");
}

/// Twice is as before.
fn flip_a_byte(path: &Path) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let (middle, mut byte) = (file.metadata().unwrap().len() / 2, [0]);
    file.read_exact_at(&mut byte, middle).unwrap();
    file.write_all_at(&[!byte[0]], middle).unwrap();
}

#[test]
fn vm_template_of_which_clones_live_stays_and_a_pool_that_cannot_be_meant_is_not_made() {
    let Some(mut home) = Home::with_vms() else { return };
    home.up();
    let source = home.create(&["--timeout", "600"]);
    home.ok(&["snapshot", "create", "--name", "kept", &source]);
    let clone = home.ok(&["create", "--from-snapshot", "kept"]).trim().to_owned();
    home.ok(&["rm", &source]);
    let refused = home.refused(&["template", "rm", "mini"]);
    assert_eq!((&refused["status"], &refused["id"]), (&409.into(), &"mini".into()), "{refused}");
    assert!(refused["detail"].as_str().unwrap().contains("pause them to disk"), "{refused}");
    assert_eq!(home.sh(&clone, "echo fine"), "fine\n");
    for (words, said) in
        [(&["--min", "9", "--max", "2"][..], "minimum"), (&["--strategy", "best"], "round-robin")]
    {
        let ended = home.flames(&[&["--json", "pool", "set", "mini"], words].concat());
        assert!(ended.code != 0 && ended.stderr.contains(said), "{words:?}: {ended:?}");
    }
    assert_eq!(home.json(&["pool", "ls"]), Value::Array(vec![]));
}
