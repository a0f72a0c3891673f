//! How fast KVM runs a guest: a loop of two instructions in flat protected mode, in growing rounds.

use kvm_bindings::{kvm_segment, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Below this the host emulates guests; software emulation by QEMU runs several hundred million.
pub const MIN_INSTRUCTIONS_PER_SECOND: u64 = 100_000_000;

/// Rounds grow until this much time has passed: a fast host is measured well, a slow one is left soon.
const TIME_BOX: Duration = Duration::from_millis(500);
/// A guest that does not come back by then hangs.
const GIVE_UP: Duration = Duration::from_secs(4);
/// Iterations of the first round: an emulating host still ends it in milliseconds.
const FIRST_ROUND: u32 = 1_000;
const LAST_ROUND: u32 = 1 << 30;
const INSTRUCTIONS_PER_ITERATION: u64 = 2;

const CODE_ADDRESS: u64 = 0x1000;
/// `again: dec ecx; jnz again; hlt`
const CODE: [u8; 4] = [0x49, 0x75, 0xfd, 0xf4];

/// What KVM turned out to be worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KvmSpeed {
    /// There is no `/dev/kvm`.
    Absent,
    /// It may not be opened.
    Denied,
    /// It opens, and cannot do what a VM needs.
    Broken {
        /// What failed.
        step: &'static str,
        /// How.
        error: String,
    },
    /// The guest did not come back.
    Hangs,
    /// The guest ran.
    Measured {
        /// How fast.
        instructions_per_second: u64,
    },
}

/// Runs a guest for about half a second.
pub(super) fn measure() -> KvmSpeed {
    let (report, outcome) = mpsc::channel();
    // A thread of its own: nothing but the end of the process gets a hanging guest back.
    let thread = std::thread::Builder::new().name("fl-kvm".into()).spawn(move || {
        let _ = report.send(run().unwrap_or_else(|verdict| verdict)); // nobody waits: given up
    });
    match thread {
        Ok(_) => outcome.recv_timeout(GIVE_UP).unwrap_or(KvmSpeed::Hangs),
        Err(error) => KvmSpeed::Broken { step: "start a thread", error: error.to_string() },
    }
}

fn run() -> Result<KvmSpeed, KvmSpeed> {
    let vm = open()?.create_vm().map_err(broken("create a VM"))?;
    let mut page = Box::new(Page([0; 4096]));
    page.0[..CODE.len()].copy_from_slice(&CODE);
    give_memory(&vm, &page)?;
    let mut vcpu = vm.create_vcpu(0).map_err(broken("create a virtual CPU"))?;
    enter_protected_mode(&vcpu)?;
    let measured = measure_rounds(&mut vcpu);
    drop((vcpu, vm)); // before the memory that they use
    drop(page);
    measured.map(|rate| KvmSpeed::Measured { instructions_per_second: rate })
}

fn open() -> Result<Kvm, KvmSpeed> {
    use nix::libc;
    Kvm::new().map_err(|error| match error.errno() {
        libc::ENOENT | libc::ENODEV | libc::ENXIO => KvmSpeed::Absent,
        libc::EACCES | libc::EPERM => KvmSpeed::Denied,
        _ => broken("be opened")(error),
    })
}

#[repr(align(4096))]
struct Page([u8; 4096]);

#[allow(unsafe_code)]
fn give_memory(vm: &VmFd, page: &Page) -> Result<(), KvmSpeed> {
    let region = kvm_userspace_memory_region {
        slot: 0,
        guest_phys_addr: CODE_ADDRESS,
        memory_size: page.0.len() as u64,
        userspace_addr: page.0.as_ptr() as u64,
        flags: 0,
    };
    // SAFETY: the page is aligned, has the size given, and outlives the VM: `run` drops the VM first.
    unsafe { vm.set_user_memory_region(region) }.map_err(broken("give it memory"))
}

/// Flat 32-bit segments: real mode would be emulated on processors that cannot run it.
fn enter_protected_mode(vcpu: &VcpuFd) -> Result<(), KvmSpeed> {
    let mut registers = vcpu.get_sregs().map_err(broken("read registers"))?;
    let flat = |selector, type_| kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector,
        type_,
        present: 1,
        s: 1,
        db: 1,
        g: 1,
        ..Default::default()
    };
    registers.cs = flat(8, 0xb);
    let data = flat(16, 3);
    (registers.ds, registers.es, registers.ss, registers.fs, registers.gs) = (data, data, data, data, data);
    registers.cr0 |= 1;
    vcpu.set_sregs(&registers).map_err(broken("set registers"))
}

fn measure_rounds(vcpu: &mut VcpuFd) -> Result<u64, KvmSpeed> {
    let start = Instant::now();
    let mut iterations = FIRST_ROUND;
    loop {
        let took = run_round(vcpu, iterations)?;
        if start.elapsed() >= TIME_BOX || iterations >= LAST_ROUND {
            return Ok(rate(iterations, took));
        }
        iterations = iterations.saturating_mul(2);
    }
}

fn run_round(vcpu: &mut VcpuFd, iterations: u32) -> Result<Duration, KvmSpeed> {
    let mut registers = vcpu.get_regs().map_err(broken("read registers"))?;
    (registers.rip, registers.rcx, registers.rflags) = (CODE_ADDRESS, u64::from(iterations), 2);
    vcpu.set_regs(&registers).map_err(broken("set registers"))?;
    let start = Instant::now();
    loop {
        match vcpu.run() {
            Ok(VcpuExit::Hlt) => return Ok(start.elapsed()),
            Ok(VcpuExit::Intr) => {}
            Ok(exit) => {
                return Err(KvmSpeed::Broken { step: "run two instructions", error: format!("{exit:?}") });
            }
            Err(error) if error.errno() == nix::libc::EINTR => {}
            Err(error) => return Err(broken("run")(error)),
        }
    }
}

/// Of the last and longest round: its entry and exit weigh least.
fn rate(iterations: u32, took: Duration) -> u64 {
    let instructions = u64::from(iterations) * INSTRUCTIONS_PER_ITERATION;
    let per_second = u128::from(instructions) * 1_000_000_000 / took.as_nanos().max(1);
    u64::try_from(per_second).unwrap_or(u64::MAX)
}

fn broken(step: &'static str) -> impl Fn(kvm_ioctls::Error) -> KvmSpeed {
    move |error| KvmSpeed::Broken { step, error: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_counts_both_instructions_of_an_iteration() {
        assert_eq!(rate(1_000_000, Duration::from_millis(1)), 2_000_000_000);
        assert_eq!(rate(1, Duration::ZERO), 2_000_000_000);
    }

    #[test]
    fn measuring_ends_soon_whatever_the_host_is() {
        let start = Instant::now();
        let speed = measure();
        eprintln!("{speed:?} after {:?}", start.elapsed());
        assert!(start.elapsed() < GIVE_UP + Duration::from_secs(1));
    }
}
