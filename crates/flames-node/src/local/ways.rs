//! Which way a create goes: a member of the pool, a restore, or a boot.
//!
//! A way that turns out closed (a snapshot that is refused, a member that died) leads to the next one, slower; the
//! answer says which way it was and why.

use super::Inner;
use super::create::{Creation, Handed, cancelled};
use super::pool::Size;
use super::source::{Image, Source};
use crate::disk::blocking;
use crate::error::{CreateError, CreateStep};
use crate::paths::Assets;
use crate::snapshot::{Contents, GuestSettings, Snapshot};
use crate::{BootPath, CreateVm, CreatedVm, StartFrom, Template, TemplateName, TemplateOrigin};
use flames_pool::{Available, Choice, choose_path};
use flames_vmm::{Error, ErrorKind, Result};
use std::sync::{Arc, PoisonError};
use std::time::Instant;
use tokio_util::sync::CancellationToken;

impl Inner {
    /// Makes a machine for `request`.
    pub(super) async fn create(
        self: &Arc<Self>,
        request: CreateVm,
        cancel: &CancellationToken,
    ) -> Result<CreatedVm, CreateError> {
        let failed = |error| CreateStep::Template.failed(error);
        match &request.from {
            StartFrom::Snapshot(id) => {
                let snapshot = self.snapshots.find(id).map_err(failed)?;
                if snapshot.manifest.contents() == Contents::DiskOnly {
                    return self.create_from_disk(request, snapshot, cancel).await;
                }
                let why = format!("from the snapshot `{id}`");
                let handed = self.start(request, Source::Snapshot(snapshot), cancel).await?;
                Ok(told(handed, Choice { path: BootPath::Restored, why }))
            }
            StartFrom::Template(name) => {
                let admitted = self.limits().check(&request).and_then(|()| self.assets.check());
                admitted.map_err(|error| CreateStep::Admit.failed(error))?;
                let image = self.image(name).await.map_err(failed)?;
                self.create_from_image(request, image, cancel).await
            }
        }
    }

    /// Boots with a disk that a snapshot holds, and tells the guest what the captured one had been told.
    async fn create_from_disk(
        self: &Arc<Self>,
        mut request: CreateVm,
        snapshot: Arc<Snapshot>,
        cancel: &CancellationToken,
    ) -> Result<CreatedVm, CreateError> {
        let why = format!("the snapshot `{}` holds a disk alone", snapshot.id());
        if let Some(GuestSettings(told)) = snapshot.manifest.settings.clone() {
            request.env.get_or_insert(told.env_vars);
            request.default_user.get_or_insert(told.default_user);
            request.default_workdir = request.default_workdir.or(told.default_workdir);
        }
        let image = self.image_of(snapshot).await.map_err(|error| CreateStep::Template.failed(error))?;
        let handed = self.start(request, Source::Image(image), cancel).await?;
        Ok(told(handed, Choice { path: BootPath::Cold, why }))
    }

    async fn create_from_image(
        self: &Arc<Self>,
        request: CreateVm,
        image: Arc<Image>,
        cancel: &CancellationToken,
    ) -> Result<CreatedVm, CreateError> {
        let asked = Instant::now();
        let snapshot = self.template_snapshot(&image, &request).await;
        let available = Available {
            warm: self.pools.ready_for(&request),
            snapshot: snapshot.is_some(),
            slot_and_disk: self.networks.has_ready(),
        };
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut choice = choose_path(request.level, &available, &history);
        self.pools.note_arrival(&request, choice.path);
        if choice.path == BootPath::Warm {
            match self.take_warm(&request, cancel).await {
                Ok(Some(handed)) => return Ok(self.done(asked, handed, choice)),
                Ok(None) => choice = next("every warm VM was taken meanwhile", snapshot.is_some()),
                Err(error) if cancel.is_cancelled() => return Err(error),
                Err(error) => {
                    choice = next(&format!("a warm VM failed ({})", error.cause()), snapshot.is_some())
                }
            }
        }
        if let (BootPath::Restored, Some(snapshot)) = (choice.path, snapshot) {
            match self.start(request.clone(), Source::Snapshot(Arc::clone(&snapshot)), cancel).await {
                Ok(handed) => return Ok(self.done(asked, handed, choice)),
                Err(error) if !is_refusal(&error) || cancel.is_cancelled() => return Err(error),
                Err(error) => {
                    self.drop_refused(&snapshot, &error);
                    choice = next(&format!("the template's snapshot was refused ({})", error.cause()), false);
                }
            }
        }
        let wants_snapshot = request.level.parts().snapshot;
        let handed = self.start(request.clone(), Source::Image(Arc::clone(&image)), cancel).await?;
        if wants_snapshot {
            self.want_template_snapshot(&image.template.name, Size::of(&request));
        }
        Ok(self.done(asked, handed, choice))
    }

    async fn start(
        self: &Arc<Self>,
        request: CreateVm,
        source: Source,
        cancel: &CancellationToken,
    ) -> Result<Handed, CreateError> {
        let failed = |error| CreateStep::Admit.failed(error);
        // All at once would each take as long as all one after the other.
        let _turn = tokio::select! {
            turn = self.starts.acquire() => turn.map_err(|error| failed(closed(&request, error)))?,
            () = cancel.cancelled() => return Err(failed(cancelled(&request))),
        };
        let machine = request.run.clone();
        let creation = Creation::new(Arc::clone(self), request, source, machine).map_err(failed)?;
        Box::pin(creation.run(cancel)).await
    }

    /// A template with everything that it is booted with.
    pub(super) async fn image(&self, name: &TemplateName) -> Result<Arc<Image>> {
        self.image_with(self.templates.find(name).await?, None).await
    }

    /// The image that a disk was captured over, which may not be the template's any more; kernel and agent are those of now.
    async fn image_of(&self, snapshot: Arc<Snapshot>) -> Result<Arc<Image>> {
        let manifest = &snapshot.manifest;
        let template = Template {
            name: manifest.guest.template.clone(),
            origin: TemplateOrigin::User,
            size_bytes: 0,
            sha256: manifest.guest.template_sha256.clone(),
            created_unix: manifest.created_unix,
            built_from: format!("snapshot {}", snapshot.id()),
            image: snapshot.image_disk(),
            start_up: manifest.guest.start_up.clone(),
        };
        self.image_with(template, Some(snapshot)).await
    }

    async fn image_with(&self, template: Template, disk: Option<Arc<Snapshot>>) -> Result<Arc<Image>> {
        let assets = self.assets.clone();
        let look = move || {
            let agent = assets.agent();
            let (agent_sha256, kernel_sha256) = (Assets::sha256(&agent)?, Assets::sha256(&assets.kernel())?);
            Ok(Arc::new(Image { template, agent, agent_sha256, kernel_sha256, disk }))
        };
        blocking("assets", look).await
    }

    /// The snapshot of the template as it is now, in the size asked for.
    pub(super) async fn template_snapshot(&self, image: &Image, request: &CreateVm) -> Option<Arc<Snapshot>> {
        if !self.driver.capabilities().snapshots {
            return None;
        }
        let guest = image.guest(request.vcpus, request.memory, request.disk);
        let id = self.template_snapshot_id(&guest).await.ok()?;
        self.template_snapshots.find(&id).ok()
    }

    /// A snapshot that was refused once is refused for ever: it goes, and a new one is taken.
    fn drop_refused(&self, snapshot: &Snapshot, error: &CreateError) {
        tracing::warn!(snapshot = %snapshot.id(), error = %error.cause(), "a template's snapshot is refused: removed");
        if let Err(error) = self.template_snapshots.remove(snapshot.id()) {
            tracing::warn!(snapshot = %snapshot.id(), %error, "it cannot be removed");
        }
    }

    pub(super) fn done(&self, asked: Instant, handed: Handed, choice: Choice) -> CreatedVm {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        history.record(choice.path, asked.elapsed());
        drop(history);
        told(handed, choice)
    }
}

fn told(handed: Handed, choice: Choice) -> CreatedVm {
    let Handed { run, timings, facts } = handed;
    CreatedVm { run, path: choice.path, why: choice.why, timings, facts }
}

fn closed(request: &CreateVm, error: tokio::sync::AcquireError) -> Error {
    Error::new(ErrorKind::Internal, "run", request.run.as_str()).source(error)
}

/// The way after one that turned out closed.
fn next(why: &str, snapshot: bool) -> Choice {
    let path = if snapshot { BootPath::Restored } else { BootPath::Cold };
    Choice { path, why: why.to_owned() }
}

/// Whether the snapshot is at fault and not the moment.
fn is_refusal(error: &CreateError) -> bool {
    matches!(error.step(), CreateStep::Template | CreateStep::VmmSpawn | CreateStep::Boot)
        && matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Conflict | ErrorKind::Unsupported)
}
