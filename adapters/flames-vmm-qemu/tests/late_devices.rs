//! Boot port and console that come after the kernel has started the agent, as they do when QEMU has no time for its guest.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use flames_vmm::PrepareFor;
use flames_vmm_qemu::{QemuDriver, command_line};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;
use support::agent::AgentVm;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

#[tokio::test]
async fn the_agent_waits_for_its_port_and_takes_the_console_when_it_comes() {
    let Some(parts) = AgentVm::make("mini").await else { return };
    let config = support::config();
    let driver = QemuDriver::new(config.clone());
    let command = command_line(&parts.spec, &PrepareFor::Boot, driver.host().await.unwrap(), &config);
    let run_dir = &parts.spec.run_dir;
    let mut vmm = tokio::process::Command::new(&config.binary)
        .args(without_ports(command.arguments, run_dir))
        .kill_on_drop(true)
        .spawn()
        .unwrap();

    let mut qmp = Qmp::connect(run_dir).await;
    qmp.guest_waits_for_nothing_from_its_disks().await;
    let (boot, mut console) = tokio::join!(connect(run_dir, "boot.sock"), connect(run_dir, "console.sock"));
    let (boot, mut to_guest) = boot.into_split();
    to_guest.write_all(format!("{}\n", parts.spec.boot_channel.greeting).as_bytes()).await.unwrap();
    qmp.ask(
        "device_add",
        json!({"driver": "virtserialport", "chardev": "boot", "name": "flames.boot", "nr": "1"}),
    )
    .await;
    let report = within(BufReader::new(boot).lines().next_line()).await.unwrap().unwrap();
    assert!(report.contains(r#""ready":true"#), "{report}");

    qmp.ask("device_add", json!({"driver": "virtconsole", "chardev": "console", "nr": "2"})).await;
    let mut said = String::new();
    while !said.contains("the console came after flames-guest") {
        let mut chunk = [0; 1024];
        let length = within(console.read(&mut chunk)).await.unwrap();
        assert!(length > 0, "the VM has ended: {said}");
        said.push_str(&String::from_utf8_lossy(&chunk[..length]));
    }
    vmm.kill().await.unwrap();
}

/// The driver's machine, which runs at once, has paths for its sockets and the ports of neither the boot nor the console.
fn without_ports(arguments: Vec<OsString>, run_dir: &Path) -> Vec<OsString> {
    let mut words = Vec::new();
    for word in arguments {
        let text = word.to_str().unwrap();
        let channel = text.strip_prefix("socket,id=").and_then(|rest| rest.split_once(",fd="));
        if let Some((channel, _descriptor)) = channel {
            let path = run_dir.join(format!("{channel}.sock"));
            words.push(format!("socket,id={channel},path={},server=on,wait=off", path.display()).into());
        } else if text.starts_with("virtserialport,") || text.starts_with("virtconsole,") {
            assert_eq!(words.pop().unwrap(), "-device");
        } else if text != "-S" {
            words.push(word);
        }
    }
    words
}

/// QEMU's control socket.
struct Qmp {
    words: Lines<BufReader<OwnedReadHalf>>,
    socket: OwnedWriteHalf,
}

impl Qmp {
    async fn connect(run_dir: &Path) -> Self {
        let (words, socket) = connect(run_dir, "qmp.sock").await.into_split();
        let mut qmp = Self { words: BufReader::new(words).lines(), socket };
        within(qmp.words.next_line()).await.unwrap().expect("a greeting");
        qmp.ask("qmp_capabilities", json!({})).await;
        qmp
    }

    async fn ask(&mut self, command: &str, arguments: Value) -> Value {
        let line = format!("{}\n", json!({"execute": command, "arguments": arguments}));
        self.socket.write_all(line.as_bytes()).await.unwrap();
        loop {
            let line = within(self.words.next_line()).await.unwrap().expect("the VM has ended");
            let mut answer: Value = serde_json::from_str(&line).unwrap();
            assert!(answer.get("error").is_none(), "{command}: {answer}");
            if let Some(answer) = answer.get_mut("return") {
                return answer.take();
            }
        }
    }

    /// The kernel has read the agent from its disk, and whoever runs now reads nothing more. A guest without ports can tell
    /// nobody how far it is, so it is asked from outside, again and again.
    async fn guest_waits_for_nothing_from_its_disks(&mut self) {
        let (mut before, mut unchanged) = (0, 0);
        while unchanged < 10 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let disks = self.ask("query-blockstats", json!({})).await;
            let read = disks[0]["stats"]["rd_bytes"].as_u64().unwrap();
            unchanged = if read > 0 && read == before { unchanged + 1 } else { 0 };
            before = read;
        }
    }
}

/// QEMU makes its sockets soon after it was started.
async fn connect(run_dir: &Path, name: &str) -> UnixStream {
    within(async {
        loop {
            match UnixStream::connect(run_dir.join(name)).await {
                Ok(socket) => return socket,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    })
    .await
}

/// Longer than anything here takes on a busy host without hardware virtualisation, the agent's own patience excepted.
async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("it takes too long")
}
