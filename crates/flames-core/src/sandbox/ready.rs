//! A create that takes a machine which is a sandbox already, but for its record (ADR 0028).
//!
//! Nothing is made, so nothing is recorded before: the node's own record says until the hand-out that the machine is
//! nobody's, and a run that no record owns is destroyed at the next start.

use crate::SandboxId;
use crate::plane::ControlPlane;
use crate::sandbox::admit::Plan;
use crate::sandbox::create::ms_since;
use crate::sandbox::error::{CreateSandboxError, LifecycleError};
use crate::sandbox::record::{Sandbox, Timings};
use crate::sandbox::run::sandbox_of;
use flames_node::{BootLevel, BootPath, CreatedVm, StartFrom, TakeReady};
use flames_provider::{Error, ErrorKind};
use std::time::Instant;

impl ControlPlane {
    /// A sandbox from the template's warm pool; `None` if there is none to take, or the create must go another way.
    /// What `reserved` holds of the machine's memory is the sandbox's then.
    pub(super) async fn take_ready(
        &self,
        reserved: &SandboxId,
        plan: &Plan,
        asked: Instant,
    ) -> Option<Result<Sandbox, CreateSandboxError>> {
        let request = wanted(plan)?;
        let admit_ms = ms_since(asked);
        let taken = self.node.take_ready(request).await?;
        let run = taken.run.clone();
        let made = self.record_taken(reserved, taken, plan, (admit_ms, asked)).await;
        if let Err(error) = &made {
            tracing::warn!(%run, %error, "a warm VM was taken and could not be recorded: destroying it");
            self.room.release(reserved, self.clock.now());
            self.undo_start(&run).await;
        }
        Some(made.map_err(CreateSandboxError::HandOut))
    }

    async fn record_taken(
        &self,
        reserved: &SandboxId,
        taken: CreatedVm,
        plan: &Plan,
        (admit_ms, asked): (f64, Instant),
    ) -> Result<Sandbox, LifecycleError> {
        let id = sandbox_of(&taken.run).ok_or_else(|| nameless(&taken))?;
        let timings = Timings { admit_ms, node: taken.timings, ..Timings::default() };
        let sandbox = self.starting(&id, plan)?;
        let mut sandbox = self.booted(sandbox, taken, timings, plan.timeout)?;
        sandbox.timings.create_ms = ms_since(asked);
        let stored = self.records.insert(sandbox).await?;
        self.room.pass_on(reserved, &id);
        self.is_up(&stored.sandbox, BootPath::Warm);
        Ok(stored.sandbox)
    }
}

/// A machine of a name that this control plane did not give.
fn nameless(taken: &CreatedVm) -> Error {
    Error::new(ErrorKind::Internal, "run", taken.run.as_str()).detail("does not name its sandbox")
}

/// What to ask the node for; `None` for a create that may not, or need not, take what was made ahead: another level
/// than `instant` weighs its ways first.
fn wanted(plan: &Plan) -> Option<TakeReady> {
    let (StartFrom::Template(template), BootLevel::Instant) = (&plan.from, plan.level) else { return None };
    Some(TakeReady {
        template: template.clone(),
        vcpus: plan.resources.vcpus,
        memory: plan.resources.memory,
        disk: plan.resources.disk,
        env: plan.env.clone().unwrap_or_default(),
        default_user: plan.user.clone(),
        default_workdir: plan.workdir.clone(),
        network: plan.network.clone(),
    })
}
