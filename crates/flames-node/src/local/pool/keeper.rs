//! The task that keeps a pool: plan, begin, wait.

use super::member::{Machine, Member, machine_id};
use super::{Pool, Size, State};
use crate::TemplateName;
use crate::error::{CreateError, CreateStep};
use crate::local::Inner;
use crate::snapshot::Snapshot;
use flames_pool::{Health, MemberState, Phase, Plan, Reason, Tier, plan};
use flames_vmm::{Result, VmId};
use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// A pool is looked at this often also when nothing happens: members grow old, and rates fall.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Keeps a pool until it is emptied or the node is gone.
pub(super) fn keep(node: Arc<Inner>, pool: Arc<Pool>) {
    let node = Arc::downgrade(&node);
    let tasks = pool.tasks.clone();
    tasks.spawn(async move {
        while let Some(node) = node.upgrade() {
            pool.look_for_build(&node).await;
            let plan = pool.plan(&node);
            pool.carry_out(&node, plan);
            if pool.is_empty_for_good() {
                return;
            }
            drop(node);
            let _event_or_not = tokio::time::timeout(LOOK_EVERY, pool.changed.notified()).await;
        }
    });
}

impl Pool {
    /// Which snapshot members are made from: another kernel, image, agent or VMM is another build.
    async fn look_for_build(&self, node: &Arc<Inner>) {
        let (template, size) = {
            let state = self.state();
            (state.config.template.clone(), state.size)
        };
        let found = build_of(node, &template, size).await;
        let mut state = self.state();
        match found {
            Ok(build) => {
                state.build = build;
                state.phase = if self.stop.is_cancelled() { Phase::Draining } else { Phase::Open };
            }
            Err(error) => {
                if state.phase == Phase::Open {
                    tracing::warn!(template, %error, "a pool's template cannot be used: the pool is emptied");
                }
                state.phase = Phase::Draining;
            }
        }
    }

    fn plan(&self, node: &Inner) -> Plan {
        let mut state = self.state();
        let view = self.view(&state, node);
        let plan = plan(self.now(), &state.config, &view);
        state.scale = plan.scale;
        state.plan = plan.clone();
        plan
    }

    fn carry_out(self: &Arc<Self>, node: &Arc<Inner>, plan: Plan) {
        for (id, reason) in plan.retire {
            self.retire(&id, reason);
        }
        for id in plan.check {
            self.check(&id);
        }
        for (tier, count) in plan.start {
            (0..count).for_each(|_| self.start(node, tier));
        }
    }

    fn start(self: &Arc<Self>, node: &Arc<Inner>, tier: Tier) {
        let Ok(machine) = machine_id("pool") else { return }; // no randomness: the next look tries again
        let id = machine.to_string();
        {
            let now = self.now();
            let mut state = self.state();
            state.made += 1;
            let member = Member::coming(id.clone(), state.free_slot(), tier, state.build.clone(), now);
            state.members.insert(id.clone(), member);
        }
        let (pool, node) = (Arc::clone(self), Arc::downgrade(node));
        self.tasks.spawn(async move { pool.make(node, machine, id, tier).await });
    }

    async fn make(self: Arc<Self>, node: Weak<Inner>, machine: VmId, id: String, tier: Tier) {
        let Some(node) = node.upgrade() else { return };
        let began = self.now();
        let made = self.machine(&node, &machine, tier).await;
        let unwanted = {
            let now = self.now();
            let mut state = self.state();
            match made {
                Ok((made, build)) => state.welcome(&id, made, build, began, now),
                Err(error) => {
                    state.members.remove(&id);
                    if !self.stop.is_cancelled() {
                        tracing::warn!(template = state.config.template, %error, cause = %error.cause(), "a pool's member could not be made");
                        state.failures.failed(now);
                        state.tally.failed(now, error.cause().to_string());
                    }
                    None
                }
            }
        };
        match unwanted {
            Some(machine) => machine.end().await,
            None => self.watch(&id),
        }
        self.changed.notify_one();
    }

    async fn machine(
        &self,
        node: &Arc<Inner>,
        machine: &VmId,
        tier: Tier,
    ) -> Result<(Machine, String), CreateError> {
        let (template, size, newcomers) = {
            let state = self.state();
            (state.config.template.clone(), state.size, Arc::clone(&state.newcomers))
        };
        let failed = |error| CreateStep::Template.failed(error);
        let template = TemplateName::parse(template).map_err(failed)?;
        let snapshot: Arc<Snapshot> = node.ensure_template_snapshot(&template, size, &self.stop).await?;
        let build = snapshot.id().to_string();
        let made =
            Box::pin(Machine::make(node, machine, tier, snapshot, newcomers.as_ref(), &self.stop)).await?;
        Ok((made, build))
    }

    /// Ends a member whose VMM ended.
    fn watch(self: &Arc<Self>, id: &str) {
        let vm = self.state().members.get(id).and_then(|member| member.machine.as_ref()?.watch());
        let Some(vm) = vm else { return };
        let (pool, id) = (Arc::downgrade(self), id.to_owned());
        tokio::spawn(async move {
            vm.exited().await;
            let Some(pool) = pool.upgrade() else { return };
            if let Some(member) = pool.state().members.get_mut(&id) {
                member.view.health = Health::Unhealthy;
            }
            pool.changed.notify_one();
        });
    }

    fn retire(self: &Arc<Self>, id: &str, reason: Reason) {
        let machine = {
            let mut state = self.state();
            let Some(member) = state.members.get_mut(id) else { return };
            let Some(machine) = member.machine.take() else { return }; // being made: its maker gives it up
            member.view.state = MemberState::Stopping;
            state.tally.retired(reason);
            machine
        };
        let (pool, id) = (Arc::clone(self), id.to_owned());
        self.tasks.spawn(async move {
            machine.end().await;
            pool.state().members.remove(&id);
            pool.changed.notify_one();
        });
    }

    fn check(self: &Arc<Self>, id: &str) {
        let probe = {
            let mut state = self.state();
            let now = self.now();
            let Some(member) = state.members.get_mut(id) else { return };
            member.view.checked_at = Some(now); // not again while this check is under way
            member.machine.as_ref().map(Machine::probe)
        };
        let Some(probe) = probe else { return };
        let (pool, id) = (Arc::clone(self), id.to_owned());
        self.tasks.spawn(async move {
            let health = probe.ask().await;
            if let Some(member) = pool.state().members.get_mut(&id) {
                member.view.health = health;
            }
            if health == Health::Unhealthy {
                pool.changed.notify_one();
            }
        });
    }

    fn is_empty_for_good(&self) -> bool {
        self.stop.is_cancelled() && self.state().members.is_empty()
    }
}

impl State {
    /// The lowest number that no member has.
    fn free_slot(&self) -> u32 {
        let taken: BTreeSet<u32> = self.members.values().map(|member| member.view.slot).collect();
        (0..).find(|slot| !taken.contains(slot)).unwrap_or_default()
    }

    /// Takes a machine in; gives it back if nobody waits for it any more.
    fn welcome(
        &mut self,
        id: &str,
        machine: Machine,
        build: String,
        began: flames_pool::Millis,
        now: flames_pool::Millis,
    ) -> Option<Machine> {
        self.failures.succeeded();
        if self.phase == Phase::Draining {
            self.members.remove(id);
            return Some(machine);
        }
        let Some(member) = self.members.get_mut(id) else { return Some(machine) };
        member.view.state = MemberState::Ready;
        member.view.ready_at = Some(now);
        member.view.build = build;
        member.view.boot_ms = now.since(began).as_secs_f64() * 1000.0;
        member.machine = Some(machine);
        self.tally.refilled();
        None
    }
}

async fn build_of(node: &Arc<Inner>, template: &str, size: Size) -> Result<String> {
    let image = node.image(&TemplateName::parse(template)?).await?;
    let guest = image.guest(size.vcpus, size.memory, size.disk);
    node.template_snapshot_id(&guest).await.map(|id| id.to_string())
}
