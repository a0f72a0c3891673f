//! Plans carried out by a small model of a node, with everything that can happen in between.

use crate::support::{any_config, view};
use flames_pool::{
    Candidate, Cursor, Health, Load, MemberState, MemberView, Millis, Phase, PoolConfig, PoolView, Preset,
    Tiers, choose, plan,
};
use proptest::prelude::*;

/// What happens in one second.
#[derive(Clone, Copy, Debug)]
enum Event {
    Nothing,
    /// Some creates.
    Creates(u8),
    /// What is being made becomes ready.
    Ready,
    /// The first being made fails.
    Fails,
    /// Health checks find one ill.
    Illness(u8),
    /// What is being ended is gone.
    Gone,
    /// The template is built anew.
    Rebuilt,
}

struct Node {
    config: PoolConfig,
    view: PoolView,
    now: Millis,
    next_id: u32,
    cursor: Cursor,
}

impl Node {
    fn new(config: PoolConfig) -> Self {
        let view = view(&config, Vec::new());
        Self { config, view, now: Millis(0), next_id: 0, cursor: Cursor::default() }
    }

    fn carry_out(&mut self) {
        let plan = plan(self.now, &self.config, &self.view);
        for (id, _) in &plan.retire {
            self.member(id).state = MemberState::Stopping;
        }
        for (tier, count) in plan.start {
            (0..count).for_each(|_| self.start(tier));
        }
        let now = self.now;
        plan.check.iter().for_each(|id| self.member(id).checked_at = Some(now));
        self.view.scale = plan.scale;
    }

    fn start(&mut self, tier: flames_pool::Tier) {
        self.next_id += 1;
        let started = MemberView {
            id: format!("m{}", self.next_id),
            state: MemberState::Prewarming,
            health: Health::Unchecked,
            build: self.view.build.clone(),
            ready_at: None,
            ..crate::support::member(self.next_id, tier, self.now.0)
        };
        self.view.members.push(started);
    }

    fn member(&mut self, id: &str) -> &mut MemberView {
        self.view.members.iter_mut().find(|one| one.id == id).unwrap()
    }

    fn happens(&mut self, event: Event) {
        self.now = Millis(self.now.0 + 1000);
        match event {
            Event::Nothing => {}
            Event::Creates(count) => (0..count).for_each(|_| self.create()),
            Event::Ready => self.ready(),
            Event::Fails => {
                if let Some(at) =
                    self.view.members.iter().position(|one| one.state == MemberState::Prewarming)
                {
                    self.view.members.remove(at);
                    self.view.failures.failed(self.now);
                }
            }
            Event::Illness(which) => {
                let mut ready: Vec<_> =
                    self.view.members.iter_mut().filter(|one| one.state == MemberState::Ready).collect();
                if let Some(at) = usize::from(which).checked_rem(ready.len()) {
                    ready[at].health = Health::Unhealthy;
                }
            }
            Event::Gone => self.view.members.retain(|one| one.state != MemberState::Stopping),
            Event::Rebuilt => self.view.build = format!("b{}", self.now.0),
        }
    }

    fn ready(&mut self) {
        for one in self.view.members.iter_mut().filter(|one| one.state == MemberState::Prewarming) {
            (one.state, one.ready_at) = (MemberState::Ready, Some(self.now));
            self.view.failures.succeeded();
        }
    }

    fn create(&mut self) {
        let indexed = self.view.members.iter().enumerate();
        let (places, candidates): (Vec<_>, Vec<_>) =
            indexed.filter_map(|(at, one)| Some((at, Candidate::of(one, &self.view.build)?))).unzip();
        if let Some(chosen) = choose(self.config.strategy, &candidates, &mut self.cursor, self.now.0) {
            self.view.members.remove(places[chosen]);
        }
    }

    /// Nothing bad happens any more.
    fn in_peace(&mut self, seconds: u32) {
        self.view.load = Load::default();
        for _ in 0..seconds {
            self.happens(Event::Ready);
            self.happens(Event::Gone);
            self.carry_out();
        }
    }
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        Just(Event::Nothing),
        (1_u8..5).prop_map(Event::Creates),
        Just(Event::Ready),
        Just(Event::Fails),
        any::<u8>().prop_map(Event::Illness),
        Just(Event::Gone),
        Just(Event::Rebuilt),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_pool_never_has_more_than_its_maximum_and_comes_to_its_target_once_it_has_peace(
        config in any_config(), events in proptest::collection::vec((any_event(), 0_u32..40, 0.0..9.0_f64), 0..120),
    ) {
        let mut node = Node::new(config);
        for (event, live, arrivals_per_second) in events {
            node.view.load = Load { live, arrivals_per_second };
            node.happens(event);
            node.carry_out();
            prop_assert!(node.view.members.len() <= node.config.maximum as usize);
        }
        node.in_peace(1200);
        let ready = node.view.members.iter().filter(|one| one.state == MemberState::Ready).count();
        prop_assert_eq!(ready, node.view.scale.target() as usize);
        prop_assert!(node.view.members.iter().all(|one| Candidate::of(one, &node.view.build).is_some()));
    }

    #[test]
    fn a_pool_that_is_drained_is_empty_once_its_members_are_gone(config in any_config()) {
        let mut node = Node::new(config);
        node.in_peace(60);
        node.view.phase = Phase::Draining;
        node.carry_out();
        node.happens(Event::Gone);
        node.carry_out();
        prop_assert_eq!(node.view.members.len(), 0);
    }
}

#[test]
fn a_pool_in_peace_stands_still() {
    let mut node = Node::new(Preset::Standard.config("mini"));
    node.in_peace(400);
    let made = node.next_id;
    node.in_peace(400);
    assert_eq!(node.next_id, made);
}

#[test]
fn age_alone_replaces_every_member_and_never_leaves_more_than_the_limit_missing() {
    let tiers = Tiers { running: 6, paused: 0, prepared: 0 };
    let mut node =
        Node::new(PoolConfig { tiers, maximum: 6, max_age_s: 100, ..Preset::Minimal.config("mini") });
    node.in_peace(20);
    let first: Vec<_> = node.view.members.iter().map(|one| one.id.clone()).collect();
    for _ in 0..400 {
        node.in_peace(1);
        let ready = node.view.members.iter().filter(|one| one.state == MemberState::Ready).count();
        assert!(ready >= 5, "{:?}", node.view.members);
    }
    assert!(node.view.members.iter().all(|one| !first.contains(&one.id)));
}
