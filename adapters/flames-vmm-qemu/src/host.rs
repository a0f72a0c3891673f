//! What QEMU's command line depends on and only this host knows: its version and the time stamp counter.

use crate::config::QemuConfig;
use crate::programs::Programs;
use flames_vmm::jail::{self, Access, Cgroups, JailConfig, JailMode};
use std::io;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// What the driver found, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    pub(crate) facts: HostFacts,
    pub(crate) programs: Programs,
    /// The control groups of jailed VMs; `None` where VMs are not jailed.
    pub(crate) jail: Option<Cgroups>,
}

/// Facts of this host, found once per driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFacts {
    /// QEMU's exact version, for example `7.2.22`.
    pub version: String,
    /// Rate of the time stamp counter in kHz; `None` where it is not constant, and guests then calibrate.
    pub tsc_khz: Option<u32>,
}

impl Host {
    /// What a clone does with the file of its snapshot's memory.
    pub(crate) fn access_to_memory(&self) -> Access {
        if self.facts.maps_read_only() { Access::Read } else { Access::Write }
    }
}

/// Why no VM can run here, with the mend.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unfit {
    #[error("cannot run it: {0}; install qemu-system-x86 or set its path")]
    Missing(#[source] io::Error),
    #[error(
        "it is not QEMU, or does not work: asked for its version it says {0:?}; set the path of qemu-system-x86_64"
    )]
    Other(String),
    #[error("QEMU {0} is too old: install 7.2 or later")]
    TooOld(String),
    #[error("VMs cannot be jailed: {0}, or choose to run without (vmm.jail = \"none-insecure\")")]
    Jail(String),
}

/// The oldest that this was tested with.
const OLDEST: (u32, u32) = (7, 2);
/// From here on a memory file that is mapped privately need not be opened for writing.
const MAPS_READ_ONLY: (u32, u32) = (8, 2);

impl HostFacts {
    /// The first number of the version; 0 if there is none.
    pub fn major(&self) -> u32 {
        self.release().0
    }

    /// Whether a clone's QEMU does without the right to write to its snapshot's memory.
    pub(crate) fn maps_read_only(&self) -> bool {
        self.release() >= MAPS_READ_ONLY
    }

    fn release(&self) -> (u32, u32) {
        let mut numbers = self.version.split('.').map(|number| number.parse().unwrap_or(0));
        let mut number = || numbers.next().unwrap_or(0);
        (number(), number())
    }
}

/// Asks QEMU for its version and its files, and measures the counter, all at once.
pub(crate) async fn find(config: &QemuConfig) -> Result<Host, Unfit> {
    let programs = Programs::find(&config.binary, &config.firmware);
    let (version, programs, measured) = tokio::join!(version(config), programs, measure_tsc());
    let facts = HostFacts { version: version?, tsc_khz: config.tsc_khz.or(measured) };
    if facts.release() < OLDEST {
        return Err(Unfit::TooOld(facts.version));
    }
    Ok(Host { facts, programs: programs.map_err(Unfit::Missing)?, jail: jail(&config.jail)? })
}

/// Without root there is no jail, as there is none of a daemon that is not trusted with the host; with root there is,
/// or no VM.
fn jail(config: &JailConfig) -> Result<Option<Cgroups>, Unfit> {
    if config.mode == JailMode::NoneInsecure {
        tracing::warn!("VMS RUN WITHOUT A JAIL: a guest that breaks out of QEMU is the daemon's user");
        return Ok(None);
    }
    if let Some(impediment) = jail::impediment() {
        // Nobody's choice and nobody's fault: what `up` tells and `flames doctor` finds is no word for each `run`.
        tracing::info!(
            "VMs run without a jail: {impediment}. A guest that breaks out of QEMU is the daemon's user, and may open \
             what programs of the system may"
        );
        return Ok(None);
    }
    Cgroups::prepare(config).map(Some).map_err(Unfit::Jail)
}

async fn version(config: &QemuConfig) -> Result<String, Unfit> {
    let output = Command::new(&config.binary).arg("--version").stdin(Stdio::null()).output().await;
    let output = output.map_err(Unfit::Missing)?;
    let text = String::from_utf8_lossy(&output.stdout);
    let first = || text.lines().next().unwrap_or_default().chars().take(80).collect();
    parse_version(&text).map(str::to_owned).ok_or_else(|| Unfit::Other(first()))
}

/// Finds `7.2.22` in `QEMU emulator version 7.2.22 (Debian 1:7.2+...)`.
fn parse_version(text: &str) -> Option<&str> {
    let (_, rest) = text.strip_prefix("QEMU emulator ")?.split_once("version ")?;
    let version = rest.split_whitespace().next()?;
    version.starts_with(|first: char| first.is_ascii_digit()).then_some(version)
}

/// The guest's counter is the host's under emulation. A guest that is told its rate need not calibrate, which
/// costs time and, on a busy host, now and then the whole boot.
async fn measure_tsc() -> Option<u32> {
    let clock = tokio::task::spawn_blocking(quanta::Clock::new).await.ok()?;
    let first = sample(&clock);
    tokio::time::sleep(Duration::from_millis(30)).await;
    let second = sample(&clock);
    rate_khz(second.0.checked_sub(first.0)?, second.1.checked_sub(first.1)?)
}

/// The counter and the time in nanoseconds, the two as close together as one try in eight allows.
fn sample(clock: &quanta::Clock) -> (u64, u64) {
    let attempt = || {
        let (before, nanos, after) = (clock.raw(), monotonic_raw(), clock.raw());
        (after.saturating_sub(before), before.midpoint(after), nanos)
    };
    let best = (0..8).map(|_| attempt()).min();
    best.map_or((0, 0), |(_, counter, nanos)| (counter, nanos))
}

fn monotonic_raw() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicRaw);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// kHz of a counter that advanced by `ticks` in `nanos`. Exactly 1 GHz means that the clock crate fell back to
/// the system clock, because the counter is not constant.
fn rate_khz(ticks: u64, nanos: u64) -> Option<u32> {
    let khz = u128::from(ticks).checked_mul(1_000_000)?.checked_div(u128::from(nanos))?;
    let khz = u32::try_from(khz).ok()?;
    let fell_back = khz.abs_diff(1_000_000) < 200;
    (khz > 100_000 && !fell_back).then_some(khz)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_found_in_what_qemu_prints() {
        let debian = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\nCopyright (c) 2003";
        assert_eq!(parse_version(debian), Some("7.2.22"));
        assert_eq!(parse_version("QEMU emulator version 10.0.2\n"), Some("10.0.2"));
        assert_eq!(parse_version("command not found"), None);
    }

    #[test]
    fn a_counter_that_is_only_the_system_clock_gives_no_rate() {
        assert_eq!(rate_khz(30_000_300, 30_000_000), None);
        assert_eq!(rate_khz(77_883_660, 30_000_000), Some(2_596_122));
        assert_eq!(rate_khz(1, 0), None);
    }
}
