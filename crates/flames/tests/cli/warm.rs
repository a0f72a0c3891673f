//! Warm pools of a whole daemon: set from the command line, handed out, and neither lost nor leaked when it dies.

use crate::home::Home;
use crate::host;

fn is_ready(home: &Home, members: u64) -> bool {
    home.json(&["pool", "show", "mini"])["ready"] == members
}

#[test]
fn vm_pool_of_a_killed_daemon_is_ended_by_the_next_and_filled_again() {
    let Some(mut home) = Home::with_vms() else { return };
    home.up();
    let sizes = ["--running", "1", "--paused", "1", "--prepared", "1", "--min", "0", "--max", "6"];
    home.ok(&[&["pool", "set", "mini"][..], &sizes].concat());
    host::wait_for("a full pool", || is_ready(&home, 3));
    let members = host::vmms(&home.data());
    assert_eq!(members.len(), 3, "{members:?}");
    let created = home.json(&["create", "--timeout", "0"]);
    assert_eq!(created["path"], "warm", "{created}");
    let id = created["id"].as_str().unwrap().to_owned();
    let own = created["host"]["pid"].as_u64().unwrap();
    assert!(members.iter().any(|member| u64::from(*member) == own), "one of the members became the sandbox");
    assert_eq!(home.sh(&id, "hostname").trim(), id);
    home.sh(&id, "echo mark > /run/mark");
    host::wait_for("its successor", || is_ready(&home, 3));
    let before = host::vmms(&home.data());

    home.down("KILL");
    home.up();
    assert_eq!(home.sh(&id, "cat /run/mark"), "mark\n", "the sandbox goes on");
    host::wait_for("the next daemon's pool", || is_ready(&home, 3));
    let after = host::vmms(&home.data());
    assert_eq!(after.len(), 4, "{after:?}");
    let kept: Vec<_> = after.iter().filter(|vmm| before.contains(vmm)).collect();
    assert_eq!(
        kept,
        [&u32::try_from(own).unwrap()],
        "members of the dead daemon are ended, never handed out"
    );

    home.ok(&["pool", "rm", "mini"]);
    assert_eq!(host::vmms(&home.data()), [u32::try_from(own).unwrap()]);
    home.ok(&["rm", &id]);
    home.down("TERM");
    assert_eq!(home.footprint(), [""; 0]);
}
