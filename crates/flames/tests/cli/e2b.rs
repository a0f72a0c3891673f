//! Unmodified clients of E2B, installed by `scripts/install-clients.sh`, against a daemon with real microVMs.
//! Their programs lie in `tests/e2b`, and the examples of the documentation in `examples/e2b`.

use crate::home::Home;
use crate::host::{ip, wait_within};
use crate::templates::small_tree;
use flames_provider::conformance::skip;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A daemon and the clients that are pointed at it.
struct Mover {
    home: Home,
    clients: PathBuf,
    key: String,
    url: String,
}

impl Mover {
    fn new() -> Option<Self> {
        let mut home = Home::as_root()?;
        let newest = std::env::var("FLAMES_CLIENTS").is_ok_and(|which| which == "newest");
        let clients = if newest { "clients-newest" } else { "clients" };
        let clients = PathBuf::from(std::env::var_os("FLAMES_ASSETS")?).join(clients);
        let Ok(clients) = clients.canonicalize() else {
            skip("e2b-clients", "run scripts/install-clients.sh");
            return None;
        };
        let daemon = home.up();
        let (key, url) = (daemon.key.clone().unwrap(), daemon.e2b.clone());
        Some(Self { home, clients, key, url })
    }

    /// A program with the two variables and the key.
    fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command
            .env("E2B_API_KEY", &self.key)
            .env("E2B_API_URL", &self.url)
            .env("E2B_SANDBOX_URL", &self.url)
            .env("HOME", self.home.data())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env_remove("E2B_DOMAIN")
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2b"));
        command
    }

    fn python(&self, version: &str) -> Command {
        self.command(self.clients.join(version).join("bin/python"))
    }

    fn runs(&self, mut command: Command) -> String {
        let output = command.output().unwrap();
        let told = format!(
            "{}\n{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(output.status.success(), "{command:?}: {}: {told}", output.status);
        println!("{told}");
        told
    }
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/e2b").join(name)
}

#[test]
fn vm_the_python_client_lives_a_whole_life() {
    let Some(mover) = Mover::new() else { return };
    let mut command = mover.python("python");
    command.arg("lifecycle.py");
    mover.runs(command);
}

#[test]
fn vm_the_python_client_works_in_a_sandbox() {
    let Some(mover) = Mover::new() else { return };
    let mut command = mover.python("python");
    command.arg("guest.py");
    mover.runs(command);
}

#[test]
fn vm_sandboxes_rest_come_back_and_multiply() {
    let Some(mover) = Mover::new() else { return };
    let mut command = mover.python("python");
    command.arg("paused.py");
    mover.runs(command);
}

#[test]
fn vm_older_python_and_asynchronous_clients_work() {
    let Some(mover) = Mover::new() else { return };
    for (version, words) in [
        ("python-old", &["lifecycle.py", "a_sandbox_is_created"][..]),
        ("python-old", &["lifecycle.py", "lists_filter"]),
        ("python-old", &["guest.py", "commands_say"]),
        ("python-old", &["guest.py", "files_are"]),
        ("python", &["async_client.py"]),
    ] {
        let mut command = mover.python(version);
        command.args(words);
        mover.runs(command);
    }
}

#[test]
fn vm_the_javascript_client_works() {
    let Some(mover) = Mover::new() else { return };
    let mut command = mover.command("node");
    command.arg("client.mjs").arg(&mover.clients);
    mover.runs(command);
}

#[test]
fn vm_code_interpreter_clients_run_code_that_keeps_its_state() {
    let Some(mover) = Mover::new() else { return };
    let template = "code-interpreter-v1";
    if !mover.home.has_image(template) {
        skip("assets", "run `make code-interpreter`");
        return;
    }
    // Its first boot starts kernels for ten seconds and more; sandboxes are clones of what the pool makes of it.
    mover.home.ok(&[
        "pool",
        "set",
        template,
        "--running",
        "0",
        "--paused",
        "0",
        "--prepared",
        "1",
        "--min",
        "0",
        "--max",
        "1",
    ]);
    let ready = || mover.home.json(&["pool", "show", template])["ready"] == 1;
    wait_within(BOOT_WITH_KERNELS, "a pool of code interpreters", ready);
    for program in [PathBuf::from("interpreter.py"), example("code-interpreter.py")] {
        let mut client = mover.python("python");
        client.arg(program);
        mover.runs(client);
    }
    let mut client = mover.command("node");
    client.arg("interpreter.mjs").arg(&mover.clients);
    mover.runs(client);
}

/// On a machine that emulates its guests' processors and does other things besides.
const BOOT_WITH_KERNELS: Duration = Duration::from_secs(120);

#[test]
fn vm_the_examples_of_the_documentation_run() {
    let Some(mover) = Mover::new() else { return };
    let mut python = mover.python("python");
    python.arg(example("quickstart.py"));
    assert!(mover.runs(python).contains("[2, 3, 5, 7"));
    // Node finds packages beside the program.
    let script = mover.home.file("quickstart.mjs");
    std::fs::copy(example("quickstart.mts"), &script).unwrap();
    std::os::unix::fs::symlink(mover.clients.join("js/node_modules"), mover.home.file("node_modules"))
        .unwrap();
    let mut node = mover.command("node");
    node.arg(script);
    assert!(mover.runs(node).contains("42"));
    let mut shell = mover.command(example("quickstart.sh"));
    let path = std::env::var("PATH").unwrap();
    shell.env("PATH", format!("{}:{path}", mover.clients.join("js/node_modules/.bin").display()));
    assert!(mover.runs(shell).contains("hello from inside"));
}

#[test]
fn vm_a_sandbox_made_by_either_interface_is_the_others_too() {
    let Some(mover) = Mover::new() else { return };
    let mut create = mover.python("python");
    create.args(["-c", "from e2b import Sandbox; print(Sandbox.create('base').sandbox_id)"]);
    let id = mover.runs(create).trim().to_owned();
    assert_eq!(mover.home.json(&["inspect", &id])["template"], "base");
    mover.home.ok(&["rm", &id]);
    let mut look = mover.python("python");
    look.args(["-c", &format!("from e2b import Sandbox; assert Sandbox.kill('{id}') is False")]);
    mover.runs(look);
}

#[test]
fn vm_clients_speak_tls_and_http_2() {
    let Some(mut mover) = Mover::new() else { return };
    let out = mover.home.file("tls");
    mover.home.ok(&["tls", "init", "box.localhost", "--out", out.to_str().unwrap()]);
    let port = mover.url.rsplit(':').next().unwrap().to_owned();
    mover.home.down("TERM");
    mover.home.configure(&format!(
        "[e2b]\nlisten = \"127.0.0.1:{port}\"\ndomain = \"box.localhost:{port}\"\n\
         tls_certificate = \"{}\"\ntls_key = \"{}\"\n",
        out.join("tls.pem").display(),
        out.join("tls.key").display()
    ));
    mover.home.up();
    // Resolvers know `localhost` and no host below it.
    mover.url = format!("https://127.0.0.1:{port}");
    let mut client = mover.python("python");
    client.arg("tls.py").env("SSL_CERT_FILE", out.join("ca.pem"));
    mover.runs(client);
}

#[test]
fn vm_a_client_survives_a_restart_of_the_daemon() {
    let Some(mut mover) = Mover::new() else { return };
    let port = mover.url.rsplit(':').next().unwrap().to_owned();
    let flag = mover.home.file("restarted");
    let mut client = mover.python("python");
    client.args(["-c", RESTARTED]).env("FLAG", &flag);
    let mut client = client.stdout(std::process::Stdio::piped()).spawn().unwrap();
    crate::home::first_line(&mut client);
    mover.home.down("KILL");
    mover.home.configure(&format!("[e2b]\nlisten = \"127.0.0.1:{port}\"\n"));
    mover.home.up();
    std::fs::write(flag, "").unwrap();
    assert!(client.wait().unwrap().success());
}

const RESTARTED: &str = r#"
import os, time
from e2b import Sandbox
sandbox = Sandbox.create("base")
sandbox.commands.run("echo kept > kept")
print("ready", flush=True)
while not os.path.exists(os.environ["FLAG"]):
    time.sleep(0.05)
assert sandbox.commands.run("cat kept").stdout == "kept\n"
assert sandbox.files.read("kept") == "kept\n"
assert sandbox.kill() is True
"#;

#[test]
fn vm_the_command_line_looks_rests_and_wakes() {
    let Some(mover) = Mover::new() else { return };
    let mut shell = mover.command("./cli.sh");
    let path = std::env::var("PATH").unwrap();
    shell.env("PATH", format!("{}:{path}", mover.clients.join("js/node_modules/.bin").display()));
    assert!(mover.runs(shell).contains("all calls of the command line: ok"));
}

#[test]
fn vm_many_slow_and_silent_clients_are_bounded() {
    let Some(mover) = Mover::new() else { return };
    let mut client = mover.python("python");
    client.arg("many.py").env("FLAMES_PID", mover.home.daemon_pid().to_string());
    mover.runs(client);
}

#[test]
fn vm_clients_find_sandboxes_by_the_names_of_a_domain() {
    let Some(mut mover) = Mover::new() else { return };
    let out = mover.home.file("tls");
    mover.home.ok(&["tls", "init", "box.test", "--out", out.to_str().unwrap()]);
    let port = mover.url.rsplit(':').next().unwrap().to_owned();
    mover.home.down("TERM");
    mover.home.configure(&format!(
        "[e2b]\nlisten = \"127.0.0.1:{port}\"\ndomain = \"box.test:{port}\"\n\
         tls_certificate = \"{}\"\ntls_key = \"{}\"\n",
        out.join("tls.pem").display(),
        out.join("tls.key").display()
    ));
    mover.home.up();
    let names = Names::start(&mover.home);
    let node_path = mover.clients.join("js/node_modules");
    for program in [mover.clients.join("python/bin/python"), "node".into()] {
        let mut client = names.command(&mover, &program);
        client
            .arg(if program.ends_with("node") { "domain.cjs" } else { "domain.py" })
            .env("E2B_DOMAIN", format!("box.test:{port}"))
            .env("NODE_PATH", &node_path)
            .env("SSL_CERT_FILE", out.join("ca.pem"))
            .env("NODE_EXTRA_CA_CERTS", out.join("ca.pem"))
            .env_remove("E2B_API_URL")
            .env_remove("E2B_SANDBOX_URL");
        assert!(mover.runs(client).contains("by name: ok"));
    }
}

/// A name server that leads every name to this machine, and a world in which it is the one that is asked.
struct Names {
    resolv_conf: PathBuf,
}

impl Names {
    /// Of the loopback addresses one that nobody else serves.
    const SERVER: &str = "127.77.0.53";

    fn start(home: &Home) -> Self {
        let socket = std::net::UdpSocket::bind((Self::SERVER, 53)).unwrap();
        std::thread::spawn(move || {
            let mut query = [0; 512];
            while let Ok((length, asker)) = socket.recv_from(&mut query) {
                let _gone = socket.send_to(&Self::answer(&query[..length]), asker);
            }
        });
        let resolv_conf = home.file("resolv.conf");
        std::fs::write(&resolv_conf, format!("nameserver {}\n", Self::SERVER)).unwrap();
        Self { resolv_conf }
    }

    /// 127.0.0.1 for a question of type A, nothing for any other.
    fn answer(query: &[u8]) -> Vec<u8> {
        let name = 12 + query[12..].iter().position(|byte| *byte == 0).unwrap() + 1;
        let is_a = query[name..name + 2] == [0, 1];
        let counts = [0, 1, 0, u8::from(is_a), 0, 0, 0, 0];
        let mut answer = [&query[..2], &[0x81, 0x80], &counts, &query[12..name + 4]].concat();
        if is_a {
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 127, 0, 0, 1]);
        }
        answer
    }

    fn command(&self, mover: &Mover, program: &Path) -> Command {
        let mut command = mover.command("unshare");
        let script = "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";
        command.args(["-m", "sh", "-c", script]).arg(&self.resolv_conf).arg(program);
        command
    }
}

#[test]
fn vm_a_client_says_what_its_sandbox_reaches() {
    let Some(mut mover) = Mover::new() else { return };
    let world = World::start();
    mover.home.down("TERM");
    mover.home.configure(&format!("[network]\nuplink_namespace = \"/run/netns/{}\"\n", world.uplink));
    mover.url = mover.home.up().e2b.clone();
    let mut client = mover.python("python");
    client.arg("network.py");
    mover.runs(client);
}

#[test]
fn vm_tags_name_builds() {
    let Some(mover) = Mover::new() else { return };
    let Some(tree) = small_tree(&mover.home) else { return };
    for (mark, case) in [("from the tree", "tags_are_given"), ("built anew", "a_tag_keeps")] {
        std::fs::write(tree.join("etc/mark"), mark).unwrap();
        mover.home.ok(&["template", "build", "app", "--dir", tree.to_str().unwrap()]);
        let mut client = mover.python("python");
        client.args(["templates.py", case]);
        mover.runs(client);
    }
}

/// A namespace that sandboxes leave through, and another behind it with two hosts that answer on port 8000.
struct World {
    uplink: String,
    beyond: String,
    server: std::process::Child,
}

impl World {
    fn start() -> Self {
        let (uplink, beyond) = (format!("e2bu{}", std::process::id()), format!("e2bw{}", std::process::id()));
        for name in [&uplink, &beyond] {
            ip(&format!("netns add {name}"));
            ip(&format!("-n {name} link set lo up"));
        }
        ip(&format!("-n {uplink} link add out type veth peer name in netns {beyond}"));
        ip(&format!("-n {uplink} address add 203.0.113.1/24 dev out"));
        ip(&format!("-n {beyond} address add 203.0.113.5/24 dev in"));
        ip(&format!("-n {beyond} address add 203.0.113.6/24 dev in"));
        ip(&format!("-n {uplink} link set out up"));
        ip(&format!("-n {beyond} link set in up"));
        ip(&format!("-n {uplink} route add default via 203.0.113.5"));
        ip(&format!("netns exec {uplink} sysctl -qw net.ipv4.ip_forward=1"));
        let mut server = Command::new("ip")
            .args(["netns", "exec", &beyond, "python3", "-u", "-c", HOSTS])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        crate::home::first_line(&mut server);
        Self { uplink, beyond, server }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        for name in [&self.uplink, &self.beyond] {
            ip(&format!("netns delete {name}"));
        }
    }
}

const HOSTS: &str = r#"
import socket
server = socket.create_server(("", 8000))
print("ready")
while True:
    client, _ = server.accept()
    client.sendall(b"reached\n")
    client.close()
"#;
