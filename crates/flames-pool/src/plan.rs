//! Refill and maintenance: what to start, retire and check, as one pure function.
//!
//! Called after every event of a pool and about once a second; it looks at what there is, so calling it again
//! before its answer is carried out gives the same answer, and carrying it out twice is for the caller to avoid
//! (a member that is being retired is `Stopping`, one that is being made is `Prewarming`).

use crate::scale::{autoscale, spread};
use crate::{Health, Load, MemberState, MemberView, Millis, PoolConfig, Reason, Scale, Tier, Tiers};
use std::collections::BTreeSet;
use std::time::Duration;

/// A pool at one moment.
#[derive(Clone, Debug)]
pub struct PoolView {
    /// Every member, whatever its state; one that was handed out is no longer a member.
    pub members: Vec<MemberView>,
    /// The present build of the template; members of another are replaced.
    pub build: String,
    /// Whether the pool is kept or emptied.
    pub phase: Phase,
    /// What it is asked for.
    pub load: Load,
    /// What the last plan decided: [`Plan::scale`], or [`Scale::at_base`] at first.
    pub scale: Scale,
    /// Members whose making failed, lately.
    pub failures: Failures,
    /// Creates that are booting or restoring for a client at this moment. A refill leaves the machine to them.
    pub busy: u32,
    /// Members that this node still has room for (memory, disk, network slots); `u32::MAX` if nobody counts.
    pub room: u32,
}

/// Whether a pool is kept or emptied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// It is kept at its target.
    #[default]
    Open,
    /// It is emptied: the daemon stops, the pool was removed, or its template was.
    Draining,
}

/// What to do. All of it may be begun at once.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Members to make, the readiest tier first.
    pub start: Vec<(Tier, u32)>,
    /// Members to end, by id: destroyed, never used again.
    pub retire: Vec<(String, Reason)>,
    /// Members to check, by id: ask the agent of a running one; of the others only whether the VMM lives. One
    /// whose check is under way may be named again.
    pub check: Vec<String>,
    /// How many of each tier are wanted.
    pub target: Tiers,
    /// To be handed to the next plan.
    pub scale: Scale,
}

/// Health checks that one plan asks for at most: they share the machine with creates.
pub const CHECKS_AT_ONCE: usize = 16;

/// What the pool needs at this moment.
///
/// - Never more than the maximum are there at once, with those being made and those being ended, nor more
///   than the node has room for.
/// - Never more than the refill concurrency are being made, less the creates that are busy for a client. After a failure
///   nothing is started for a time that doubles with every failure in a row, then one alone.
/// - What is unhealthy or outdated is no help to anybody: it is not counted, and retired within the limit of
///   replacements. What is too old can still be handed out: it goes only while no more than that limit are missing,
///   unless it is twice too old.
/// - The surplus of a tier goes oldest first.
pub fn plan(now: Millis, config: &PoolConfig, view: &PoolView) -> Plan {
    if view.phase == Phase::Draining {
        return drain(view);
    }
    let scale = autoscale(now, config, &view.load, &view.scale);
    let target = spread(config.tiers, scale.target());
    let retire = retire(now, config, view, target);
    let kept = Kept::of(view, &retire);
    let start = start(now, config, view, target, &kept);
    let check = check(now, config, &kept);
    Plan { start, retire: owned(retire), check, target, scale }
}

fn drain(view: &PoolView) -> Plan {
    let still_there =
        view.members.iter().filter(|one| matches!(one.state, MemberState::Prewarming | MemberState::Ready));
    let retire = still_there.map(|one| (one.id.clone(), Reason::Drained)).collect();
    Plan { start: Vec::new(), retire, check: Vec::new(), target: Tiers::default(), scale: view.scale }
}

type Retired<'a> = Vec<(&'a MemberView, Reason)>;

fn owned(retired: Retired<'_>) -> Vec<(String, Reason)> {
    retired.into_iter().map(|(member, reason)| (member.id.clone(), reason)).collect()
}

fn retire<'a>(now: Millis, config: &PoolConfig, view: &'a PoolView, target: Tiers) -> Retired<'a> {
    let mut retired = surplus(view, target);
    let limit = config.max_replacements.saturating_sub(view.count(MemberState::Stopping));
    let useless = view.ready().filter_map(|one| Some((one, view.uselessness(one)?)));
    let mut replaced: Retired<'a> = useless.collect();
    replaced.sort_by_key(|(one, reason)| (*reason, one.started_at));
    replaced.truncate(to_usize(limit));
    let limit = to_usize(limit) - replaced.len();
    replaced.extend(too_old(now, config, view, target, &retired, limit));
    retired.extend(replaced);
    retired
}

/// More are ready in a tier than are wanted: the oldest of them. Nothing ready goes for one that is still being made.
fn surplus(view: &PoolView, target: Tiers) -> Retired<'_> {
    let mut retired = Vec::new();
    for tier in Tier::ALL {
        let mut ready: Vec<_> = view.usable().filter(|one| one.tier == tier).collect();
        let more = ready.len().saturating_sub(to_usize(target.of(tier)));
        ready.sort_by_key(|one| one.started_at);
        retired.extend(ready.into_iter().take(more).map(|one| (one, Reason::Surplus)));
    }
    retired
}

/// Oldest first, at most `limit`. What is only once too old stays while others are missing already.
fn too_old<'a>(
    now: Millis,
    config: &PoolConfig,
    view: &'a PoolView,
    target: Tiers,
    surplus: &Retired<'_>,
    limit: usize,
) -> Retired<'a> {
    let Some(max_age) = config.max_age() else {
        return Vec::new();
    };
    let is_surplus = |one: &MemberView| surplus.iter().any(|(other, _)| other.id == one.id);
    let is_old = |one: &&MemberView, age: Duration| now.since(one.started_at) > age;
    let mut old: Vec<_> =
        view.usable().filter(|one| is_old(one, max_age)).filter(|one| !is_surplus(one)).collect();
    old.sort_by_key(|one| one.started_at);
    let missing = to_usize(target.total()).saturating_sub(view.usable().count() - surplus.len());
    let spare = to_usize(config.max_replacements).saturating_sub(missing);
    let overdue = old.iter().filter(|one| is_old(one, max_age * 2)).count();
    old.into_iter().take(limit.min(spare.max(overdue))).map(|one| (one, Reason::TooOld)).collect()
}

fn start(
    now: Millis,
    config: &PoolConfig,
    view: &PoolView,
    target: Tiers,
    kept: &Kept<'_>,
) -> Vec<(Tier, u32)> {
    let mut budget = budget(now, config, view);
    let mut start = Vec::new();
    for tier in Tier::ALL {
        let short = target.of(tier).saturating_sub(kept.of_tier(tier));
        let count = short.min(budget);
        budget -= count;
        if count > 0 {
            start.push((tier, count));
        }
    }
    start
}

/// How many members may be started now.
fn budget(now: Millis, config: &PoolConfig, view: &PoolView) -> u32 {
    let prewarming = view.count(MemberState::Prewarming);
    let stopping = view.count(MemberState::Stopping);
    let room = config.maximum.saturating_sub(prewarming + view.count(MemberState::Ready) + stopping);
    let at_once = config.refill_concurrency.saturating_sub(view.busy);
    let at_once = match view.failures.next_try_at() {
        None => at_once,
        Some(next_try) if now < next_try => 0,
        Some(_) => at_once.min(1),
    };
    at_once.saturating_sub(prewarming).min(room).min(view.room)
}

/// Those that nothing ran in for the longest time first.
fn check(now: Millis, config: &PoolConfig, kept: &Kept<'_>) -> Vec<String> {
    let Some(every) = config.health_check_every() else {
        return Vec::new();
    };
    let is_due = |one: &&&MemberView| now.since(one.last_used()) >= every;
    let ready = kept.members.iter().filter(|one| one.state == MemberState::Ready);
    let mut due: Vec<_> = ready.filter(is_due).collect();
    due.sort_by_key(|one| (one.last_used(), one.slot));
    due.truncate(CHECKS_AT_ONCE);
    due.into_iter().map(|one| one.id.clone()).collect()
}

/// Members that are, or will be, of use, without those that are retired now.
struct Kept<'a> {
    members: Vec<&'a MemberView>,
}

impl<'a> Kept<'a> {
    fn of(view: &'a PoolView, retired: &Retired<'_>) -> Self {
        let retired: BTreeSet<&str> = retired.iter().map(|(one, _)| one.id.as_str()).collect();
        let kept = view.usable().chain(view.coming()).filter(|one| !retired.contains(one.id.as_str()));
        Self { members: kept.collect() }
    }

    fn of_tier(&self, tier: Tier) -> u32 {
        count(self.members.iter().filter(|one| one.tier == tier))
    }
}

impl PoolView {
    fn count(&self, state: MemberState) -> u32 {
        count(self.members.iter().filter(|one| one.state == state))
    }

    fn ready(&self) -> impl Iterator<Item = &MemberView> {
        self.members.iter().filter(|one| one.state == MemberState::Ready)
    }

    /// Ready, well and of the present build.
    fn usable(&self) -> impl Iterator<Item = &MemberView> {
        self.ready().filter(|one| self.uselessness(one).is_none())
    }

    /// Being made, from the present build.
    fn coming(&self) -> impl Iterator<Item = &MemberView> {
        self.members.iter().filter(|one| one.state == MemberState::Prewarming && one.build == self.build)
    }

    /// Why nobody may have it.
    fn uselessness(&self, member: &MemberView) -> Option<Reason> {
        match member.health {
            Health::Unhealthy => Some(Reason::Unhealthy),
            _ if member.build != self.build => Some(Reason::OutdatedBuild),
            _ => None,
        }
    }
}

/// Members whose making failed, one after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    in_a_row: u32,
    last_at: Millis,
}

impl Failures {
    /// The wait after the first failure; it doubles with every further one.
    pub const FIRST_WAIT: Duration = Duration::from_secs(1);
    /// The longest wait.
    pub const LONGEST_WAIT: Duration = Duration::from_secs(300);

    /// One more member could not be made.
    pub fn failed(&mut self, now: Millis) {
        *self = Self { in_a_row: self.in_a_row.saturating_add(1), last_at: now };
    }

    /// A member was made: all is well again.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// How many failed since one was made.
    pub fn in_a_row(&self) -> u32 {
        self.in_a_row
    }

    /// When the next may be tried; `None` if nothing failed.
    pub fn next_try_at(&self) -> Option<Millis> {
        let doublings = self.in_a_row.checked_sub(1)?.min(16);
        let wait = Self::FIRST_WAIT.saturating_mul(1 << doublings).min(Self::LONGEST_WAIT);
        Some(self.last_at.plus(wait))
    }
}

fn count<T>(some: impl Iterator<Item = T>) -> u32 {
    u32::try_from(some.count()).unwrap_or(u32::MAX)
}

fn to_usize(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}
