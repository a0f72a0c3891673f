//! `flames shell`, on a terminal that `script` provides.

use crate::home::Home;
use flames_provider::conformance::skip;
use std::io::Write;
use std::process::{Command, Stdio};

/// Runs `flames shell` on a terminal, with what is typed; gives what was shown and the exit code.
fn sit_at(home: &Home, id: &str, typed: &str) -> (String, i32) {
    let inner = home.command(["shell"]);
    let line = format!("{} shell -u root {id}", inner.get_program().to_str().unwrap());
    let mut command = Command::new("script");
    command.args(["-qec", &line, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    command.env("TERM", "xterm-test");
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let mut child = command.spawn().unwrap();
    child.stdin.as_mut().unwrap().write_all(typed.as_bytes()).unwrap();
    let ended = child.wait_with_output().unwrap();
    (String::from_utf8_lossy(&ended.stdout).into_owned(), ended.status.code().unwrap())
}

#[test]
fn vm_shell_is_a_terminal_and_gives_the_exit_code_of_the_shell() {
    let Some(mut home) = Home::with_vms() else { return };
    if Command::new("script").arg("--version").output().is_err() {
        return skip("script", "install util-linux's script");
    }
    home.up();
    let id = home.create(&[]);
    let (shown, code) = sit_at(&home, &id, "tty; stty size; echo $TERM-$((6*7)); exit 5\n");
    assert_eq!(code, 5, "{shown}");
    for wanted in ["/dev/pts/", "24 80", "xterm-test-42"] {
        assert!(shown.contains(wanted), "no {wanted} in {shown}");
    }
    home.ok(&["rm", &id]);
}

#[test]
fn a_shell_without_a_terminal_is_refused_with_what_to_use_instead() {
    let ended = Home::bare().flames(&["shell", "iabcdefghij0123456789"]);
    assert_ne!(ended.code, 0);
    assert!(ended.stderr.contains("flames exec"), "{}", ended.stderr);
}
