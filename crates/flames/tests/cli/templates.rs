//! Templates of one's own: built from a tree, run from, removed.

use crate::home::Home;
use crate::host;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

#[test]
fn vm_runs_from_a_template_that_was_built_from_a_tree() {
    let Some(mut home) = Home::with_vms() else { return };
    let Some(tree) = small_tree(&home) else { return };
    home.up();
    let tree = tree.to_str().unwrap();
    let built = home.json(&["template", "build", "tiny", "--dir", tree]);
    assert_eq!((&built["name"], &built["origin"]), (&"tiny".into(), &"user".into()), "{built}");
    assert!(home.ok(&["template", "ls"]).contains("tiny"));
    let ended = home.flames(&["run", "-n", "-t", "tiny", "-u", "root", "--", "cat", "/etc/mark"]);
    assert_eq!((ended.code, ended.text().as_str()), (0, "from the tree"), "{ended:?}");

    step_bad_builds_are_refused(&home, tree);
    home.ok(&["template", "rm", "tiny"]);
    assert_eq!(home.refused(&["create", "-t", "tiny"])["code"], "template_not_found");
    assert_eq!(home.refused(&["template", "rm", "tiny"])["status"], 404);
    assert_eq!(home.refused(&["template", "rm", "mini"])["status"], 409);
}

#[test]
fn vm_keeps_its_image_when_its_template_is_built_anew_under_its_name() {
    let Some(mut home) = Home::with_vms() else { return };
    let Some(tree) = small_tree(&home) else { return };
    home.up();
    let build = || home.ok(&["template", "build", "tiny", "--dir", tree.to_str().unwrap()]);
    build();
    let old = home.create(&["-t", "tiny", "--timeout", "600"]);
    assert_eq!(home.refused(&["template", "rm", "tiny"])["status"], 409);
    fs::write(tree.join("etc/mark"), "built anew").unwrap();
    build();
    let new = home.create(&["-t", "tiny", "--timeout", "600"]);
    for (id, mark) in [(&old, "from the tree"), (&new, "built anew")] {
        assert_eq!(home.sh(id, "cat /etc/mark"), mark);
    }
    let forked = home.json(&["fork", &old]);
    let fork = forked["forks"][0]["id"].as_str().unwrap().to_owned();
    home.ok(&["pause", &old]);
    home.ok(&["resume", &old]);
    for id in [&old, &fork] {
        assert_eq!(home.sh(id, "cat /etc/mark"), "from the tree", "what the source ran from");
    }
}

#[test]
fn vm_finds_running_what_its_template_starts() {
    let Some(mut home) = Home::with_vms() else { return };
    let Some(tree) = small_tree(&home) else { return };
    home.up();
    let start = "cat /proc/sys/kernel/random/uuid > /tmp/start; busybox sleep 1; : > /tmp/up; exec busybox sleep 9999";
    build_that_starts(&home, &tree, "served", start, &["--ready-command", "test -f /tmp/up"]);
    let cold = home.json(&["create", "-t", "served", "--timeout", "600"]);
    assert_eq!(cold["path"], "cold");
    assert!(cold["timings"]["start_up_ms"].as_f64().unwrap() > 1000.0, "{cold}");
    let sizes = ["--running", "0", "--paused", "0", "--prepared", "1", "--min", "0", "--max", "1"];
    home.ok(&[&["pool", "set", "served"][..], &sizes].concat());
    host::wait_for("a pool of clones", || home.json(&["pool", "show", "served"])["ready"] == 1);
    let clones = [(); 2].map(|()| home.json(&["create", "-t", "served", "--timeout", "600"]));
    let look = |sandbox: &serde_json::Value| {
        let id = sandbox["id"].as_str().unwrap();
        home.sh(id, "busybox pidof busybox >/dev/null && cat /tmp/start")
    };
    let [first, second] = [look(&clones[0]), look(&clones[1])];
    assert_eq!((first.len(), &first), (37, &second), "both are clones of one that was started");
    assert_ne!(first, look(&cold));
    for clone in &clones {
        assert_eq!(
            (&clone["path"] != "cold", &clone["timings"]["start_up_ms"]),
            (true, &0.0.into()),
            "{clone}"
        );
    }
}

#[test]
fn vm_is_not_handed_out_when_what_its_template_starts_fails() {
    let Some(mut home) = Home::with_vms() else { return };
    let Some(tree) = small_tree(&home) else { return };
    home.configure("[sandbox]\nboot_deadline_s = 10\n");
    home.up();
    build_that_starts(&home, &tree, "ends", "echo the reason >&2; exit 7", &["--ready-command", "exit 1"]);
    let refused = home.refused(&["create", "-t", "ends"]);
    let detail = refused["detail"].as_str().unwrap();
    assert_eq!(refused["status"], 400, "{refused}");
    assert!(detail.contains("exit status 7") && detail.contains("the reason"), "{refused}");

    let never = ["--ready-command", "echo not yet; exit 1"];
    build_that_starts(&home, &tree, "never", "echo waiting; exec busybox sleep 9999", &never);
    let refused = home.refused(&["create", "-t", "never"]);
    let detail = refused["detail"].as_str().unwrap();
    assert_eq!((&refused["status"], &refused["code"]), (&504.into(), &"timeout".into()), "{refused}");
    assert!(detail.contains("ready command") && detail.contains("waiting"), "{refused}");
    assert_eq!(host::vmms(&home.data()), [0; 0]);

    let tree = tree.to_str().unwrap();
    let refused = home.refused(&["template", "build", "empty", "--dir", tree, "--start-command", " "]);
    assert_eq!(refused["status"], 400, "{refused}");
}

fn build_that_starts(home: &Home, tree: &Path, name: &str, command: &str, more: &[&str]) {
    let words = ["template", "build", name, "--dir", tree.to_str().unwrap(), "--start-command", command];
    home.ok(&[&words[..], more].concat());
}

#[test]
fn vm_runs_from_a_tag_when_its_template_was_built_anew() {
    let Some(mut home) = Home::with_vms() else { return };
    let Some(tree) = small_tree(&home) else { return };
    home.up();
    let build = || home.ok(&["template", "build", "tiny", "--dir", tree.to_str().unwrap()]);
    build();
    let tagged = home.json(&["template", "tag", "tiny", "stable", "v1"]);
    assert_eq!((&tagged[0]["name"], &tagged[1]["name"]), (&"tiny:stable".into(), &"tiny:v1".into()));
    fs::write(tree.join("etc/mark"), "built anew").unwrap();
    build();
    for (template, mark) in [("tiny:stable", "from the tree"), ("tiny", "built anew")] {
        let ended = home.flames(&["run", "-n", "-t", template, "-u", "root", "--", "cat", "/etc/mark"]);
        assert_eq!((ended.code, ended.text().as_str()), (0, mark), "{template}: {ended:?}");
    }
    home.ok(&["template", "rm", "tiny:stable"]);
    assert_eq!(home.refused(&["create", "-t", "tiny:stable"])["code"], "template_not_found");
    for (target, tag, status) in [("mini", "v1", 409), ("nothing", "v1", 404), ("tiny", "not a tag", 400)] {
        let refused = home.refused(&["template", "tag", target, tag]);
        assert_eq!(refused["status"], status, "{target} {tag}: {refused}");
    }
}

fn step_bad_builds_are_refused(home: &Home, tree: &str) {
    for (name, dir, status) in
        [("../x", tree, 400), ("Bad", tree, 400), ("x", "/no/such/dir", 400), ("mini", tree, 409)]
    {
        let refused = home.refused(&["template", "build", name, "--dir", dir]);
        assert_eq!(refused["status"], status, "{name} {dir}: {refused}");
    }
    assert_eq!(
        home.json(&["template", "ls"]).as_array().unwrap().iter().filter(|t| t["origin"] == "user").count(),
        1
    );
}

/// busybox, a user and a file to know it by.
pub(crate) fn small_tree(home: &Home) -> Option<PathBuf> {
    let busybox = Path::new("/bin/busybox");
    if !busybox.exists() {
        flames_provider::conformance::skip("busybox", "install busybox-static");
        return None;
    }
    let tree = home.file("tree");
    for folder in ["bin", "etc", "tmp", "root", "proc", "sys", "dev", "run"] {
        fs::create_dir_all(tree.join(folder)).unwrap();
    }
    fs::copy(busybox, tree.join("bin/busybox")).unwrap();
    for name in ["sh", "cat"] {
        symlink("busybox", tree.join("bin").join(name)).unwrap();
    }
    let users = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/tmp:/bin/sh\n";
    fs::write(tree.join("etc/passwd"), users).unwrap();
    fs::write(tree.join("etc/group"), "root:x:0:\nuser:x:1000:\n").unwrap();
    fs::write(tree.join("etc/mark"), "from the tree").unwrap();
    Some(tree)
}
