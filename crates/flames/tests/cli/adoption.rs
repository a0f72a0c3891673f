//! A daemon that dies or stops leaves its sandboxes running, and the next one takes them over.

use crate::home::Home;
use crate::host;

#[test]
fn vm_outlives_a_killed_daemon_and_a_stopped_one_and_is_adopted() {
    let Some(mut home) = Home::with_vms() else { return };
    home.up();
    let id = home.create(&["--timeout", "0"]);
    home.sh(&id, "echo mark > /run/mark");
    let vmm = host::vmms(&home.data());
    for signal in ["KILL", "TERM"] {
        home.down(signal);
        assert_eq!(host::vmms(&home.data()), vmm, "the VM outlives SIG{signal}");
        assert_eq!(home.flames(&["ls"]).code, 3);
        home.up();
        assert_eq!(home.json(&["inspect", &id])["state"], "running");
        assert_eq!(home.sh(&id, "cat /run/mark"), "mark\n", "the same VM after SIG{signal}");
        assert_eq!(host::vmms(&home.data()), vmm);
    }
    home.ok(&["rm", &id]);
    assert_eq!(host::vmms(&home.data()), [0; 0]);
}

#[test]
fn vm_that_died_while_no_daemon_ran_is_failed_and_one_in_the_making_is_gone() {
    let Some(mut home) = Home::with_vms() else { return };
    home.up();
    let lost = home.create(&[]);
    let vmm = host::vmms(&home.data());
    let mut creating = home.spawn(&["create"]);
    host::wait_for("a second VMM", || host::vmms(&home.data()).len() == 2);
    home.down("KILL");
    creating.wait().unwrap();
    host::signal(vmm[0], "KILL");
    host::wait_for("its end", || !host::vmms(&home.data()).contains(&vmm[0]));
    home.up();
    assert_eq!(home.ok(&["ls", "-q"]).trim(), lost);
    assert_eq!(home.json(&["inspect", &lost])["failure"]["cause"], "lost_while_down");
    assert_eq!(host::vmms(&home.data()), [0; 0]);
}
