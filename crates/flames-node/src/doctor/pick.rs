//! Which VMM a machine gets: a pure decision over what was looked at.

use super::kvm::{KvmSpeed, MIN_INSTRUCTIONS_PER_SECOND};
use super::{Finding, NetworkMode, kvm, look};
use std::path::Path;

/// A VMM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vmm {
    /// In software, everywhere.
    Qemu,
    /// On hardware virtualisation, jailed.
    Firecracker,
}

/// A choice, and what it rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pick {
    /// What was chosen.
    pub vmm: Vmm,
    /// Why, for a person.
    pub why: String,
}

/// Chooses for this machine. KVM is measured (about half a second) only where Firecracker could use it, and once
/// per boot of the host: `memory` is a file that keeps the measure.
pub async fn pick_vmm(firecracker: &Path, memory: &Path) -> Pick {
    if let Err(pick) = could_run(firecracker).await {
        return pick;
    }
    let boot = tokio::fs::read_to_string("/proc/sys/kernel/random/boot_id").await.unwrap_or_default();
    let kept = tokio::fs::read_to_string(memory).await.unwrap_or_default();
    if let Some(instructions_per_second) = recall(&kept, &boot) {
        return judge(&KvmSpeed::Measured { instructions_per_second });
    }
    let kvm = tokio::task::spawn_blocking(kvm::measure).await.unwrap_or(KvmSpeed::Hangs);
    if let KvmSpeed::Measured { instructions_per_second } = kvm {
        // Without it the next start measures again.
        let _kept = tokio::fs::write(memory, format!("{} {instructions_per_second}\n", boot.trim())).await;
    }
    judge(&kvm)
}

/// What was measured since this boot.
fn recall(kept: &str, boot: &str) -> Option<u64> {
    let (of, rate) = kept.trim().split_once(' ')?;
    (!of.is_empty() && of == boot.trim()).then(|| rate.parse().ok()).flatten()
}

/// The same, where KVM was measured already.
pub(super) async fn pick_with(firecracker: &Path, kvm: &KvmSpeed) -> Pick {
    match could_run(firecracker).await {
        Ok(()) => judge(kvm),
        Err(pick) => pick,
    }
}

async fn could_run(firecracker: &Path) -> Result<(), Pick> {
    let installed = look::version(&firecracker.to_string_lossy(), "--version").await.is_some();
    match (installed, NetworkMode::detect()) {
        (false, _) => Err(qemu(format!("`{}` is not installed", firecracker.display()))),
        (true, NetworkMode::User) => Err(qemu("jailing Firecracker needs root")),
        (true, NetworkMode::Namespaces) => Ok(()),
    }
}

fn judge(kvm: &KvmSpeed) -> Pick {
    match kvm {
        KvmSpeed::Measured { instructions_per_second: rate } if *rate >= MIN_INSTRUCTIONS_PER_SECOND => {
            Pick { vmm: Vmm::Firecracker, why: "it is installed, and KVM runs guests at full speed".into() }
        }
        KvmSpeed::Measured { .. } => qemu("KVM is too slow here: the host emulates guests"),
        KvmSpeed::Absent => qemu("there is no /dev/kvm"),
        KvmSpeed::Denied => qemu("/dev/kvm may not be opened"),
        KvmSpeed::Broken { .. } | KvmSpeed::Hangs => qemu("KVM does not work here"),
    }
}

fn qemu(why: impl Into<String>) -> Pick {
    Pick { vmm: Vmm::Qemu, why: why.into() }
}

/// What is chosen here, and what would be chosen with little more.
pub(super) async fn look(firecracker: &Path, kvm: &KvmSpeed) -> Finding {
    let installed = look::version(&firecracker.to_string_lossy(), "--version").await.is_some();
    finding(&pick_with(firecracker, kvm).await, installed, kvm)
}

fn finding(pick: &Pick, installed: bool, kvm: &KvmSpeed) -> Finding {
    if !installed && judge(kvm).vmm == Vmm::Firecracker {
        let found = "KVM runs guests at full speed, and Firecracker is not installed: guests run in software";
        return Finding::warn("vmm", found, "`sudo flames install firecracker`");
    }
    let name = match pick.vmm {
        Vmm::Qemu => "QEMU, in software",
        Vmm::Firecracker => "Firecracker",
    };
    Finding::ok("vmm", format!("`vmm.driver = \"auto\"` means {name}: {}", pick.why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn firecracker_is_picked_only_where_kvm_is_worth_it() {
        let at = |instructions_per_second| judge(&KvmSpeed::Measured { instructions_per_second });
        assert_eq!(at(MIN_INSTRUCTIONS_PER_SECOND).vmm, Vmm::Firecracker);
        let slow = at(MIN_INSTRUCTIONS_PER_SECOND - 1);
        assert_eq!(slow.vmm, Vmm::Qemu);
        assert!(slow.why.contains("emulates"), "{}", slow.why);
        for kvm in [KvmSpeed::Absent, KvmSpeed::Denied, KvmSpeed::Hangs] {
            assert_eq!(judge(&kvm).vmm, Vmm::Qemu, "{kvm:?}");
        }
    }

    #[test]
    fn where_kvm_is_worth_it_a_missing_firecracker_is_told_with_the_command_that_installs_it() {
        let fast = KvmSpeed::Measured { instructions_per_second: MIN_INSTRUCTIONS_PER_SECOND };
        let missing = qemu("`firecracker` is not installed");
        let told = finding(&missing, false, &fast);
        assert!(told.mend.is_some_and(|mend| mend.contains("flames install firecracker")));
        assert_eq!(finding(&missing, false, &KvmSpeed::Absent).mend, None);
        assert_eq!(finding(&judge(&fast), true, &fast).mend, None);
    }

    #[test]
    fn a_measure_is_good_until_the_host_boots_again() {
        assert_eq!(recall("1c09 4700\n", "1c09\n"), Some(4700));
        for kept in ["", "1c09", "beef 4700", " 4700", "1c09 fast"] {
            assert_eq!(recall(kept, "1c09\n"), None, "{kept}");
        }
    }

    #[tokio::test]
    async fn without_firecracker_nothing_is_measured_and_the_reason_is_told() {
        let pick = pick_vmm(Path::new("/nonexistent/firecracker"), Path::new("/nonexistent/kvm")).await;
        assert_eq!(pick.vmm, Vmm::Qemu);
        assert!(pick.why.contains("/nonexistent/firecracker"), "{}", pick.why);
    }
}
