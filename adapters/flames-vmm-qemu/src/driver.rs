//! The driver: from a spec to a process that waits, or from a handle to a VM that was left running.

use crate::command::command_line;
use crate::config::QemuConfig;
use crate::files;
use crate::host::{self, HostFacts};
use crate::left::Left;
use crate::process::{self, Launch};
use crate::snapshot;
use crate::vm::{Prepared, Then, Vm};
use async_trait::async_trait;
use flames_vmm::log;
use flames_vmm::process::Process;
use flames_vmm::{
    Capabilities, Error, ErrorKind, Network, PrepareFor, PreparedVm, Result, Retry, RunningVm, VmHandle,
    VmSpec, VmmDriver,
};
use std::fs::File;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::OnceCell;

/// Runs microVMs in QEMU without hardware virtualisation.
#[derive(Debug)]
pub struct QemuDriver {
    config: QemuConfig,
    host: Arc<OnceCell<HostFacts>>,
}

pub(crate) const NAME: &str = "qemu";

impl QemuDriver {
    /// Inside a runtime it begins to look at the host at once, so that the first VM need not wait for that.
    pub fn new(config: QemuConfig) -> Self {
        let host = Arc::default();
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(look_ahead(Arc::clone(&host), config.clone()));
        }
        Self { config, host }
    }

    /// What this driver found out about the host; looking takes about 50 ms, once.
    ///
    /// # Errors
    /// `Unavailable` if QEMU is not installed.
    pub async fn host(&self) -> Result<&HostFacts> {
        self.host.get_or_try_init(|| host::find(&self.config)).await.map_err(|error| {
            let binary = self.config.binary.display().to_string();
            Error::new(ErrorKind::Unavailable, "vmm", binary)
                .adapter(NAME)
                .operation("version")
                .detail(format!("cannot run it: {error}; install qemu-system-x86 or set its path"))
                .retry(Retry::Never)
                .source(error)
        })
    }

    /// Refuses what QEMU would only half understand. For a restore it gives the device state to start from.
    async fn check(&self, spec: &VmSpec, purpose: &PrepareFor) -> Result<Option<File>> {
        spec.check(&self.capabilities()).await?;
        if !files::fits_sockets(&spec.run_dir) {
            let run_dir = spec.run_dir.display().to_string();
            return Err(Error::new(ErrorKind::InvalidInput, "run directory", run_dir)
                .detail("too long for the path of a unix socket inside it"));
        }
        match purpose {
            PrepareFor::Boot => Ok(None),
            PrepareFor::Restore(parts) => {
                snapshot::open(parts, spec, &self.host().await?.version).await.map(Some)
            }
        }
    }

    async fn start(
        &self,
        spec: &VmSpec,
        purpose: &PrepareFor,
        device_state: Option<File>,
    ) -> Result<Process> {
        let arguments = command_line(spec, purpose, self.host().await?, &self.config).arguments;
        let broken = |what: &str, error: std::io::Error| unavailable(spec.id.as_str(), what, error);
        let sockets =
            files::bind_sockets(&spec.run_dir).map_err(|error| broken("cannot bind its sockets", error))?;
        let launch = Launch {
            binary: self.config.binary.clone(),
            arguments,
            run_dir: spec.run_dir.clone(),
            netns: namespace(&spec.network),
            sockets,
            device_state,
        };
        let process = match process::start(launch).await {
            Ok(process) => process,
            Err(error) => {
                files::remove_live_files(&spec.run_dir);
                let said = log::tail(&spec.run_dir.join(files::VMM_LOG)).await;
                return Err(broken(&format!("cannot start QEMU: {said}"), error));
            }
        };
        let left = Left::new(process.handle(NAME, &spec.id, &spec.run_dir), spec.console_limit_bytes);
        left.write().await.map_err(|error| broken("cannot write its handle", error))?;
        Ok(process)
    }
}

#[async_trait]
impl VmmDriver for QemuDriver {
    fn name(&self) -> &'static str {
        NAME
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            snapshots: true,
            hardware_virtualisation: false,
            user_network: true,
            max_vcpus: self.config.max_vcpus,
            max_memory: self.config.max_memory(),
        }
    }

    async fn version(&self) -> Result<String> {
        Ok(self.host().await?.version.clone())
    }

    async fn prepare(&self, spec: VmSpec, purpose: PrepareFor) -> Result<Box<dyn PreparedVm>> {
        let says_who = |error: Error| error.adapter(NAME).operation("prepare");
        let device_state = self.check(&spec, &purpose).await.map_err(says_who)?;
        let process = self.start(&spec, &purpose, device_state).await.map_err(says_who)?;
        let vm = Vm::attach(&spec, process, self.config.command_timeout()).await.map_err(says_who)?;
        let then = match purpose {
            PrepareFor::Boot => Then::Boot { greeting: spec.boot_channel.greeting },
            PrepareFor::Restore(parts) => {
                vm.load_devices(&parts).await?;
                Then::Restore
            }
        };
        Ok(Box::new(Prepared::new(vm, then)))
    }

    async fn adopt(&self, handle: &VmHandle) -> Result<Option<Box<dyn RunningVm>>> {
        let says_who = |error: Error| error.adapter(NAME).operation("adopt");
        if handle.driver != NAME {
            return Err(says_who(
                Error::new(ErrorKind::InvalidInput, "vm", handle.id.as_str())
                    .detail(format!("belongs to the driver `{}`", handle.driver)),
            ));
        }
        let run_dir = handle.run_dir.clone();
        let found = Process::adopt(handle, move || files::remove_live_files(&run_dir))
            .map_err(|error| says_who(unavailable(handle.id.as_str(), "cannot watch its process", error)))?;
        let Some(process) = found else { return Ok(None) };
        let limit = Left::console_limit(handle).await;
        let vm = Vm::attach_again(handle, process, self.config.command_timeout(), limit).await;
        let vm = vm.map_err(says_who)?;
        Ok(Some(Box::new(vm)))
    }
}

/// What fails here fails again, and is told, where somebody needs it.
async fn look_ahead(host: Arc<OnceCell<HostFacts>>, config: QemuConfig) {
    let _told_later = host.get_or_try_init(|| host::find(&config)).await;
}

fn namespace(network: &Network) -> Option<std::path::PathBuf> {
    match network {
        Network::Tap { netns, .. } => Some(netns.clone()),
        Network::None | Network::User { .. } => None,
    }
}

pub(crate) fn unavailable(
    id: &str,
    what: &str,
    error: impl std::error::Error + Send + Sync + 'static,
) -> Error {
    Error::new(ErrorKind::Unavailable, "vm", id).detail(format!("{what}: {error}")).source(error)
}
