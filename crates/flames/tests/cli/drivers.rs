//! One life of sandboxes, from the first boot to nothing left, on each VMM.

use crate::home::Home;
use crate::host;

#[test]
fn vm_lives_on_qemu() {
    live(Home::as_root());
}

/// Boots once, which is why it is one test.
#[test]
fn vm_lives_on_firecracker() {
    live(Home::on_firecracker());
}

fn live(home: Option<Home>) {
    let Some(mut home) = home else { return };
    home.up();
    let first = home.create(&["--timeout", "0"]);
    assert_eq!(home.sh(&first, "echo golden > /home/user/mark; hostname"), format!("{first}\n"));
    let clone = a_snapshot_outlives_its_source_and_clones_are_others(&home, &first);
    a_pause_keeps_processes_and_files(&home, &clone);
    forks_diverge(&home, &clone);
    the_next_daemon_takes_it_over(&mut home, &clone);
    a_vmm_that_dies_is_told_by_its_sandbox(&home, &clone);
    home.ok(&["rm", &clone]);
    home.ok(&["snapshot", "rm", "golden"]);
    assert_eq!(host::vmms(&home.data()), [0; 0]);
}

fn a_snapshot_outlives_its_source_and_clones_are_others(home: &Home, first: &str) -> String {
    home.ok(&["snapshot", "create", "--name", "golden", first]);
    let random = "head -c 16 /dev/urandom | od -An -tx1; cat /etc/machine-id";
    let source = home.sh(first, random);
    home.ok(&["rm", first]);
    let clones =
        [0; 2].map(|_| home.ok(&["create", "--timeout", "0", "--from-snapshot", "golden"]).trim().to_owned());
    let [one, two] = clones.each_ref().map(|clone| home.sh(clone, random));
    assert!(one != two && one != source && two != source, "{source}{one}{two}");
    assert_eq!(home.sh(&clones[0], "cat /home/user/mark; hostname"), format!("golden\n{}\n", clones[0]));
    assert_eq!(home.json(&["inspect", &clones[0]])["path"], "restored");
    let [kept, other] = clones;
    home.ok(&["rm", &other]);
    kept
}

fn a_pause_keeps_processes_and_files(home: &Home, id: &str) {
    home.sh(id, "sleep 5000 >/dev/null 2>&1 & echo kept > /home/user/file");
    home.ok(&["pause", id]);
    assert_eq!(host::vmms(&home.data()), [0; 0], "no VMM while it rests");
    home.ok(&["resume", id]);
    assert_eq!(home.sh(id, "cat /home/user/file; ps | grep -c '[s]leep 5000'"), "kept\n1\n");
    home.ok(&["pause", "--memory", id]);
    home.ok(&["resume", id]);
    assert_eq!(home.sh(id, "echo fine"), "fine\n");
}

fn forks_diverge(home: &Home, id: &str) {
    let forked = home.ok(&["fork", "-n", "2", id]);
    let forks: Vec<&str> = forked.split_whitespace().collect();
    assert_eq!(forks.len(), 2, "{forked}");
    home.sh(forks[0], "echo mine > /home/user/file");
    let read = |id: &str| home.sh(id, "cat /home/user/file");
    assert_eq!([read(id), read(forks[0]), read(forks[1])], ["kept\n", "mine\n", "kept\n"]);
    for fork in forks {
        home.ok(&["rm", fork]);
    }
}

fn the_next_daemon_takes_it_over(home: &mut Home, id: &str) {
    let vmm = host::vmms(&home.data());
    home.down("KILL");
    assert_eq!((host::vmms(&home.data()), vmm.len()), (vmm.clone(), 1), "a VM outlives its daemon");
    home.up();
    assert_eq!(home.json(&["inspect", id])["state"], "running");
    assert_eq!(home.sh(id, "cat /home/user/file"), "kept\n");
}

fn a_vmm_that_dies_is_told_by_its_sandbox(home: &Home, id: &str) {
    host::signal(host::vmms(&home.data())[0], "KILL");
    let state = || home.json(&["inspect", id]);
    host::wait_for("the failure", || state()["state"] == "failed");
    assert_eq!(state()["failure"]["cause"], "vm_exited", "{}", state());
}
