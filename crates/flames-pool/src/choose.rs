//! Which member is handed out: tiers first, then one pure function per strategy.

use crate::{Health, MemberState, MemberView, Millis, Strategy, Tier};

/// A member that could be handed out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Its place in the pool.
    pub slot: u32,
    /// How far it is ahead.
    pub tier: Tier,
    /// The last moment at which anything ran in it.
    pub last_used: Millis,
    /// How long its making took, in milliseconds.
    pub boot_ms: f64,
}

/// What a pool remembers from one hand-out to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The slot that was handed out last.
    pub last_slot: Option<u32>,
}

/// Picks one of `candidates`: of the readiest tier that any of them is in, by `strategy`. The answer is an index
/// into `candidates`; `None` if there are none. `random` is fresh for every call and evenly distributed; only
/// `weighted-random` looks at it.
pub fn choose(
    strategy: Strategy,
    candidates: &[Candidate],
    cursor: &mut Cursor,
    random: u64,
) -> Option<usize> {
    let equals = Equals::readiest(candidates)?;
    let chosen = match strategy {
        Strategy::FirstAvailable => first_available(&equals),
        Strategy::BestPerformance => best_performance(&equals),
        Strategy::LeastRecentlyUsed => least_recently_used(&equals),
        Strategy::RoundRobin => round_robin(&equals, *cursor),
        Strategy::WeightedRandom => weighted_random(&equals, random),
    }?;
    cursor.last_slot = Some(candidates[chosen].slot);
    Some(chosen)
}

/// The lowest slot. Cheap and predictable: a pool that is larger than its load uses the same few slots over and
/// over, and the rest grows old, so it needs a maximum age.
fn first_available(equals: &Equals<'_>) -> Option<usize> {
    equals.iter().min_by_key(|(_, one)| one.slot).map(|(index, _)| index)
}

/// The one that was made fastest. Good where the making says something about the place (a slower core, a noisy
/// neighbour); as uneven as chance makes it.
fn best_performance(equals: &Equals<'_>) -> Option<usize> {
    let order = |one: &Candidate, other: &Candidate| {
        one.boot_ms.total_cmp(&other.boot_ms).then(one.slot.cmp(&other.slot))
    };
    equals.iter().min_by(|(_, one), (_, other)| order(one, other)).map(|(index, _)| index)
}

/// The one in which nothing ran for the longest time. Keeps the whole pool young: fewest members reach their
/// maximum age unused. The pages of an old member may have gone cold.
fn least_recently_used(equals: &Equals<'_>) -> Option<usize> {
    equals.iter().min_by_key(|(_, one)| (one.last_used, one.slot)).map(|(index, _)| index)
}

/// The next slot after the one handed out last, then from the beginning. The most even over slots, and so over
/// whatever belongs to them (network namespaces, cores).
fn round_robin(equals: &Equals<'_>, cursor: Cursor) -> Option<usize> {
    let is_behind = |slot: u32| cursor.last_slot.is_some_and(|last| slot <= last);
    equals.iter().min_by_key(|(_, one)| (is_behind(one.slot), one.slot)).map(|(index, _)| index)
}

/// By chance, in proportion to how fast each was made: prefers the fast without wearing out the same slot, and
/// without anything to remember, so several allocators do not collide.
fn weighted_random(equals: &Equals<'_>, random: u64) -> Option<usize> {
    let total: f64 = equals.iter().map(|(_, one)| weight(one)).sum();
    // The upper 53 bits are what an f64 holds exactly: evenly distributed in [0, 1).
    let mut left = (random >> 11) as f64 / (1_u64 << 53) as f64 * total;
    for (index, one) in equals.iter() {
        left -= weight(one);
        if left < 0.0 {
            return Some(index);
        }
    }
    equals.iter().last().map(|(index, _)| index) // what rounding left over
}

/// One over the milliseconds; nothing is made in less than one.
fn weight(candidate: &Candidate) -> f64 {
    if candidate.boot_ms.is_finite() { 1.0 / candidate.boot_ms.max(1.0) } else { f64::MIN_POSITIVE }
}

/// Those candidates that are in the same tier, with their places among all.
struct Equals<'a> {
    all: &'a [Candidate],
    tier: Tier,
}

impl<'a> Equals<'a> {
    fn readiest(all: &'a [Candidate]) -> Option<Self> {
        let tier = all.iter().map(|one| one.tier).min()?;
        Some(Self { all, tier })
    }

    fn iter(&self) -> impl Iterator<Item = (usize, &'a Candidate)> {
        let tier = self.tier;
        self.all.iter().enumerate().filter(move |(_, one)| one.tier == tier)
    }
}

impl Candidate {
    /// `None` if the member may not be handed out: not ready, not well, or of another build of the template than
    /// the present one.
    pub fn of(member: &MemberView, present_build: &str) -> Option<Self> {
        let may = member.state == MemberState::Ready
            && member.health != Health::Unhealthy
            && member.build == present_build;
        may.then(|| Self {
            slot: member.slot,
            tier: member.tier,
            last_used: member.last_used(),
            boot_ms: member.boot_ms,
        })
    }
}
