//! Snapshots: of runs when somebody asks, of templates so that creates need not boot.

use super::create::{Creation, ms_since};
use super::pool::{Size, machine_id};
use super::source::{Image, Source};
use super::{Inner, TemplateSnapshots};
use crate::disk::{blocking, copy_sparse};
use crate::error::{CreateError, CreateStep};
use crate::snapshot::{
    AGENT_DISK, Captured, Contents, GuestFacts, HostFacts, IMAGE_DISK, Partial, Snapshot, Snapshots, info,
};
use crate::{
    AfterSnapshot, CreateVm, Keep, SnapshotId, SnapshotTimings, TakeSnapshot, TakenSnapshot, TemplateName,
};
use flames_guest::control::THAW_AFTER;
use flames_vmm::{Error, ErrorKind, Result, RunningVm, VmId};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio_util::sync::CancellationToken;

/// Captures a guest whole. It stands still afterwards, whatever happened: the caller lets it go on.
pub(super) async fn capture(vm: &dyn RunningVm, disk: &Path, into: &Partial) -> Result<SnapshotTimings> {
    let start = Instant::now();
    vm.pause().await?;
    vm.snapshot(into.dir()).await?;
    let memory_ms = ms_since(start);
    let disk_ms = copy_disk(disk, into).await?;
    Ok(SnapshotTimings { paused_ms: ms_since(start), memory_ms, disk_ms, ..SnapshotTimings::default() })
}

/// Captures the disk of a guest that was told to freeze it. It stands still afterwards, as with [`capture`].
///
/// # Errors
/// `Timeout` when the VMM takes so long that the guest may have thawed its disk.
pub(super) async fn capture_frozen(
    vm: &dyn RunningVm,
    disk: &Path,
    into: &Partial,
) -> Result<SnapshotTimings> {
    let start = Instant::now();
    tokio::time::timeout(PAUSE_FROZEN, vm.pause()).await.map_err(|_| {
        Error::new(ErrorKind::Timeout, "disk", disk.display().to_string())
            .detail("the VMM did not pause while the disk was frozen")
    })??;
    let disk_ms = copy_disk(disk, into).await?;
    Ok(SnapshotTimings { paused_ms: ms_since(start), disk_ms, ..SnapshotTimings::default() })
}

/// Well before [`THAW_AFTER`].
const PAUSE_FROZEN: Duration = Duration::from_secs(20);
const _: () = assert!(PAUSE_FROZEN.as_secs() * 2 <= THAW_AFTER.as_secs());

/// Gives how long it took, in milliseconds.
async fn copy_disk(disk: &Path, into: &Partial) -> Result<f64> {
    let copying = Instant::now();
    let (from, to) = (disk.to_owned(), into.disk());
    blocking("disk", move || copy_sparse(&from, &to)).await?;
    Ok(ms_since(copying))
}

impl Inner {
    /// See [`crate::Node::snapshot`].
    pub(super) async fn snapshot(
        self: &Arc<Self>,
        run: &VmId,
        request: TakeSnapshot,
    ) -> Result<TakenSnapshot> {
        let live = self.find(run)?;
        if request.contents == Contents::MemoryAndDisk {
            self.must_take_snapshots(&request.id)?;
        }
        self.disks.check_room()?;
        let partial = self.snapshots.begin(&request.id)?;
        partial.keep_image(AGENT_DISK, &live.record.images.agent)?;
        partial.keep_image(IMAGE_DISK, &live.record.images.image)?;
        let host = self.host_facts().await?.clone();
        let (guest, control_token) = (live.record.guest.clone(), live.record.control_token.clone());
        let seal = async |partial, settings| {
            let start = Instant::now();
            let captured = Captured { host, guest, control_token, settings };
            let snapshot = self.seal(&self.snapshots, partial, request.keep, captured).await?;
            Ok((snapshot, ms_since(start)))
        };
        let ((snapshot, seal_ms), timings) =
            live.capture(partial, (request.then, request.contents), seal).await?;
        if request.then == AfterSnapshot::End {
            self.end_captured(run, &request.id).await?;
        }
        Ok(TakenSnapshot { info: info(&snapshot), timings: SnapshotTimings { seal_ms, ..timings } })
    }

    /// A run whose VMM resists keeps what it has, and its snapshot is none.
    async fn end_captured(&self, run: &VmId, snapshot: &SnapshotId) -> Result<()> {
        let Err(error) = self.destroy(run).await else { return Ok(()) };
        self.snapshots.remove(snapshot)?;
        Err(error)
    }

    async fn seal(
        &self,
        store: &Arc<Snapshots>,
        partial: Partial,
        keep: Keep,
        captured: Captured,
    ) -> Result<Arc<Snapshot>> {
        let store = Arc::clone(store);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        blocking("snapshot", move || store.publish(partial, keep, now, captured)).await
    }

    fn must_take_snapshots(&self, id: &SnapshotId) -> Result<()> {
        if self.driver.capabilities().snapshots {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Unsupported, "snapshot", id.as_str())
            .detail(format!("the VMM `{}` takes none", self.driver.name())))
    }

    /// What this host is to a snapshot; looked at once.
    pub(super) async fn host_facts(&self) -> Result<&HostFacts> {
        let look = || async { Ok(HostFacts::here(self.driver.name(), self.driver.version().await?)) };
        self.host.get_or_try_init(look).await
    }

    /// The name of the template's own snapshot: another kernel, image, agent, VMM, CPU or size is another name, and so
    /// is a machine with something more.
    pub(super) async fn template_snapshot_id(&self, guest: &GuestFacts) -> Result<SnapshotId> {
        let facts = (self.kernel_args(), &self.config.extras, self.host_facts().await?, guest);
        let json = serde_json::to_vec(&facts).map_err(|error| {
            Error::new(ErrorKind::Internal, "snapshot", guest.template.as_str()).source(error)
        })?;
        SnapshotId::parse(format!("t{}", &hex::encode(Sha256::digest(json))[..24]))
    }

    /// Boots the template, warms it up, takes its snapshot and ends it. What an older build left is removed.
    pub(super) async fn make_template_snapshot(
        self: &Arc<Self>,
        image: Arc<Image>,
        request: CreateVm,
        cancel: &CancellationToken,
    ) -> Result<Arc<Snapshot>, CreateError> {
        let failed = |error| CreateStep::Template.failed(error);
        let guest = image.guest(request.vcpus, request.memory, request.disk);
        let id = self.template_snapshot_id(&guest).await.map_err(failed)?;
        let machine = request.run.clone();
        let source = Source::Image(image);
        let mut creation = Creation::new(Arc::clone(self), request, source, machine).map_err(failed)?;
        creation.steps(CreateStep::Admit, CreateStep::StartUp, cancel).await?;
        let taken = self.take_template_snapshot(&creation, &id).await;
        creation.give_up().await;
        let snapshot = taken.map_err(failed)?;
        self.remove_outdated(&snapshot).map_err(failed)?;
        Ok(snapshot)
    }

    /// The snapshot of a template in a size, taken now if there is none. One at a time: it takes a processor, and
    /// who waits for the same one finds it.
    pub(super) async fn ensure_template_snapshot(
        self: &Arc<Self>,
        template: &TemplateName,
        size: Size,
        cancel: &CancellationToken,
    ) -> Result<Arc<Snapshot>, CreateError> {
        let failed = |error| CreateStep::Template.failed(error);
        let image = self.image(template).await.map_err(failed)?;
        let machine = machine_id("tmpl").map_err(failed)?;
        let request = self.placeholder(&machine, template.clone(), size).map_err(failed)?;
        if let Some(snapshot) = self.template_snapshot(&image, &request).await {
            return Ok(snapshot);
        }
        let _making = self.making_snapshot.lock().await;
        if let Some(snapshot) = self.template_snapshot(&image, &request).await {
            return Ok(snapshot);
        }
        Box::pin(self.make_template_snapshot(image, request, cancel)).await
    }

    /// Takes a template's snapshot in the background, if this node does so and nobody else does already.
    pub(super) fn want_template_snapshot(self: &Arc<Self>, template: &TemplateName, size: Size) {
        if self.config.template_snapshots != TemplateSnapshots::TakeAfterFirstUse
            || !self.driver.capabilities().snapshots
            || self.making_snapshot.try_lock().is_err()
        {
            return;
        }
        let (this, template) = (Arc::clone(self), template.clone());
        self.background.spawn(async move {
            let stop = this.stop.clone();
            if let Err(error) = this.ensure_template_snapshot(&template, size, &stop).await
                && !stop.is_cancelled()
            {
                tracing::warn!(%template, %error, cause = %error.cause(), "no snapshot of a template could be taken");
            }
        });
    }

    async fn take_template_snapshot(
        self: &Arc<Self>,
        creation: &Creation,
        id: &SnapshotId,
    ) -> Result<Arc<Snapshot>> {
        creation.warm_up().await;
        creation.settle().await?;
        let partial = self.template_snapshots.begin(id)?;
        let images = creation.images();
        partial.keep_image(AGENT_DISK, &images.agent)?;
        partial.keep_image(IMAGE_DISK, &images.image)?;
        let timings = creation.capture(&partial).await?;
        tracing::info!(snapshot = %id, paused_ms = timings.paused_ms, "a template's snapshot is taken");
        let captured = Captured {
            host: self.host_facts().await?.clone(),
            guest: creation.guest_facts()?,
            control_token: creation.control(),
            settings: None,
        };
        self.seal(&self.template_snapshots, partial, Keep::UntilRemoved, captured).await
    }

    /// Snapshots of the same template in the same size that nothing starts from any more.
    fn remove_outdated(&self, newest: &Snapshot) -> Result<()> {
        let of = |snapshot: &Snapshot| {
            let guest = &snapshot.manifest.guest;
            (guest.template.clone(), guest.vcpus, guest.memory, guest.disk)
        };
        let all = self.template_snapshots.all()?;
        let mut outdated = all.iter().filter(|other| other.id() != newest.id() && of(other) == of(newest));
        outdated.try_for_each(|other| self.template_snapshots.remove(other.id()))
    }
}
