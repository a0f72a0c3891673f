//! QEMU's command line for a VM: a pure function, so that a benchmark can start the very same machine.

use crate::config::QemuConfig;
use crate::files::{FIRST_SOCKET_FD, SOCKETS};
use crate::host::HostFacts;
use flames_vmm::{Disk, DiskAccess, MacAddress, Network, PrepareFor, VmSpec};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

/// Everything after the program's name, and the kernel command line that is part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// The arguments.
    pub arguments: Vec<OsString>,
    /// The value of `-append`; a restored guest is given none.
    pub kernel: String,
}

/// The guest's address inside QEMU's own user network; guests are told the same on every network.
const USER_NETWORK: &str = "user,id=n,restrict=on,net=172.16.0.0/24,host=172.16.0.1,dhcpstart=172.16.0.2";
const USER_NETWORK_GUEST: &str = "172.16.0.2";

/// The machine for `spec`. The virtual CPUs wait (`-S`) until they are told to run.
pub fn command_line(
    spec: &VmSpec,
    purpose: &PrepareFor,
    host: &HostFacts,
    config: &QemuConfig,
) -> CommandLine {
    let kernel = kernel_command_line(spec, host);
    let mut line = Line::default();
    machine(&mut line, spec, config);
    memory(&mut line, spec, purpose, host);
    guest_kernel(&mut line, spec, purpose, &kernel);
    channels(&mut line);
    for (index, disk) in spec.disks.iter().enumerate() {
        block_device(&mut line, index, disk);
    }
    network(&mut line, &spec.network);
    entropy(&mut line);
    surroundings(&mut line);
    line.0.extend(config.extra_args.iter().map(OsString::from));
    CommandLine { arguments: line.0, kernel }
}

/// What the emulated machine needs of the kernel, then what the guest's user space wants.
///
/// `reboot=t`: without ACPI the only way to end the machine is a reset, which `-no-reboot` turns into an exit.
/// The other settings take calibrations out of the boot that cannot succeed or need not run under emulation.
fn kernel_command_line(spec: &VmSpec, host: &HostFacts) -> String {
    let mut words = vec!["quiet".to_owned(), "console=hvc0".into(), "8250.nr_uarts=0".into()];
    words.extend(["reboot=t".into(), "panic=-1".into()]);
    words.extend(host.tsc_khz.map(time_stamp_counter).into_iter().flatten());
    words.extend(["no_timer_check".into(), "lapic_timer_hz=1000000000".into(), "noreplace-smp".into()]);
    if host.major() < 10 {
        // Older QEMU translates code anew for every address layout: fork and exec would be nine times slower.
        words.push("norandmaps".into());
    }
    words.extend([
        "random.trust_cpu=on".into(),
        "rcupdate.rcu_expedited=1".into(),
        "keep_initmem".into(),
        "pci=off".into(),
    ]);
    words.extend(spec.kernel_args.iter().cloned());
    words.join(" ")
}

/// The guest reads the host's counter, which is constant. `tsc=reliable`: on a busy host guests lose timer ticks,
/// and a kernel that checks the counter against ticks gives the counter up, for a clock of 10 ms steps that
/// goes wrong with every further tick.
fn time_stamp_counter(khz: u32) -> [String; 2] {
    [format!("tsc_early_khz={khz}"), "tsc=reliable".to_owned()]
}

/// Everything that can be emulated (RDRAND matters most: the generator is ready at once), but for what makes
/// guests slower. `la57`: five levels of page tables. `erms`: kernel and C library would clear and copy memory by
/// byte strings, which real processors do in blocks and emulation byte by byte.
const PROCESSOR: &str = "max,la57=off,erms=off";

fn machine(line: &mut Line, spec: &VmSpec, config: &QemuConfig) {
    line.option("-name", format!("flames-{}", spec.id))
        .option("-M", "microvm,acpi=off,memory-backend=m")
        .option("-accel", format!("tcg,tb-size={}", config.translation_buffer_mib))
        .option("-cpu", PROCESSOR)
        .option("-smp", spec.vcpus.to_string())
        .option("-m", spec.memory.0.to_string())
        .option("-bios", config.firmware.as_os_str());
}

/// Memory is a file without a name, so that a snapshot can copy it from outside (`memory.rs`); a clone's is a
/// private view of the snapshot's, for which older versions open the file for writing all the same. The device state starts without the description of a configuration: what
/// writes it without the memory leaves that out.
fn memory(line: &mut Line, spec: &VmSpec, purpose: &PrepareFor, host: &HostFacts) {
    let size = format!("id=m,size={}M", spec.memory.0);
    match purpose {
        PrepareFor::Boot => line.option("-object", format!("memory-backend-memfd,{size},share=on")),
        PrepareFor::Restore(parts) => {
            let access = if host.maps_read_only() { "readonly=on,rom=off," } else { "" };
            let backend = format!("memory-backend-file,{size},share=off,{access}mem-path=");
            line.option_with_path("-object", backend, &parts.memory).option("-incoming", "defer")
        }
    };
    line.option("-global", "migration.send-configuration=off");
}

/// A clone never reads its kernel again: what it needs is in its memory.
fn guest_kernel(line: &mut Line, spec: &VmSpec, purpose: &PrepareFor, arguments: &str) {
    if *purpose == PrepareFor::Boot {
        line.option("-kernel", spec.kernel.as_os_str()).option("-append", arguments);
    }
}

/// Control, boot channel and console, on the sockets that were bound beforehand.
///
/// The console is a virtio port and no serial line: it costs no boot time that could be measured, and a
/// serial line needs one exit of the virtual CPU per character.
fn channels(line: &mut Line) {
    for (name, descriptor) in SOCKETS.iter().zip(FIRST_SOCKET_FD..) {
        let id = name.trim_end_matches(".sock");
        line.option("-chardev", format!("socket,id={id},fd={descriptor},server=on,wait=off"));
    }
    line.option("-mon", "chardev=qmp,mode=control")
        .option("-device", "virtio-serial-device,max_ports=3")
        .option("-device", "virtserialport,chardev=boot,name=flames.boot,nr=1")
        .option("-device", "virtconsole,chardev=console,nr=2");
}

/// A read-only image is shared by many VMs and therefore not locked; a writable disk is, so that no two VMs
/// can ever write to one.
///
/// `auto-read-only`: QEMU would open it for reading first, and it is given one descriptor.
///
/// `cache.no-flush`: nothing a guest syncs goes to stable storage. Its disk ends with its VM, or is copied within
/// the pause of a snapshot, and either way through the host's page cache; QEMU would otherwise sync the whole
/// disk on every pause.
fn block_device(line: &mut Line, index: usize, disk: &Disk) {
    let access = match disk.access {
        DiskAccess::ReadOnly => "readonly=on,file.locking=off",
        DiskAccess::ReadWrite => "discard=unmap,cache.no-flush=on,file.auto-read-only=off",
    };
    line.option_with_path("-drive", format!("if=none,id=d{index},format=raw,{access},file="), &disk.path)
        .option("-device", format!("virtio-blk-device,drive=d{index}"));
}

fn network(line: &mut Line, network: &Network) {
    match network {
        Network::None => {}
        Network::Tap { tap, mac, .. } => {
            line.option("-netdev", format!("tap,id=n,ifname={},script=no,downscript=no", escape_str(tap)));
            network_card(line, *mac);
        }
        Network::User { host_port, guest_port, mac } => {
            let forward = format!("hostfwd=tcp:127.0.0.1:{host_port}-{USER_NETWORK_GUEST}:{guest_port}");
            line.option("-netdev", format!("{USER_NETWORK},{forward}"));
            network_card(line, *mac);
        }
    }
}

fn network_card(line: &mut Line, mac: MacAddress) {
    // A restored guest that may announce itself does so at once, in five protocols, before it answers anybody. Its only
    // neighbour knows it. (`announce-rounds` 0 instead makes QEMU 7.2 end by SIGSEGV when such a guest resets the device.)
    line.option("-device", format!("virtio-net-device,netdev=n,mac={mac},guest_announce=off"));
}

fn entropy(line: &mut Line) {
    line.option("-object", "rng-random,id=r,filename=/dev/urandom")
        .option("-device", "virtio-rng-device,rng=r");
}

/// No defaults, no display, no reboot, and a system-call filter that forbids QEMU to start programs or to gain
/// rights.
fn surroundings(line: &mut Line) {
    line.option("-serial", "none").option("-display", "none").option("-monitor", "none");
    for flag in ["-nodefaults", "-no-user-config", "-no-reboot", "-S"] {
        line.0.push(flag.into());
    }
    let sandbox = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";
    line.option("-sandbox", sandbox);
}

#[derive(Default)]
struct Line(Vec<OsString>);

impl Line {
    fn option(&mut self, name: &str, value: impl AsRef<OsStr>) -> &mut Self {
        self.0.push(name.into());
        self.0.push(value.as_ref().into());
        self
    }

    fn option_with_path(&mut self, name: &str, before: String, path: &Path) -> &mut Self {
        let mut value = OsString::from(before);
        value.push(escape(path.as_os_str()));
        self.option(name, value)
    }
}

/// In a list of options a comma ends the value; two commas stand for one.
fn escape(text: &OsStr) -> OsString {
    let doubled = |byte: &u8| if *byte == b',' { vec![b',', b','] } else { vec![*byte] };
    OsString::from_vec(text.as_bytes().iter().flat_map(doubled).collect())
}

fn escape_str(text: &str) -> String {
    text.replace(',', ",,")
}

#[cfg(test)]
mod tests;
