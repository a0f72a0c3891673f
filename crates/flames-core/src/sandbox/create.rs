//! Create a sandbox: the whole story.
//!
//! | step | makes | undone by |
//! |---|---|---|
//! | admit | nothing | nothing to undo |
//! | reserve | memory of the machine | giving it back |
//! | record | a record in `starting` | removing it |
//! | start | network, disk, VMM, guest (the node's own steps) | the node, by itself |
//! | hand out | the record in `running` | destroying the run, removing the record |

use crate::SandboxId;
use crate::idempotency::{IdempotencyKey, Seen};
use crate::plane::ControlPlane;
use crate::sandbox::admit::{CreateSandbox, Plan, Timeout, admit};
use crate::sandbox::error::{CreateSandboxError, LifecycleError};
use crate::sandbox::identity::environment;
use crate::sandbox::record::{Sandbox, Stored, Timings};
use crate::sandbox::resume::path_from;
use crate::sandbox::room::expected_use;
use crate::sandbox::run::{self, sandbox_of};
use crate::sandbox::state::{Event, State};
use flames_node::{BootLevel, BootPath, Contents, CreateVm, CreatedVm, Identity, StartFrom, VmId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::oneshot;

impl ControlPlane {
    /// Makes a sandbox and gives it back running.
    ///
    /// It goes on when the caller goes away; a sandbox that nobody waits for any more is destroyed again.
    ///
    /// # Errors
    /// A variant per step; nothing is left of a create that failed.
    pub async fn create(self: &Arc<Self>, request: CreateSandbox) -> Result<Sandbox, CreateSandboxError> {
        self.create_in_task(request, None).await
    }

    /// The same for a request that may come twice: the repeat gives the sandbox that the first made.
    ///
    /// # Errors
    /// `InProgress` while the first is under way; those of [`ControlPlane::create`].
    pub async fn create_once(
        self: &Arc<Self>,
        request: CreateSandbox,
        key: IdempotencyKey,
    ) -> Result<Sandbox, CreateSandboxError> {
        match self.repeats.claim(&key).await? {
            Seen::Made(id) => self.get(&id).await.map_err(CreateSandboxError::Record),
            Seen::First => self.create_in_task(request, Some(key)).await,
        }
    }

    async fn create_in_task(
        self: &Arc<Self>,
        request: CreateSandbox,
        key: Option<IdempotencyKey>,
    ) -> Result<Sandbox, CreateSandboxError> {
        if self.shutdown.is_cancelled() {
            return Err(CreateSandboxError::ShuttingDown);
        }
        let (answer, waiting) = oneshot::channel();
        let plane = Arc::clone(self);
        self.tasks.spawn(async move {
            let made = plane.create_steps(request).await;
            plane.monitor.create_ended(made.as_ref().err());
            if let Some(key) = key {
                plane.remember(&key, made.as_ref().ok()).await;
                // Whoever repeats the request wants the sandbox, even if nobody waits now.
                let _ = answer.send(made);
                return;
            }
            if let Err(Ok(unwanted)) = answer.send(made) {
                tracing::info!(sandbox = %unwanted.id, "destroying a sandbox whose client went away");
                plane.destroy_logged(&unwanted.id).await;
            }
        });
        waiting.await.unwrap_or(Err(CreateSandboxError::ShuttingDown))
    }

    async fn remember(&self, key: &IdempotencyKey, made: Option<&Sandbox>) {
        match made {
            Some(sandbox) => self.repeats.made(key, &sandbox.id).await,
            None => self.repeats.failed(key).await,
        }
    }

    async fn create_steps(&self, request: CreateSandbox) -> Result<Sandbox, CreateSandboxError> {
        let asked = Instant::now();
        let source = match &request.from_snapshot {
            Some(snapshot) => Some(self.use_snapshot(snapshot).await?),
            None => None,
        };
        let named = request.id.clone();
        let level = request.level.or(self.template_settings.of(&request.template).level);
        let request = CreateSandbox { level, ..request };
        let plan = admit(&self.limits, request, source.as_ref().map(|(snapshot, _)| snapshot))?;
        let path = match &source {
            Some((snapshot, _)) => path_from(snapshot.contents),
            None => self.expected_path(&plan),
        };
        let amount = expected_use(&plan.resources, path);
        let id = named.clone().unwrap_or_else(SandboxId::random);
        self.room.reserve(std::slice::from_ref(&id), amount, self.clock.now())?;
        if named.is_none()
            && let Some(ready) = self.take_ready(&id, &plan, asked).await
        {
            return ready;
        }
        self.make(id, plan, asked).await
    }

    /// What is known of the way before it is gone: that of the template's newest create of its kind.
    fn expected_path(&self, plan: &Plan) -> BootPath {
        match (&plan.from, plan.level) {
            (StartFrom::Snapshot(_), _) => BootPath::Restored,
            (StartFrom::Template(name), BootLevel::Instant | BootLevel::Sub2Second) => {
                self.room.usual_path(name)
            }
            (StartFrom::Template(_), _) => BootPath::Cold,
        }
    }

    /// Makes what was admitted. Memory was reserved for it, and is given back if it fails.
    pub(crate) async fn make(
        &self,
        id: SandboxId,
        plan: Plan,
        asked: Instant,
    ) -> Result<Sandbox, CreateSandboxError> {
        let made = self.make_steps(&id, plan, asked).await;
        if made.is_err() {
            self.room.release(&id, self.clock.now());
        }
        made
    }

    async fn make_steps(
        &self,
        id: &SandboxId,
        plan: Plan,
        asked: Instant,
    ) -> Result<Sandbox, CreateSandboxError> {
        let admit_ms = ms_since(asked);
        let recording = Instant::now();
        let recorded = self.record(id, &plan).await.map_err(CreateSandboxError::Record)?;
        let record_ms = ms_since(recording);

        let timeout = plan.timeout;
        let started = match self.start_run(&recorded.sandbox, plan).await {
            Ok(started) => started,
            Err(error) => {
                self.forget(&recorded).await;
                return Err(error);
            }
        };
        let timings = Timings {
            admit_ms,
            record_ms,
            node: started.timings,
            create_ms: ms_since(asked),
            first_command_ms: None,
        };
        self.hand_out(recorded, started, timings, timeout).await
    }

    /// Writes the record before anything exists on a host, so that a crash in between is found.
    async fn record(&self, id: &SandboxId, plan: &Plan) -> Result<Stored, LifecycleError> {
        self.records.insert(self.starting(id, plan)?).await
    }

    /// A sandbox that is about to be.
    pub(super) fn starting(&self, id: &SandboxId, plan: &Plan) -> Result<Sandbox, LifecycleError> {
        let now = self.clock.now();
        Ok(Sandbox {
            run: run::first(id)?,
            id: id.clone(),
            template: plan.template.clone(),
            state: State::Starting,
            failure: None,
            metadata: plan.metadata.clone(),
            resources: plan.resources,
            created_at: now,
            started_at: None,
            changed_at: now,
            ends_at: None,
            on_timeout: plan.on_timeout,
            idle_timeout_s: plan.idle_timeout_s,
            entrance: plan.entrance.clone(),
            network: plan.network.clone(),
            left_ms: None,
            snapshot: None,
            kept: Contents::default(),
            passing: None,
            origin: plan.origin.clone(),
            level: plan.level,
            path: None,
            why: String::new(),
            ports: BTreeSet::new(),
            timings: Timings::default(),
            facts: None,
        })
    }

    async fn start_run(&self, sandbox: &Sandbox, plan: Plan) -> Result<CreatedVm, CreateSandboxError> {
        let env = match &plan.from {
            StartFrom::Template(template) => {
                plan.env.map(|asked| over(environment(&sandbox.id, template.as_str()), asked))
            }
            // What the snapshot holds stays.
            StartFrom::Snapshot(_) => plan.env,
        };
        let request = CreateVm {
            run: sandbox.run.clone(),
            hostname: sandbox.id.to_string(),
            from: plan.from,
            level: plan.level,
            identity: Identity::New,
            vcpus: plan.resources.vcpus,
            memory: plan.resources.memory,
            disk: plan.resources.disk,
            env,
            access_token: self.tokens.access(&sandbox.id),
            default_user: plan.user,
            default_workdir: plan.workdir,
            network: plan.network,
            boot_deadline: self.limits.boot_deadline,
        };
        let snapshot = match &request.from {
            StartFrom::Snapshot(id) => Some(id.clone()),
            StartFrom::Template(_) => None,
        };
        self.node.create(request).await.map_err(|error| match snapshot {
            Some(id) => CreateSandboxError::FromSnapshot { id, source: Box::new(error) },
            None => CreateSandboxError::Start(error),
        })
    }

    async fn hand_out(
        &self,
        recorded: Stored,
        started: CreatedVm,
        timings: Timings,
        timeout: Timeout,
    ) -> Result<Sandbox, CreateSandboxError> {
        let path = started.path;
        let sandbox = recorded.sandbox.clone();
        let sandbox = self.booted(sandbox, started, timings, timeout).map_err(CreateSandboxError::HandOut)?;
        match self.records.replace(&recorded, sandbox).await {
            Ok(stored) => {
                self.is_up(&stored.sandbox, path);
                Ok(stored.sandbox)
            }
            Err(error) => {
                self.undo_start(&recorded.sandbox.run).await;
                Err(CreateSandboxError::HandOut(error))
            }
        }
    }

    /// The same sandbox, running.
    pub(super) fn booted(
        &self,
        mut sandbox: Sandbox,
        started: CreatedVm,
        timings: Timings,
        timeout: Timeout,
    ) -> Result<Sandbox, LifecycleError> {
        let now = self.clock.now();
        sandbox.take(Event::Booted, now)?;
        sandbox.started_at = Some(now);
        sandbox.ends_at = timeout.ends_at(now);
        sandbox.timings = timings;
        sandbox.facts = Some(started.facts);
        sandbox.path = Some(started.path);
        sandbox.why = started.why;
        Ok(sandbox)
    }

    /// What begins once its record says `running`.
    pub(super) fn is_up(&self, sandbox: &Sandbox, path: BootPath) {
        self.watch_anew(sandbox);
        self.monitor.created(sandbox, path, sandbox.level);
        self.room.started(sandbox, path);
    }

    pub(super) async fn undo_start(&self, run: &VmId) {
        // By its record first, which may say `running` by now: else the end of its VM looks like a failure.
        if let Some(id) = sandbox_of(run) {
            self.destroy_logged(&id).await;
        }
        // Also when the record is out of reach, or a destroy removed it before there was a run.
        if let Err(error) = self.node.destroy(run).await {
            tracing::error!(%run, %error, "undo of a create left a run for the reconciler");
        }
    }

    /// Removes the record of a create that failed. If even that fails the reconciler finds it in `starting`.
    async fn forget(&self, recorded: &Stored) {
        if let Err(error) = self.records.remove(recorded).await {
            tracing::warn!(sandbox = %recorded.sandbox.id, %error, "record of a failed create left for the reconciler");
        }
    }
}

/// What was asked for goes over what every sandbox has.
fn over(mut base: BTreeMap<String, String>, asked: BTreeMap<String, String>) -> BTreeMap<String, String> {
    base.extend(asked);
    base
}

pub(super) fn ms_since(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1000.0
}
