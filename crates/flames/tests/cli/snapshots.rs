//! Pause, resume, snapshot and fork on real VMs, from the command line.

use crate::home::Home;
use crate::host;
use serde_json::Value;

#[test]
fn vm_paused_to_disk_comes_back_with_its_processes_and_files() {
    let Some(mut home) = Home::with_vms() else { return };
    home.up();
    let id = home.create(&["--timeout", "600"]);
    home.sh(&id, "echo kept > /home/user/file; sleep 5000 >/dev/null 2>&1 &");
    let vmm = home.json(&["inspect", &id])["host"]["pid"].clone();
    let paused = home.json(&["pause", &id]);
    assert_eq!(paused["sandbox"]["state"], "snapshotted", "{paused}");
    assert!(paused["timings"]["paused_ms"].as_f64().unwrap() > 0.0, "{paused}");
    // Its own: the daemon may be preparing the template's snapshot in another.
    let left: Vec<_> = host::vmms(&home.data()).into_iter().filter(|pid| vmm == *pid).collect();
    assert_eq!((left, vmm.is_u64()), (vec![], true), "no VMM while it rests");
    assert_eq!(home.refused(&["exec", "-n", &id, "--", "true"])["code"], "sandbox_not_running");
    assert_eq!(home.refused(&["pause", &id])["status"], 409);
    let resumed = home.json(&["resume", &id]);
    assert_eq!(
        (&resumed["sandbox"]["id"], &resumed["sandbox"]["state"]),
        (&id.clone().into(), &"running".into())
    );
    assert_eq!(home.sh(&id, "cat /home/user/file; ps | grep -c '[s]leep 5000'"), "kept\n1\n");
    assert_eq!(home.refused(&["resume", &id])["code"], "sandbox_not_paused");
    home.ok(&["rm", &id]);
}

#[test]
fn vm_whose_disk_alone_was_kept_boots_as_the_same_sandbox_also_after_a_restart_of_the_daemon() {
    let Some(mut home) = Home::with_vms() else { return };
    home.up();
    let id = home.create(&["--timeout", "600", "--env", "COLOUR=red", "--workdir", "/tmp", "--label", "a=b"]);
    home.sh(&id, "echo kept >/home/user/file; sleep 5000 >/dev/null 2>&1 &");
    let boot = home.sh(&id, "cat /proc/sys/kernel/random/boot_id");
    assert_eq!(home.flames(&["pause", "--memory", "--disk-only", &id]).code, 2);
    let paused = home.json(&["pause", "--disk-only", &id]);
    let sandbox = &paused["sandbox"];
    assert_eq!((&sandbox["state"], &sandbox["kept"]), (&"snapshotted".into(), &"disk_only".into()));
    assert!(paused["timings"]["freeze_ms"].as_f64().unwrap() > 0.0, "{paused}");
    assert!(home.ok(&["ls"]).contains("snapshotted (disk only)"));
    assert_eq!(home.refused(&["fork", &id])["code"], "sandbox_not_running");
    home.down("KILL");
    home.up();
    assert_eq!(home.json(&["inspect", &id])["kept"], "disk_only");
    let resumed = home.json(&["resume", &id]);
    assert_eq!((&resumed["sandbox"]["path"], &resumed["sandbox"]["kept"]), (&"cold".into(), &Value::Null));
    assert_eq!(resumed["sandbox"]["metadata"]["a"], "b");
    assert!(resumed["timings"]["kernel_to_agent_ms"].as_f64().unwrap() > 0.0, "{resumed}");
    let told =
        home.sh(&id, "cat /home/user/file; echo $COLOUR; pwd; hostname; ps | grep -c '[s]leep 5000' || true");
    assert_eq!(told, format!("kept\nred\n/tmp\n{id}\n0\n"));
    assert_ne!(home.sh(&id, "cat /proc/sys/kernel/random/boot_id"), boot);
    home.ok(&["snapshot", "create", "--disk-only", "--name", "files", &id]);
    let clone = home.ok(&["create", "--from-snapshot", "files"]).trim().to_owned();
    let told = home.sh(&clone, "cat /home/user/file; echo $COLOUR; hostname");
    assert_eq!(told, format!("kept\nred\n{clone}\n"));
    home.ok(&["snapshot", "rm", "files"]);
}

#[test]
fn vm_paused_in_memory_comes_back_in_the_same_vmm() {
    let Some(mut home) = Home::with_vms() else { return };
    home.up();
    let id = home.create(&["--timeout", "600"]);
    let vmm = || home.json(&["inspect", &id])["host"]["pid"].as_u64();
    let before = vmm();
    assert!(home.ok(&["pause", "--memory", &id]).contains("paused"));
    assert!(home.ok(&["resume", "--timings", &id]).contains("running"));
    assert!(before.is_some() && vmm() == before);
    assert_eq!(home.sh(&id, "echo fine"), "fine\n");
}

#[test]
fn vm_snapshot_is_created_from_also_after_its_source_is_gone() {
    let Some(mut home) = Home::with_vms() else { return };
    home.up();
    let source = home.create(&["--timeout", "600"]);
    home.sh(&source, "echo golden > /home/user/mark");
    let snapshot = home.ok(&["snapshot", "create", "--name", "golden", &source]);
    assert!(home.ok(&["snapshot", "ls"]).contains("golden"));
    let taken = home.refused(&["snapshot", "create", "--name", "golden", &source]);
    assert_eq!((&taken["code"], &taken["status"]), (&"snapshot_name_taken".into(), &409.into()));
    home.sh(&source, "echo changed > /home/user/mark");
    home.ok(&["rm", &source]);
    let clone = home.ok(&["create", "--from-snapshot", "golden"]).trim().to_owned();
    assert_eq!(home.sh(&clone, "cat /home/user/mark; hostname"), format!("golden\n{clone}\n"));
    assert_eq!(home.ok(&["snapshot", "rm", snapshot.trim()]).trim(), snapshot.trim());
    assert_eq!(home.sh(&clone, "cat /home/user/mark"), "golden\n", "a clone outlives its snapshot");
    assert_eq!(home.json(&["snapshot", "ls"]), Value::Array(vec![]));
    assert_eq!(home.refused(&["create", "--from-snapshot", "golden"])["code"], "snapshot_not_found");
}

#[test]
fn vm_forks_run_beside_their_source_and_do_not_touch_each_other() {
    let Some(mut home) = Home::with_vms() else { return };
    home.up();
    let source = home.create(&["--timeout", "600"]);
    home.sh(&source, "echo shared > /home/user/mark");
    let forked = home.json(&["fork", "-n", "3", &source]);
    let forks: Vec<String> = forked["forks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|fork| fork["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(forks.len(), 3, "{forked}");
    for fork in &forks {
        assert_eq!(home.sh(fork, "cat /home/user/mark; hostname"), format!("shared\n{fork}\n"));
        home.sh(fork, &format!("echo {fork} > /home/user/mark"));
    }
    let mut random: Vec<String> =
        forks.iter().map(|fork| home.sh(fork, "head -c 16 /dev/urandom | od -An -tx1")).collect();
    random.sort();
    random.dedup();
    assert_eq!(random.len(), 3, "no two share their randomness");
    assert_eq!(home.sh(&source, "cat /home/user/mark"), "shared\n");
    for count in ["0", "21"] {
        assert_eq!(home.refused(&["fork", "-n", count, &source])["id"], "count");
    }
}

/// Hazard C10: after a pause, connections from the host that are new hang on some VMMs' vsock. Here there is none.
#[test]
fn vm_answers_new_connections_after_each_pause_and_has_no_vsock() {
    let Some(mut home) = Home::with_vms() else { return };
    home.up();
    let id = home.create(&["--timeout", "600"]);
    let rounds =
        [("1", &["pause", "--memory", &id][..]), ("2", &["pause", "--memory", &id]), ("3", &["pause", &id])];
    for (round, pause) in rounds {
        home.ok(pause);
        home.ok(&["resume", &id]);
        assert_eq!(home.sh(&id, &format!("echo {round}")), format!("{round}\n"));
    }
    assert_eq!(
        home.sh(&id, "ls /dev/vsock /dev/vhost-vsock /proc/net/vsock 2>/dev/null | wc -l").trim(),
        "0"
    );
}

#[test]
fn vm_snapshot_with_a_part_cut_short_is_refused_and_its_source_goes_on() {
    let Some(mut home) = Home::with_vms() else { return };
    home.up();
    let source = home.create(&["--timeout", "600"]);
    let snapshot = home.ok(&["snapshot", "create", "--name", "cut", &source]).trim().to_owned();
    let memory = home.data().join("snapshots").join(&snapshot).join("memory");
    let file = std::fs::File::options().write(true).open(&memory).unwrap();
    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    let refused = home.refused(&["create", "--from-snapshot", "cut"]);
    assert_eq!(
        (&refused["code"], &refused["status"]),
        (&"snapshot_unusable".into(), &409.into()),
        "{refused}"
    );
    std::fs::remove_file(&memory).unwrap();
    assert_eq!(home.refused(&["create", "--from-snapshot", "cut"])["code"], "snapshot_unusable");
    assert_eq!(home.ok(&["ls", "-q"]).trim(), source, "nothing half-made");
    assert_eq!(home.sh(&source, "echo fine"), "fine\n");
    home.ok(&["snapshot", "rm", "cut"]);
}

/// A small file system; unmounted when dropped.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(folder: std::path::PathBuf) -> Self {
        std::fs::create_dir_all(&folder).unwrap();
        let mount = ["-t", "tmpfs", "-o", "size=8m,mode=700", "tmpfs"];
        assert!(std::process::Command::new("mount").args(mount).arg(&folder).status().unwrap().success());
        Self(folder)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        assert!(std::process::Command::new("umount").arg("-l").arg(&self.0).status().unwrap().success());
    }
}

#[test]
fn vm_goes_on_when_the_disk_fills_while_its_snapshot_is_written() {
    let Some(mut home) = Home::as_root() else { return };
    let folder = home.data().join("snapshots");
    let _small = SmallDisk::mount(folder.clone());
    home.up();
    let id = home.create(&["--timeout", "600"]);
    for words in [&["snapshot", "create", "--name", "full", &id][..], &["pause", &id]] {
        let refused = home.refused(words);
        assert!(refused["status"].as_u64().unwrap() >= 500, "{refused}");
        assert!(refused["detail"].as_str().unwrap().contains("space"), "{refused}");
        assert_eq!(home.json(&["inspect", &id])["state"], "running", "{words:?}");
        assert_eq!(home.sh(&id, "echo fine"), "fine\n", "{words:?}");
        let left: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left, [""; 0].map(std::path::PathBuf::from), "{words:?}");
    }
    assert_eq!(home.json(&["snapshot", "ls"]), Value::Array(vec![]));
    home.ok(&["rm", &id]);
}
