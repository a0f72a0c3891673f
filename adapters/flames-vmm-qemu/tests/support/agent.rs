//! A spec with the real agent and a real image.

use flames_vmm::{BootChannel, Disk, DiskAccess, MacAddress, MiB, Network, VmId, VmSpec};
use std::os::unix::fs::DirBuilderExt;
use std::process::Command;

/// Everything a guest with the agent needs; gone when dropped.
#[derive(Debug)]
pub(crate) struct AgentVm {
    pub(crate) spec: VmSpec,
    /// Reaches the agent from loopback.
    pub(crate) port: u16,
    _folder: tempfile::TempDir,
}

impl AgentVm {
    /// `None`, loudly, where an image is missing.
    pub(crate) async fn make(image: &str) -> Option<Self> {
        let assets = super::assets();
        let (kernel, agent) = (assets.join("vmlinux"), assets.join("agent.erofs"));
        let image = assets.join("images").join(format!("{image}.erofs"));
        if [&kernel, &agent, &image].iter().any(|file| !file.exists()) {
            flames_provider::conformance::skip("assets", "run `make assets`");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let run_dir = folder.path().join("run");
        std::fs::DirBuilder::new().mode(0o700).create(&run_dir).unwrap();
        let own = folder.path().join("disk.ext4");
        make_ext4(&own);
        let port = free_port();
        let disk = |path, access| Disk { path, access };
        let spec = VmSpec {
            id: VmId::parse("agent").unwrap(),
            run_dir,
            vcpus: 1,
            memory: MiB(256),
            kernel,
            kernel_args: KERNEL_ARGS.map(str::to_owned).into(),
            disks: vec![
                disk(agent, DiskAccess::ReadOnly),
                disk(image, DiskAccess::ReadOnly),
                disk(own, DiskAccess::ReadWrite),
            ],
            network: Network::User { host_port: port, guest_port: 49_983, mac: MAC },
            boot_channel: BootChannel { greeting: format!(r#"{{"controlToken":"{}"}}"#, "0".repeat(64)) },
            console_limit_bytes: 64 * 1024,
        };
        Some(Self { spec, port, _folder: folder })
    }
}

impl AgentVm {
    /// Another VM, whose own disk is a copy of this one's as it is now.
    pub(crate) async fn clone_of_disk(&self, image: &str) -> Self {
        let clone = Self::make(image).await.unwrap();
        let copied =
            Command::new("cp").args(["--sparse=always", self.own_disk(), clone.own_disk()]).status().unwrap();
        assert!(copied.success());
        clone
    }

    /// The sandbox's own disk, as a path for a program.
    pub(crate) fn own_disk(&self) -> &str {
        self.spec.disks.last().and_then(|disk| disk.path.to_str()).unwrap()
    }
}

const MAC: MacAddress = MacAddress([0x06, 0x00, 0xac, 0x10, 0x00, 0x02]);
const KERNEL_ARGS: [&str; 5] =
    ["root=/dev/vda", "rootfstype=erofs", "ro", "init=/flames-guest", "flames.net=172.16.0.2/24,172.16.0.1"];

fn make_ext4(path: &std::path::Path) {
    std::fs::File::create(path).unwrap().set_len(1 << 30).unwrap();
    let made = Command::new("mke2fs").args(["-q", "-F", "-t", "ext4"]).arg(path).status().unwrap();
    assert!(made.success());
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
