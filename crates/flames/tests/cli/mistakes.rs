//! Mistakes that need no VM to be told: no daemon, a port in use, a bad configuration, a missing kernel.

use crate::home::Home;
use std::fs;
use std::net::TcpListener;

#[test]
fn without_a_daemon_the_exit_code_is_3_and_the_mend_is_said() {
    let home = Home::bare();
    for words in [&["ls"][..], &["create"], &["exec", "-n", "iabc", "--", "true"], &["rm", "--all"]] {
        let ended = home.flames(words);
        assert_eq!(ended.code, 3, "{words:?}: {ended:?}");
        assert!(ended.stderr.contains("flames up"), "{ended:?}");
    }
    let remote = home.flames(&["--url", "http://127.0.0.1:1", "ls"]);
    assert_eq!(remote.code, 3, "{remote:?}");
}

#[test]
fn a_port_in_use_is_said_and_nothing_is_made() {
    let home = Home::bare();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended = home.flames(&["up", "--listen", &address]);
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.stderr.contains(&address) && ended.stderr.contains("--listen"), "{ended:?}");
    assert!(!home.data().exists());
}

#[test]
fn a_second_daemon_on_the_same_data_is_refused_and_the_first_goes_on() {
    let mut home = Home::bare();
    home.up();
    let second = home.flames(&["up", "--listen", "127.0.0.1:0"]);
    assert_eq!(second.code, 1, "{second:?}");
    assert!(second.stderr.contains("another daemon") && second.stderr.contains("--data-dir"), "{second:?}");
    assert_eq!(home.ok(&["ls", "-q"]), "");
}

#[test]
fn a_missing_kernel_is_said_and_nothing_is_left() {
    let home = Home::bare();
    let assets = home.file("assets");
    fs::create_dir_all(assets.join("images")).unwrap();
    for name in ["agent.erofs", "images/mini.erofs"] {
        fs::write(assets.join(name), "").unwrap();
    }
    let ended = home.command(["run", "-n", "--", "true"]).env("FLAMES_ASSETS", &assets).output().unwrap();
    let told = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(125), "{told}");
    assert!(told.contains("vmlinux"), "{told}");
}

#[test]
fn missing_assets_are_said_and_nothing_is_left() {
    let home = Home::bare();
    let ended = home.flames(&["run", "-n", "--", "true"]);
    assert_eq!(ended.code, 125, "{ended:?}");
    assert!(ended.stderr.contains("make assets"), "{ended:?}");
}

#[test]
fn a_wrong_command_line_exits_2() {
    let home = Home::bare();
    for words in
        [&["no-such-command"][..], &["run"], &["rm"], &["up", "--listen", "nowhere"], &["timeout", "i"]]
    {
        assert_eq!(home.flames(words).code, 2, "{words:?}");
    }
}

#[test]
fn every_mistake_in_a_configuration_is_told_with_file_line_and_key() {
    let home = Home::bare();
    let file = home.file("flames.toml");
    fs::write(&file, "[api]\nlisten = 7\n\n[sandbox]\nmax_cpus = 3\n").unwrap();
    let name = file.to_str().unwrap();
    let check = home.flames(&["--config", name, "config", "check"]);
    assert_eq!(check.code, 1, "{check:?}");
    for place in [":2: api.listen:", ":5: sandbox.max_cpus:"] {
        assert!(check.stderr.contains(&format!("{name}{place}")), "{place}: {check:?}");
    }
    let as_json = home.flames(&["--json", "--config", name, "config", "check"]);
    let report: serde_json::Value = serde_json::from_slice(&as_json.stdout).unwrap();
    assert_eq!((as_json.code, &report["ok"]), (1, &false.into()));
    assert_eq!(report["mistakes"][0]["line"], 2);
    assert_eq!(home.flames(&["--config", name, "up"]).code, 1, "nothing starts with a bad file");
    assert!(!home.data().exists());
}

#[test]
fn vm_a_setting_that_the_picked_vmm_has_not_is_told() {
    let Some(mut home) = Home::with_vms() else { return };
    home.configure("\n[vmm]\nfree_page_reporting = true\n[vmm.drive_limit]\nbytes_per_s = 1000000\n");
    home.up();
    home.down("TERM");
    let log = home.daemon_log();
    let told = |key: &str| log.lines().any(|line| line.contains("has no effect") && line.contains(key));
    let for_qemu = log.lines().any(|line| line.contains("the VMM was picked") && line.contains("Qemu"));
    assert_eq!([told("vmm.free_page_reporting"), told("vmm.drive_limit")], [for_qemu; 2], "{log}");
    assert!(!told("vmm.mmds"), "{log}");
}

#[test]
fn the_shown_configuration_is_a_good_one_and_the_schema_is_json() {
    let home = Home::bare();
    fs::write(home.file("shown.toml"), home.ok(&["config", "show"])).unwrap();
    home.ok(&["--config", home.file("shown.toml").to_str().unwrap(), "config", "check"]);
    assert!(home.json(&["config", "schema"])["properties"]["api"].is_object());
    assert_eq!(home.flames(&["--config", "/no/such/file", "config", "check"]).code, 1);
}

#[test]
fn completions_are_printed_for_a_shell() {
    assert!(Home::bare().ok(&["completion", "bash"]).contains("flames"));
}
