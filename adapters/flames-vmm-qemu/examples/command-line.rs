//! Prints the command line that the driver would start QEMU with, one argument per line, the program first.
//!
//! For `bench/plain-qemu.py`, which starts the same machine without the driver:
//! `command-line RUN_DIR MEMORY_MIB KERNEL NETWORK DISK...` with NETWORK as `none`, `user:PORT` or
//! `tap:NETNS:TAP`, and each DISK as `ro:PATH` or `rw:PATH`.

use flames_vmm::{BootChannel, Disk, DiskAccess, MacAddress, MiB, Network, PrepareFor, VmId, VmSpec};
use flames_vmm_qemu::{QemuConfig, QemuDriver, command_line};
use std::process::ExitCode;

const MAC: MacAddress = MacAddress([0x06, 0x00, 0xac, 0x10, 0x00, 0x02]);
const AGENT_PORT: u16 = 49_983;
const KERNEL_ARGS: [&str; 5] =
    ["root=/dev/vda", "rootfstype=erofs", "ro", "init=/flames-guest", "flames.net=172.16.0.2/24,172.16.0.1"];

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(spec) = parse(&arguments) else {
        eprintln!("usage: command-line RUN_DIR MEMORY_MIB KERNEL NETWORK DISK...");
        return ExitCode::from(2);
    };
    let config = QemuConfig::default();
    match QemuDriver::new(config.clone()).host().await {
        Ok(host) => {
            println!("{}", config.binary.display());
            for argument in command_line(&spec, &PrepareFor::Boot, host, &config).arguments {
                println!("{}", argument.display());
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(arguments: &[String]) -> Option<VmSpec> {
    let [run_dir, memory, kernel, network, disks @ ..] = arguments else { return None };
    Some(VmSpec {
        id: VmId::parse("plain").ok()?,
        run_dir: run_dir.into(),
        vcpus: 1,
        memory: MiB(memory.parse().ok()?),
        kernel: kernel.into(),
        kernel_args: KERNEL_ARGS.map(str::to_owned).into(),
        disks: disks.iter().map(|disk| parse_disk(disk)).collect::<Option<_>>()?,
        network: parse_network(network)?,
        boot_channel: BootChannel { greeting: String::new() },
        console_limit_bytes: 0,
    })
}

fn parse_disk(text: &str) -> Option<Disk> {
    let (access, path) = text.split_once(':')?;
    let access = match access {
        "ro" => DiskAccess::ReadOnly,
        "rw" => DiskAccess::ReadWrite,
        _ => return None,
    };
    Some(Disk { path: path.into(), access })
}

fn parse_network(text: &str) -> Option<Network> {
    match *text.split(':').collect::<Vec<_>>() {
        ["none"] => Some(Network::None),
        ["user", port] => {
            Some(Network::User { host_port: port.parse().ok()?, guest_port: AGENT_PORT, mac: MAC })
        }
        ["tap", netns, tap] => Some(Network::Tap { netns: netns.into(), tap: tap.to_owned(), mac: MAC }),
        _ => None,
    }
}
