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
