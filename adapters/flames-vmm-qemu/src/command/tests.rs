use super::*;
use flames_vmm::{BootChannel, MiB, SnapshotParts, VmId};
use proptest::prelude::*;
use std::path::PathBuf;

fn spec() -> VmSpec {
    VmSpec {
        id: VmId::parse("a1").unwrap(),
        run_dir: "/run/fl/a1".into(),
        vcpus: 1,
        memory: MiB(256),
        kernel: "/k/vmlinux".into(),
        kernel_args: vec!["root=/dev/vda".into(), "init=/agent".into()],
        disks: vec![
            Disk { path: "/i/agent.erofs".into(), access: DiskAccess::ReadOnly },
            Disk { path: "/s/a1.ext4".into(), access: DiskAccess::ReadWrite },
        ],
        network: Network::None,
        boot_channel: BootChannel { greeting: "SECRET".into() },
        console_limit_bytes: 1024,
    }
}

fn host(version: &str) -> HostFacts {
    HostFacts { version: version.into(), tsc_khz: Some(2_600_000) }
}

fn line(spec: &VmSpec, purpose: &PrepareFor, version: &str) -> Vec<String> {
    let line = command_line(spec, purpose, &host(version), &QemuConfig::default());
    line.arguments.into_iter().map(|argument| argument.into_string().unwrap()).collect()
}

fn values_of(arguments: &[String], option: &str) -> Vec<String> {
    arguments.windows(2).filter(|pair| pair[0] == option).map(|pair| pair[1].clone()).collect()
}

#[test]
fn a_plain_boot_has_exactly_this_command_line() {
    let expected = "-name flames-a1 -M microvm,acpi=off,memory-backend=m -accel tcg,tb-size=64 -cpu max,la57=off,erms=off \
        -smp 1 -m 256 -bios qboot.rom -object memory-backend-memfd,id=m,size=256M,share=on \
        -global migration.send-configuration=off -kernel /k/vmlinux -append KERNEL \
        -chardev socket,id=qmp,fd=3,server=on,wait=off -chardev socket,id=boot,fd=4,server=on,wait=off \
        -chardev socket,id=console,fd=5,server=on,wait=off -mon chardev=qmp,mode=control \
        -device virtio-serial-device,max_ports=3 -device virtserialport,chardev=boot,name=flames.boot,nr=1 \
        -device virtconsole,chardev=console,nr=2 \
        -drive if=none,id=d0,format=raw,readonly=on,file.locking=off,file=/i/agent.erofs -device virtio-blk-device,drive=d0 \
        -drive if=none,id=d1,format=raw,discard=unmap,cache.no-flush=on,file.auto-read-only=off,file=/s/a1.ext4 -device virtio-blk-device,drive=d1 \
        -object rng-random,id=r,filename=/dev/urandom -device virtio-rng-device,rng=r \
        -serial none -display none -monitor none -nodefaults -no-user-config -no-reboot -S \
        -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";
    let kernel = "quiet console=hvc0 8250.nr_uarts=0 reboot=t panic=-1 tsc_early_khz=2600000 tsc=reliable no_timer_check \
        lapic_timer_hz=1000000000 noreplace-smp norandmaps random.trust_cpu=on rcupdate.rcu_expedited=1 keep_initmem pci=off root=/dev/vda init=/agent";
    let arguments = line(&spec(), &PrepareFor::Boot, "7.2.22");
    assert_eq!(values_of(&arguments, "-append"), [kernel]);
    assert_eq!(arguments.join(" ").replace(kernel, "KERNEL"), expected);
}

#[test]
fn guests_keep_their_address_randomisation_where_qemu_can_afford_it() {
    let kernel = |version: &str| values_of(&line(&spec(), &PrepareFor::Boot, version), "-append").concat();
    assert!(kernel("9.2.0").contains("norandmaps"));
    assert!(!kernel("10.0.2").contains("norandmaps"));
}

#[test]
fn the_user_network_has_no_way_out_and_one_port_in_from_loopback() {
    let mac = MacAddress([6, 0, 0xac, 0x10, 0, 2]);
    let network = Network::User { host_port: 40_000, guest_port: 49_983, mac };
    let arguments = line(&VmSpec { network, ..spec() }, &PrepareFor::Boot, "7.2.22");
    assert_eq!(
        values_of(&arguments, "-netdev"),
        ["user,id=n,restrict=on,net=172.16.0.0/24,host=172.16.0.1,dhcpstart=172.16.0.2,\
          hostfwd=tcp:127.0.0.1:40000-172.16.0.2:49983"]
    );
    assert!(
        values_of(&arguments, "-device")
            .contains(&"virtio-net-device,netdev=n,mac=06:00:ac:10:00:02,guest_announce=off".into())
    );
}

#[test]
fn a_clones_memory_is_a_private_view_of_the_snapshots_and_it_loads_no_kernel() {
    let parts = SnapshotParts {
        memory: PathBuf::from("/t/memory"),
        device_state: PathBuf::from("/t/device_state"),
        vmm_version: "7.2.22".into(),
    };
    let clone = line(&spec(), &PrepareFor::Restore(parts), "7.2.22");
    assert!(values_of(&clone, "-object")[0].ends_with("share=off,mem-path=/t/memory"));
    assert_eq!(values_of(&clone, "-incoming"), ["defer"]);
    assert!(!clone.iter().any(|argument| argument == "-kernel" || argument == "-append"));
}

#[test]
fn the_greeting_never_reaches_the_command_line() {
    assert!(!line(&spec(), &PrepareFor::Boot, "7.2.22").concat().contains("SECRET"));
}

proptest! {
    #[test]
    fn a_path_stays_one_value_whatever_is_in_it(name in "[a-z,=]{1,20}") {
        let disk = Disk { path: format!("/d/{name}").into(), access: DiskAccess::ReadOnly };
        let arguments = line(&VmSpec { disks: vec![disk], ..spec() }, &PrepareFor::Boot, "7.2.22");
        let drive = values_of(&arguments, "-drive").concat();
        let (options, path) = drive.split_once("file=/d/").unwrap();
        prop_assert_eq!(options, "if=none,id=d0,format=raw,readonly=on,file.locking=off,");
        prop_assert_eq!(path.replace(",,", "\0").contains(','), false);
        prop_assert_eq!(path.replace(",,", ","), name);
    }
}
