//! What each step of a create makes, and how it is taken away again.

use super::{Creation, Running, missing, ms_since};
use crate::disk::blocking;
use crate::local::handshake::{self, Inherited};
use crate::local::name_server;
use crate::local::record::{Phase, remove_run_dir};
use crate::local::run::Line;
use crate::local::source::Source;
use crate::paths::{RunDir, io_error, make_private_dir};
use crate::{AccessToken, Console};
use flames_guest::control::Greeting;
use flames_vmm::{
    BootChannel, Disk, DiskAccess, Error, ErrorKind, PrepareFor, PreparedVm, Result, StopDeadlines, VmSpec,
};
use std::sync::Arc;
use std::time::Instant;

impl Creation {
    pub(super) async fn admit(&mut self) -> Result<()> {
        let limits = self.node.limits();
        limits.check(&self.request)?;
        self.node.networks.check(&self.request.network)?;
        self.node.assets.check()?;
        self.node.disks.admit(self.request.disk)
    }

    /// The image was found before; a snapshot must fit this host, be what was written, and be of the size asked for.
    pub(super) async fn check_source(&mut self) -> Result<()> {
        let Some(snapshot) = self.source.snapshot() else { return Ok(()) };
        let asked = (self.request.vcpus, self.request.memory, self.request.disk);
        let guest = &snapshot.manifest.guest;
        if asked != (guest.vcpus, guest.memory, guest.disk) {
            return Err(Error::new(ErrorKind::InvalidInput, "snapshot", snapshot.id().as_str()).detail(
                format!(
                    "was taken with {} vcpus, {} memory and {} disk: a clone has the same",
                    guest.vcpus, guest.memory, guest.disk
                ),
            ));
        }
        let host = self.node.host_facts().await?.clone();
        let snapshot = Arc::clone(snapshot);
        blocking("snapshot", move || snapshot.check(&host)).await
    }

    pub(super) async fn lease_network(&mut self) -> Result<()> {
        let start = Instant::now();
        let lease = self.node.networks.lease().await?;
        self.line = Some(Line::new(self.node.dialer.clone(), lease));
        self.timings.network_ms = ms_since(start);
        Ok(())
    }

    pub(super) async fn release_network(&mut self) -> Result<()> {
        let Some(line) = self.line.take() else { return Ok(()) };
        line.cut.cancel();
        blocking("network", move || line.lease.release()).await
    }

    pub(super) async fn make_disk(&mut self) -> Result<()> {
        let start = Instant::now();
        let dir = self.node.data.run(self.machine.id())?;
        if dir.path().exists() {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                "run directory",
                dir.path().display().to_string(),
            ));
        }
        make_private_dir(dir.path())?;
        self.dir = Some(dir.clone());
        self.keep_image(&dir)?;
        self.write_record(Phase::Creating)?;
        match self.source.snapshot() {
            None => self.node.disks.create(&dir.disk(), self.request.disk).await?,
            Some(snapshot) => self.node.disks.copy(&snapshot.disk(), &dir.disk()).await?,
        }
        self.timings.disk_ms = ms_since(start);
        Ok(())
    }

    /// Keeps the template's image for as long as the run lives: the template may be built anew under its name meanwhile.
    /// A snapshot with memory keeps its own, and one of a disk alone can go once the run has begun; an image on another
    /// file system belongs to the installation and stays.
    fn keep_image(&mut self, dir: &RunDir) -> Result<()> {
        let Source::Image(image) = &self.source else { return Ok(()) };
        let (image, link) = (&image.template.image, dir.image());
        let file = std::fs::canonicalize(image).map_err(|error| io_error("image", image, "find", error))?;
        match std::fs::hard_link(&file, &link) {
            Ok(()) => self.image = Some(link),
            Err(error)
                if error.kind() == std::io::ErrorKind::NotFound || self.source.snapshot().is_some() =>
            {
                return Err(io_error("image", file, "link", error));
            }
            Err(_) => {}
        }
        Ok(())
    }

    pub(super) async fn remove_run_dir(&mut self) -> Result<()> {
        let Some(dir) = self.dir.take() else { return Ok(()) };
        blocking("run directory", move || remove_run_dir(&dir)).await
    }

    pub(super) async fn spawn_vmm(&mut self) -> Result<()> {
        let start = Instant::now();
        let spec = self.spec()?;
        let purpose = match &self.source {
            Source::Image(_) => PrepareFor::Boot,
            Source::Snapshot(snapshot) => PrepareFor::Restore(snapshot.parts()),
        };
        self.prepared = Some(self.node.driver.prepare(spec, purpose).await?);
        self.timings.vmm_spawn_ms = ms_since(start);
        Ok(())
    }

    /// Ends the VMM in whatever phase it is and waits until it is gone: the network behind it is taken
    /// apart next (hazard C5).
    pub(super) async fn end_vmm(&mut self) -> Result<()> {
        drop(self.prepared.take()); // kills it, or leaves it to the handle
        if let Some(running) = self.running.take() {
            return running.vm.stop(StopDeadlines::KILL).await.map(drop);
        }
        match &self.dir {
            Some(dir) => self.node.end_vmm_of(self.machine.id(), dir).await,
            None => Ok(()),
        }
    }

    pub(super) async fn boot(&mut self) -> Result<()> {
        let start = Instant::now();
        let prepared = self.prepared.take().ok_or_else(|| missing("prepared VM"))?;
        let deadline = self.request.boot_deadline;
        let work = tokio::time::timeout(deadline, start_guest(prepared, &self.source, &self.control));
        self.running = Some(match work.await {
            Ok(running) => running?,
            Err(_) => return Err(self.boot_timeout()),
        });
        match &self.source {
            Source::Image(_) => self.timings.kernel_to_agent_ms = ms_since(start),
            Source::Snapshot(_) => self.timings.restore_ms = ms_since(start),
        }
        Ok(())
    }

    fn boot_timeout(&self) -> Error {
        let console = self.dir.as_ref().map(|dir| Console::read(&dir.console(), 2048)).unwrap_or_default();
        Error::new(ErrorKind::Timeout, "guest", self.request.run.as_str()).operation("boot").detail(format!(
            "the agent did not report within {} s; the console ends with: {}",
            self.request.boot_deadline.as_secs_f64(),
            String::from_utf8_lossy(&console.text).trim()
        ))
    }

    /// The handshake: whatever it does not acknowledge, the machine is not handed out.
    pub(super) async fn init_agent(&mut self) -> Result<()> {
        let start = Instant::now();
        let running = self.running.as_mut().ok_or_else(|| missing("running VM"))?;
        let line = self.line.as_ref().ok_or_else(|| missing("network"))?;
        let guest = self.guest.take().unwrap_or_else(|| line.client(self.request.access_token.clone()));
        let init = handshake::request(&self.request, &self.control, running.inherited)?;
        handshake::shake(&self.request.run, &guest, &running.control, &init).await?;
        running.control = self.control.clone();
        running.inherited = Inherited::Nothing;
        self.guest = Some(guest); // with its open connection: the first command need not wait for one
        self.timings.agent_init_ms = ms_since(start);
        Ok(())
    }

    /// Last of all: a guest that was restored must not speak to anybody before it has time and entropy of its own.
    pub(super) async fn open_network(&mut self) -> Result<()> {
        let line = self.line.as_ref().ok_or_else(|| missing("network"))?;
        line.set_policy(&self.request.network).await?;
        let guest = self.guest.as_ref().ok_or_else(|| missing("guest client"))?;
        name_server::tell(guest, &self.request.network).await;
        Ok(())
    }

    fn spec(&self) -> Result<VmSpec> {
        let line = self.line.as_ref().ok_or_else(|| missing("network"))?;
        let dir = self.dir.as_ref().ok_or_else(|| missing("run directory"))?;
        let greeting = Greeting { control_token: self.control.expose().to_owned() };
        let greeting = serde_json::to_string(&greeting).map_err(|error| missing("greeting").source(error))?;
        let disk = |path, access| Disk { path, access };
        let images = self.images();
        Ok(VmSpec {
            id: self.machine.id().clone(),
            run_dir: dir.path().to_owned(),
            vcpus: self.request.vcpus,
            memory: self.request.memory,
            kernel: self.node.assets.kernel(),
            kernel_args: self.node.kernel_args(),
            // The guest's order: the agent's disk is the kernel's root, then the image, then what is its own.
            disks: vec![
                disk(images.agent, DiskAccess::ReadOnly),
                disk(images.image, DiskAccess::ReadOnly),
                disk(dir.disk(), DiskAccess::ReadWrite),
            ],
            network: line.lease.network(),
            boot_channel: BootChannel { greeting },
            console_limit_bytes: self.node.config.console_limit_bytes,
        })
    }
}

/// Boots or restores, until the agent serves.
async fn start_guest(
    prepared: Box<dyn PreparedVm>,
    source: &Source,
    fresh_control: &AccessToken,
) -> Result<Running> {
    match source {
        Source::Image(_) => {
            let (vm, ready) = prepared.boot().await?.ready().await?;
            let (agent_version, control) = (ready.version, fresh_control.clone());
            Ok(Running { vm: Arc::from(vm), agent_version, control, inherited: Inherited::Nothing })
        }
        Source::Snapshot(snapshot) => {
            let vm = Arc::from(prepared.restore().await?);
            let manifest = &snapshot.manifest;
            let (agent_version, control) =
                (manifest.guest.agent_version.clone(), manifest.control_token.clone());
            Ok(Running { vm, agent_version, control, inherited: Inherited::Connections })
        }
    }
}
