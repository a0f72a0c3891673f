//! What QEMU's command line depends on and only this host knows: its version and the time stamp counter.

use crate::config::QemuConfig;
use std::io;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// Facts of this host, found once per driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFacts {
    /// QEMU's exact version, for example `7.2.22`.
    pub version: String,
    /// Rate of the time stamp counter in kHz; `None` where it is not constant, and guests then calibrate.
    pub tsc_khz: Option<u32>,
}

impl HostFacts {
    /// The first number of the version; 0 if there is none.
    pub fn major(&self) -> u32 {
        self.version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0)
    }
}

/// Asks QEMU for its version and measures the counter, both at once.
pub(crate) async fn find(config: &QemuConfig) -> io::Result<HostFacts> {
    let (version, measured) = tokio::join!(version(config), measure_tsc());
    Ok(HostFacts { version: version?, tsc_khz: config.tsc_khz.or(measured) })
}

async fn version(config: &QemuConfig) -> io::Result<String> {
    let output = Command::new(&config.binary).arg("--version").stdin(Stdio::null()).output().await?;
    let text = String::from_utf8_lossy(&output.stdout);
    parse_version(&text).map(str::to_owned).ok_or_else(|| {
        io::Error::other(format!("`{} --version` does not name a version", config.binary.display()))
    })
}

/// Finds `7.2.22` in `QEMU emulator version 7.2.22 (Debian 1:7.2+...)`.
fn parse_version(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("version ")?;
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
