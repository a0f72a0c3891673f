//! From what a client asked to what will be made: pure checks, each with what would be right.

use crate::SandboxId;
use crate::sandbox::error::InvalidRequest;
use crate::sandbox::record::{Entrance, OnTimeout, Origin, Resources};
use crate::sandbox::room::MemoryLimit;
use crate::snapshot::record::Snapshot;
use flames_node::{BootLevel, EgressPolicy, MiB, PoolConfig, StartFrom, TemplateName};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::time::Duration;

/// Checks a request against the limits and fills in the defaults. `snapshot` is the one it names, if it does.
///
/// # Errors
/// [`InvalidRequest`] with the first field that is wrong.
pub(crate) fn admit(
    limits: &Limits,
    request: CreateSandbox,
    snapshot: Option<&Snapshot>,
) -> Result<Plan, InvalidRequest> {
    check_pairs("metadata", &request.metadata)?;
    check_env(&request.env)?;
    if let Some(workdir) = &request.workdir {
        check_path("workdir", workdir)?;
    }
    let user = request.user.clone().map(user).transpose()?;
    let ends = Ends {
        timeout: timeout(limits, request.timeout)?,
        idle_timeout_s: request.idle_timeout_s.map(|seconds| idle_timeout(limits, seconds)).transpose()?,
    };
    match snapshot {
        Some(snapshot) => from_snapshot(request, snapshot, ends, user),
        None => from_template(limits, request, ends, user),
    }
}

fn from_template(
    limits: &Limits,
    request: CreateSandbox,
    ends: Ends,
    user: Option<String>,
) -> Result<Plan, InvalidRequest> {
    let template = TemplateName::parse(request.template)
        .map_err(|error| InvalidRequest::new("template", error.detail_text().unwrap_or("not a name")))?;
    Ok(Plan {
        from: StartFrom::Template(template.clone()),
        template,
        origin: None,
        resources: resources(limits, request.vcpus, request.memory_mib, request.disk_mib)?,
        metadata: request.metadata,
        env: Some(request.env),
        timeout: ends.timeout,
        level: request.level.unwrap_or(limits.default_level),
        on_timeout: request.on_timeout,
        idle_timeout_s: ends.idle_timeout_s,
        entrance: request.entrance,
        network: request.network.unwrap_or_default(),
        user: Some(user.unwrap_or_else(|| DEFAULT_USER.to_owned())),
        workdir: request.workdir,
    })
}

/// What the snapshot holds stays as it is, unless the request says otherwise; sizes cannot be changed.
fn from_snapshot(
    request: CreateSandbox,
    snapshot: &Snapshot,
    ends: Ends,
    user: Option<String>,
) -> Result<Plan, InvalidRequest> {
    if !request.template.is_empty() && request.template != snapshot.template.as_str() {
        let problem = format!("the snapshot is of template `{}`: leave this out", snapshot.template);
        return Err(InvalidRequest::new("template", problem));
    }
    let Resources { vcpus, memory, disk } = snapshot.resources;
    same_as_snapshot("vcpus", request.vcpus, vcpus.into())?;
    same_as_snapshot("memory_mib", request.memory_mib, memory.0)?;
    same_as_snapshot("disk_mib", request.disk_mib, disk.0)?;
    Ok(Plan {
        template: snapshot.template.clone(),
        from: StartFrom::Snapshot(snapshot.id.clone()),
        origin: Some(Origin::Snapshot(snapshot.id.clone())),
        resources: snapshot.resources,
        metadata: request.metadata,
        env: Some(request.env).filter(|env| !env.is_empty()),
        timeout: ends.timeout,
        level: BootLevel::default(),
        on_timeout: request.on_timeout,
        idle_timeout_s: ends.idle_timeout_s,
        entrance: request.entrance,
        network: request.network.unwrap_or_else(|| snapshot.network.clone()),
        user,
        workdir: request.workdir,
    })
}

fn same_as_snapshot(field: &'static str, asked: Option<u32>, has: u32) -> Result<(), InvalidRequest> {
    match asked {
        Some(asked) if asked != has => Err(InvalidRequest::new(
            field,
            format!("a clone has what its snapshot has, {has}: leave this out"),
        )),
        _ => Ok(()),
    }
}

/// What a client asks for. `None` takes the default of [`Limits`].
#[derive(Clone, Debug, Default)]
pub struct CreateSandbox {
    /// Its name, for who must know it beforehand; it must be new.
    pub id: Option<SandboxId>,
    /// Name of the template; empty for one from a snapshot.
    pub template: String,
    /// Id or name of a snapshot to create from.
    pub from_snapshot: Option<String>,
    /// Virtual CPUs.
    pub vcpus: Option<u32>,
    /// Guest memory in MiB.
    pub memory_mib: Option<u32>,
    /// Writable disk in MiB.
    pub disk_mib: Option<u32>,
    /// The user's own labels.
    pub metadata: BTreeMap<String, String>,
    /// Environment of every process in the sandbox.
    pub env: BTreeMap<String, String>,
    /// When it ends by itself.
    pub timeout: Option<Timeout>,
    /// What happens then.
    pub on_timeout: OnTimeout,
    /// For how many seconds it may run unused before it ends in the same way; `None` is for ever.
    pub idle_timeout_s: Option<u64>,
    /// How requests are led into it.
    pub entrance: Entrance,
    /// What it may reach. Default: nothing; from a snapshot what the captured sandbox might reach.
    pub network: Option<EgressPolicy>,
    /// How fast it should be; says nothing about one from a snapshot.
    pub level: Option<BootLevel>,
    /// Whom a process runs as when nobody is named; default `user`.
    pub user: Option<String>,
    /// Where a process starts when nothing is said; default the user's home.
    pub workdir: Option<String>,
}

/// When a sandbox ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeout {
    /// This long after it was handed out, or after the timeout was set.
    After(Duration),
    /// Only when it is told to, or its VMM ends.
    Never,
}

/// What a node's operator allows, and what is taken when nothing is said.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Taken when a create names none.
    pub default_resources: Resources,
    /// The most a create may ask for.
    pub max_resources: Resources,
    /// Taken when a create names none.
    pub default_timeout: Timeout,
    /// The longest a sandbox may ask for; `None` allows any, and [`Timeout::Never`].
    pub max_timeout: Option<Duration>,
    /// How fast a create is when it does not say.
    pub default_level: BootLevel,
    /// The warm pools that are kept unless records say otherwise, by template.
    pub pools: BTreeMap<String, PoolConfig>,
    /// How long a guest may take to boot.
    pub boot_deadline: Duration,
    /// How long a host may take to pause, to capture or to resume a sandbox.
    pub snapshot_deadline: Duration,
    /// How much memory sandboxes may be expected to use together.
    pub memory: MemoryLimit,
    /// How long the log of a sandbox, and the record of a failed one, are kept.
    pub retention: Duration,
    /// Exposed ports are hosts below this domain.
    pub domain: String,
}

/// A create that can be made.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) template: TemplateName,
    pub(crate) from: StartFrom,
    pub(crate) origin: Option<Origin>,
    pub(crate) resources: Resources,
    pub(crate) metadata: BTreeMap<String, String>,
    /// `None` leaves what a snapshot holds; so with `user` and `workdir`.
    pub(crate) env: Option<BTreeMap<String, String>>,
    pub(crate) timeout: Timeout,
    pub(crate) on_timeout: OnTimeout,
    pub(crate) idle_timeout_s: Option<NonZeroU64>,
    pub(crate) entrance: Entrance,
    pub(crate) network: EgressPolicy,
    pub(crate) level: BootLevel,
    pub(crate) user: Option<String>,
    pub(crate) workdir: Option<String>,
}

/// When a sandbox ends by itself, checked.
#[derive(Clone, Copy, Debug)]
struct Ends {
    timeout: Timeout,
    idle_timeout_s: Option<NonZeroU64>,
}

/// Less does not boot.
pub const MIN_MEMORY: MiB = MiB(64);
/// Less has no room for the file system's own tables.
pub const MIN_DISK: MiB = MiB(16);
pub(crate) const DEFAULT_USER: &str = "user";
const MAX_PAIRS: usize = 128;
const MAX_PAIRS_BYTES: usize = 64 * 1024;
const MAX_NAME_BYTES: usize = 256;

impl Default for Limits {
    fn default() -> Self {
        Self {
            default_resources: Resources { vcpus: 1, memory: MiB(256), disk: MiB(1024) },
            max_resources: Resources { vcpus: 8, memory: MiB(8192), disk: MiB(65_536) },
            default_timeout: Timeout::After(Duration::from_secs(300)),
            max_timeout: None,
            default_level: BootLevel::default(),
            pools: BTreeMap::new(),
            boot_deadline: Duration::from_secs(60),
            snapshot_deadline: Duration::from_secs(120),
            memory: MemoryLimit::Unlimited,
            retention: Duration::from_secs(24 * 3600),
            domain: "sandbox.localhost".to_owned(),
        }
    }
}

impl Timeout {
    /// In milliseconds; `None` is never.
    pub(crate) fn as_millis(self) -> Option<u64> {
        match self {
            Self::After(span) => Some(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)),
            Self::Never => None,
        }
    }

    /// The moment it ends, counted from `now`.
    pub(crate) fn ends_at(self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::After(span) => {
                let span = SignedDuration::try_from(span).unwrap_or(SignedDuration::MAX);
                Some(now.checked_add(span).unwrap_or(Timestamp::MAX))
            }
            Self::Never => None,
        }
    }
}

fn resources(
    limits: &Limits,
    vcpus: Option<u32>,
    memory_mib: Option<u32>,
    disk_mib: Option<u32>,
) -> Result<Resources, InvalidRequest> {
    let (default, max) = (limits.default_resources, limits.max_resources);
    let vcpus = within("vcpus", vcpus.unwrap_or(default.vcpus.into()), 1, max.vcpus.into())?;
    Ok(Resources {
        vcpus: u8::try_from(vcpus).unwrap_or(max.vcpus),
        memory: MiB(within(
            "memory_mib",
            memory_mib.unwrap_or(default.memory.0),
            MIN_MEMORY.0,
            max.memory.0,
        )?),
        disk: MiB(within("disk_mib", disk_mib.unwrap_or(default.disk.0), MIN_DISK.0, max.disk.0)?),
    })
}

fn within(field: &'static str, asked: u32, min: u32, max: u32) -> Result<u32, InvalidRequest> {
    if (min..=max).contains(&asked) {
        return Ok(asked);
    }
    Err(InvalidRequest::new(field, format!("{asked} is out of range: this node allows {min} to {max}")))
}

/// Checks a timeout against the longest that is allowed.
pub(crate) fn timeout(limits: &Limits, asked: Option<Timeout>) -> Result<Timeout, InvalidRequest> {
    let timeout = asked.unwrap_or(limits.default_timeout);
    let Some(max) = limits.max_timeout else { return Ok(timeout) };
    match timeout {
        Timeout::After(span) if span <= max => Ok(timeout),
        _ => Err(InvalidRequest::new(
            "timeout_s",
            format!("longer than this node allows, which is {} s", max.as_secs()),
        )),
    }
}

/// Checks an idle limit against the longest timeout that is allowed.
fn idle_timeout(limits: &Limits, seconds: u64) -> Result<NonZeroU64, InvalidRequest> {
    let wrong = |problem: String| InvalidRequest::new("idle_timeout_s", problem);
    let most = limits.max_timeout.map_or(u64::MAX, |max| max.as_secs());
    match NonZeroU64::new(seconds) {
        Some(seconds) if seconds.get() <= most => Ok(seconds),
        Some(_) => Err(wrong(format!("longer than this node allows, which is {most} s"))),
        None => Err(wrong("must be at least 1 s: leave it out for a sandbox that may be idle".to_owned())),
    }
}

fn user(name: String) -> Result<String, InvalidRequest> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if (1..=32).contains(&name.len()) && name.bytes().all(legal) {
        return Ok(name);
    }
    Err(InvalidRequest::new("user", "must be 1 to 32 of letters, digits, '_', '-' and '.'"))
}

fn check_env(env: &BTreeMap<String, String>) -> Result<(), InvalidRequest> {
    check_pairs("env", env)?;
    match env.iter().find(|(name, value)| name.contains(['=', '\0']) || value.contains('\0')) {
        Some((name, _)) => {
            Err(InvalidRequest::new("env", format!("`{name}` holds a '=' in its name or a zero byte")))
        }
        None => Ok(()),
    }
}

fn check_pairs(field: &'static str, pairs: &BTreeMap<String, String>) -> Result<(), InvalidRequest> {
    if pairs.len() > MAX_PAIRS {
        return Err(InvalidRequest::new(field, format!("{} entries: at most {MAX_PAIRS}", pairs.len())));
    }
    if let Some(name) = pairs.keys().find(|name| name.is_empty() || name.len() > MAX_NAME_BYTES) {
        let shown: String = name.chars().take(40).collect();
        return Err(InvalidRequest::new(
            field,
            format!("name `{shown}` must have 1 to {MAX_NAME_BYTES} bytes"),
        ));
    }
    let bytes: usize = pairs.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > MAX_PAIRS_BYTES {
        return Err(InvalidRequest::new(field, format!("{bytes} bytes together: at most {MAX_PAIRS_BYTES}")));
    }
    Ok(())
}

fn check_path(field: &'static str, path: &str) -> Result<(), InvalidRequest> {
    if path.starts_with('/') && path.len() <= 4096 && !path.contains('\0') {
        return Ok(());
    }
    Err(InvalidRequest::new(field, "must be an absolute path of at most 4096 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong_field(request: CreateSandbox) -> &'static str {
        admit(&Limits::default(), request, None).unwrap_err().field
    }

    fn base() -> CreateSandbox {
        CreateSandbox { template: "mini".into(), ..CreateSandbox::default() }
    }

    #[test]
    fn a_bare_request_takes_every_default() {
        let plan = admit(&Limits::default(), base(), None).unwrap();
        assert_eq!(plan.resources, Limits::default().default_resources);
        assert_eq!((plan.user.as_deref(), plan.timeout), (Some("user"), Limits::default().default_timeout));
    }

    #[test]
    fn absurd_sizes_are_refused_by_field() {
        assert_eq!(wrong_field(CreateSandbox { vcpus: Some(0), ..base() }), "vcpus");
        assert_eq!(wrong_field(CreateSandbox { vcpus: Some(4096), ..base() }), "vcpus");
        assert_eq!(wrong_field(CreateSandbox { memory_mib: Some(0), ..base() }), "memory_mib");
        assert_eq!(wrong_field(CreateSandbox { memory_mib: Some(u32::MAX), ..base() }), "memory_mib");
        assert_eq!(wrong_field(CreateSandbox { disk_mib: Some(1), ..base() }), "disk_mib");
    }

    #[test]
    fn bad_names_and_values_are_refused_by_field() {
        assert_eq!(wrong_field(CreateSandbox { template: "../etc".into(), ..base() }), "template");
        assert_eq!(wrong_field(CreateSandbox { user: Some("a b".into()), ..base() }), "user");
        assert_eq!(wrong_field(CreateSandbox { workdir: Some("home".into()), ..base() }), "workdir");
        let env = BTreeMap::from([("A=B".to_owned(), String::new())]);
        assert_eq!(wrong_field(CreateSandbox { env, ..base() }), "env");
        let metadata = BTreeMap::from([(String::new(), String::new())]);
        assert_eq!(wrong_field(CreateSandbox { metadata, ..base() }), "metadata");
        let metadata = BTreeMap::from([("a".to_owned(), "x".repeat(70_000))]);
        assert_eq!(wrong_field(CreateSandbox { metadata, ..base() }), "metadata");
    }

    #[test]
    fn a_timeout_past_the_limit_is_refused_and_never_ends_after_the_limit() {
        let limits = Limits { max_timeout: Some(Duration::from_secs(60)), ..Limits::default() };
        for asked in [Timeout::Never, Timeout::After(Duration::from_secs(61))] {
            assert_eq!(timeout(&limits, Some(asked)).unwrap_err().field, "timeout_s");
        }
        assert!(timeout(&limits, Some(Timeout::After(Duration::from_secs(60)))).is_ok());
        assert_eq!(Timeout::After(Duration::MAX).ends_at(Timestamp::UNIX_EPOCH), Some(Timestamp::MAX));
    }

    #[test]
    fn an_idle_limit_is_at_least_a_second_and_no_longer_than_the_longest_timeout() {
        let minute = Duration::from_secs(60);
        let limits = Limits { max_timeout: Some(minute), ..Limits::default() };
        let timeout = Some(Timeout::After(minute));
        let idle = |seconds| CreateSandbox { idle_timeout_s: Some(seconds), timeout, ..base() };
        for wrong in [0, 61, u64::MAX] {
            assert_eq!(admit(&limits, idle(wrong), None).unwrap_err().field, "idle_timeout_s", "{wrong}");
        }
        assert_eq!(admit(&limits, idle(60), None).unwrap().idle_timeout_s, NonZeroU64::new(60));
        assert_eq!(admit(&Limits::default(), base(), None).unwrap().idle_timeout_s, None);
    }
}
