//! What a create may ask for, and a way to make it fail for tests.

use crate::error::CreateStep;
use crate::{CreateVm, MiB};
use flames_vmm::{Capabilities, Error, ErrorKind, Result};
use std::fmt;
use std::sync::Arc;

/// Below this a kernel does not start.
const MIN_MEMORY: MiB = MiB(32);
/// What the kernel allows a hostname.
const MAX_HOSTNAME: usize = 63;
/// More names and values than this do not fit into a handshake.
const MAX_ENV_BYTES: usize = 256 << 10;

/// The largest VM that this machine can run with its driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Virtual CPUs: what the driver can, and what the host has twice.
    pub max_vcpus: u8,
    /// Memory: what the driver can, and what the host has.
    pub max_memory: MiB,
}

impl Limits {
    /// The limits of this host with a driver.
    pub fn of(driver: &Capabilities) -> Self {
        let twice = u8::try_from(host_cpus().saturating_mul(2)).unwrap_or(u8::MAX);
        Self {
            max_vcpus: driver.max_vcpus.min(twice),
            max_memory: driver.max_memory.min(host_memory().total),
        }
    }

    /// # Errors
    /// `InvalidInput` naming what is wrong and what is allowed.
    pub fn check(&self, request: &CreateVm) -> Result<()> {
        within("vcpus", u32::from(request.vcpus), 1, u32::from(self.max_vcpus))?;
        within("memory", request.memory.0, MIN_MEMORY.0, self.max_memory.0)?;
        check_hostname(&request.hostname)?;
        check_env(request)
    }
}

fn within(what: &'static str, value: u32, least: u32, most: u32) -> Result<()> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    let unit = if what == "memory" { " MiB" } else { "" };
    Err(Error::new(ErrorKind::InvalidInput, what, format!("{value}{unit}"))
        .detail(format!("must be between {least} and {most}{unit} on this machine")))
}

fn check_hostname(name: &str) -> Result<()> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if (1..=MAX_HOSTNAME).contains(&name.len()) && name.bytes().all(legal) {
        return Ok(());
    }
    let shown: String = name.chars().take(MAX_HOSTNAME).collect();
    Err(Error::new(ErrorKind::InvalidInput, "hostname", shown)
        .detail("must be 1 to 63 letters, digits and '-'"))
}

fn check_env(request: &CreateVm) -> Result<()> {
    let is_bad =
        |name: &str, value: &str| name.is_empty() || name.contains(['=', '\0']) || value.contains('\0');
    let env = || request.env.iter().flatten();
    if let Some((name, _)) = env().find(|(name, value)| is_bad(name, value)) {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            "environment variable",
            name.escape_debug().to_string(),
        )
        .detail("a name must not be empty or hold '=' or a zero byte; nor may a value hold one"));
    }
    let size: usize = env().map(|(name, value)| name.len() + value.len() + 2).sum();
    if size <= MAX_ENV_BYTES {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidInput, "environment", format!("{size} bytes"))
        .detail(format!("must have at most {MAX_ENV_BYTES} bytes")))
}

/// Processors that this process may use.
pub(super) fn host_cpus() -> u32 {
    std::thread::available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(u32::MAX))
}

/// Memory of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HostMemory {
    pub(super) total: MiB,
    pub(super) available: MiB,
}

pub(super) fn host_memory() -> HostMemory {
    parse_meminfo(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default())
}

fn parse_meminfo(text: &str) -> HostMemory {
    let mib = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        let kib: u64 = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or_default();
        MiB(u32::try_from(kib >> 10).unwrap_or(u32::MAX))
    };
    HostMemory { total: mib("MemTotal:"), available: mib("MemAvailable:") }
}

/// Decides after each step of a create whether it fails on purpose. Does nothing unless a test sets it.
#[derive(Clone, Default)]
pub struct FailurePoint(Option<Arc<dyn Fn(CreateStep) -> Result<()> + Send + Sync>>);

impl FailurePoint {
    /// Never fails.
    pub fn none() -> Self {
        Self(None)
    }

    /// Asks `decide` after each step has done its work.
    pub fn new(decide: impl Fn(CreateStep) -> Result<()> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(decide)))
    }

    /// Fails after one step.
    pub fn after(step: CreateStep) -> Self {
        Self::new(move |done| {
            if done == step {
                return Err(
                    Error::new(ErrorKind::Internal, "failure point", step.to_string()).detail("injected")
                );
            }
            Ok(())
        })
    }

    pub(super) fn check(&self, step: CreateStep) -> Result<()> {
        self.0.as_ref().map_or(Ok(()), |decide| decide(step))
    }
}

impl fmt::Debug for FailurePoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "FailurePoint(armed)" } else { "FailurePoint(none)" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_at_the_bounds_pass_and_beyond_them_name_the_range() {
        within("memory", 32, 32, 64).unwrap();
        within("memory", 64, 32, 64).unwrap();
        for bad in [0, 31, 65, u32::MAX] {
            let error = within("memory", bad, 32, 64).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains("between 32 and 64 MiB"), "{error}");
        }
    }

    #[test]
    fn hostnames_that_could_break_the_hosts_file_are_refused() {
        check_hostname("i0abc").unwrap();
        for bad in ["", "a b", "a\nb", "a.b", &"a".repeat(64)] {
            assert_eq!(check_hostname(bad).unwrap_err().kind(), ErrorKind::InvalidInput, "{bad:?}");
        }
    }

    #[test]
    fn memory_is_read_in_mebibytes() {
        let memory =
            parse_meminfo("MemTotal:        4194304 kB\nMemFree: 1 kB\nMemAvailable:    1048576 kB\n");
        assert_eq!(memory, HostMemory { total: MiB(4096), available: MiB(1024) });
    }
}
