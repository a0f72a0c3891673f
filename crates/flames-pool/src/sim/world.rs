//! The event loop of a simulated run.

use super::random::Random;
use super::report::{Notes, Report};
use super::{Durations, Scenario};
use crate::{
    ArrivalRate, Available, BootLevel, BootPath, Candidate, Cursor, Failures, Health, History, Load,
    MemberState, MemberView, Millis, Phase, PoolView, Scale, Tier, choose, choose_path, plan,
};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// How often a plan is made without any event.
const TICK: Duration = Duration::from_secs(1);

pub(super) struct World<'a> {
    scenario: &'a Scenario,
    now: Millis,
    /// The next event is on top; the number keeps those of one moment in the order they were put in.
    events: BinaryHeap<Reverse<(Millis, u64, Event)>>,
    next_number: u64,
    random: Random,
    view: PoolView,
    cursor: Cursor,
    rate: ArrivalRate,
    notes: Notes,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Tick,
    Create,
    /// A member is made.
    Made(String),
    /// A member is gone.
    Gone(String),
    /// A create that found no member has its sandbox.
    Served,
    /// A sandbox ends.
    Ended,
}

impl<'a> World<'a> {
    pub(super) fn new(scenario: &'a Scenario) -> Self {
        let mut world = Self {
            scenario,
            now: Millis(0),
            events: BinaryHeap::new(),
            next_number: 0,
            random: Random::new(scenario.seed, 2),
            view: empty(&scenario.config),
            cursor: Cursor::default(),
            rate: ArrivalRate::of(&scenario.config),
            notes: Notes::default(),
        };
        world.at(Millis(0), Event::Tick);
        let arrivals = scenario.trace.arrivals(scenario.per_second, scenario.length, scenario.seed);
        arrivals.into_iter().for_each(|at| world.at(at, Event::Create));
        world
    }

    pub(super) fn run(mut self) -> Report {
        let end = Millis::from(self.scenario.length);
        while let Some(Reverse((at, _, event))) = self.events.pop()
            && at < end
        {
            self.pass_until(at);
            let matters = event != Event::Ended;
            self.happens(event);
            if matters {
                self.carry_out_plan();
            }
        }
        self.pass_until(end);
        self.notes.report(self.scenario.length)
    }

    fn at(&mut self, at: Millis, event: Event) {
        self.events.push(Reverse((at, self.next_number, event)));
        self.next_number += 1;
    }

    fn after_ms(&mut self, later_ms: f64, event: Event) {
        let at = self.now.plus(Duration::from_secs_f64(later_ms.max(0.0) / 1000.0));
        self.at(at, event);
    }

    fn pass_until(&mut self, at: Millis) {
        let idle = self.view.members.iter().filter(|one| one.state == MemberState::Ready).count();
        self.notes.idle_vm_s += idle as f64 * at.since(self.now).as_secs_f64();
        self.now = at;
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Tick => self.at(self.now.plus(TICK), Event::Tick),
            Event::Create => self.create(),
            Event::Made(id) => self.made(&id),
            Event::Gone(id) => self.view.members.retain(|one| one.id != id),
            Event::Served => self.view.busy -= 1,
            Event::Ended => self.view.load.live -= 1,
        }
    }

    fn create(&mut self) {
        self.rate.arrived(self.now);
        self.view.load.live += 1;
        let candidates: Vec<_> =
            self.view.members.iter().filter_map(|one| Candidate::of(one, &self.view.build)).collect();
        let random = self.random.next();
        let wait_ms = match choose(self.scenario.config.strategy, &candidates, &mut self.cursor, random) {
            Some(chosen) => self.hand_out(candidates[chosen].slot),
            None => self.go_another_way(),
        };
        self.notes.waits_ms.push(wait_ms);
        let hold_ms = self.random.exponential(self.scenario.durations.hold_s * 1000.0);
        self.after_ms(wait_ms + hold_ms, Event::Ended);
    }

    /// How long it takes, in milliseconds. What is handed out is no longer a member.
    fn hand_out(&mut self, slot: u32) -> f64 {
        let Some(place) =
            self.view.members.iter().position(|one| one.slot == slot && one.state == MemberState::Ready)
        else {
            return 0.0;
        };
        let member = self.view.members.swap_remove(place);
        self.notes.hand_outs[slot as usize] += 1;
        self.notes.ages_s.push(self.now.since(member.started_at).as_secs_f64());
        let durations = &self.scenario.durations;
        let rest_ms = match member.tier {
            Tier::Running => 0.0,
            Tier::Paused => durations.resume_ms,
            Tier::Prepared => durations.load_ms,
        };
        self.took_ms(durations.hand_out_ms + rest_ms, slot)
    }

    /// How long it takes, in milliseconds.
    fn go_another_way(&mut self) -> f64 {
        let Durations { snapshot, prepare_ms, load_ms, boot_ms, .. } = self.scenario.durations;
        let available = Available { warm: 0, snapshot, slot_and_disk: false };
        let choice = choose_path(BootLevel::Instant, &available, &History::default());
        let rest_ms = if choice.path == BootPath::Cold { boot_ms } else { load_ms };
        // Its own slot, as likely a slow one as any other.
        #[expect(clippy::cast_possible_truncation)]
        let slot = self.random.next() as u32;
        let wait_ms = self.took_ms(prepare_ms + rest_ms, slot);
        self.view.busy += 1;
        self.after_ms(wait_ms, Event::Served);
        wait_ms
    }

    fn made(&mut self, id: &str) {
        let now = self.now;
        if let Some(member) = self.view.members.iter_mut().find(|one| one.id == id) {
            member.state = MemberState::Ready;
            member.health = Health::Healthy;
            member.ready_at = Some(now);
            member.boot_ms = now.since(member.started_at).as_secs_f64() * 1000.0;
        }
    }

    fn carry_out_plan(&mut self) {
        self.view.load.arrivals_per_second = self.rate.per_second(self.now);
        let plan = plan(self.now, &self.scenario.config, &self.view);
        self.view.scale = plan.scale;
        for (id, reason) in plan.retire {
            *self.notes.wasted.entry(reason).or_default() += 1;
            self.retire(id);
        }
        for (tier, count) in plan.start {
            (0..count).for_each(|_| self.start(tier));
        }
        for id in plan.check {
            if let Some(member) = self.view.members.iter_mut().find(|one| one.id == id) {
                member.checked_at = Some(self.now);
            }
        }
    }

    fn retire(&mut self, id: String) {
        if let Some(member) = self.view.members.iter_mut().find(|one| one.id == id) {
            member.state = MemberState::Stopping;
            let stop_ms = self.took_ms(self.scenario.durations.stop_ms, 0);
            self.after_ms(stop_ms, Event::Gone(id));
        }
    }

    fn start(&mut self, tier: Tier) {
        let slot = self.free_slot();
        self.notes.started += 1;
        self.notes.slot_used(slot as usize);
        let id = format!("m{}", self.notes.started);
        let took_ms = self.took_ms(self.scenario.durations.making_ms(tier), slot);
        self.after_ms(took_ms, Event::Made(id.clone()));
        self.view.members.push(MemberView {
            id,
            slot,
            tier,
            state: MemberState::Prewarming,
            build: self.view.build.clone(),
            health: Health::Unchecked,
            started_at: self.now,
            ready_at: None,
            checked_at: None,
            boot_ms: 0.0,
        });
    }

    /// The lowest that no member has.
    fn free_slot(&self) -> u32 {
        let is_free = |slot: &u32| !self.view.members.iter().any(|one| one.slot == *slot);
        (0..).find(is_free).unwrap_or(u32::MAX)
    }

    /// A duration as it comes out in this slot this time.
    fn took_ms(&mut self, usual_ms: f64, slot: u32) -> f64 {
        let durations = &self.scenario.durations;
        let luck = Random::new(self.scenario.seed, 3 + u64::from(slot)).share();
        let factor = if luck < durations.slow_slots { durations.slow_factor } else { 1.0 };
        let noise = 1.0 + durations.noise * (2.0 * self.random.share() - 1.0);
        usual_ms * factor * noise
    }
}

impl Durations {
    fn making_ms(&self, tier: Tier) -> f64 {
        match (tier, self.snapshot) {
            (Tier::Prepared, _) => self.prepare_ms,
            (_, true) => self.prepare_ms + self.load_ms,
            (_, false) => self.prepare_ms + self.boot_ms,
        }
    }
}

fn empty(config: &crate::PoolConfig) -> PoolView {
    PoolView {
        members: Vec::new(),
        build: "simulated".to_owned(),
        phase: Phase::Open,
        load: Load::default(),
        scale: Scale::at_base(config, Millis(0)),
        failures: Failures::default(),
        busy: 0,
        room: u32::MAX,
    }
}
