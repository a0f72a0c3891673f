//! The driver: from a spec to a process that waits, or from a handle to a VM that was left running.

use crate::command::command_line;
use crate::config::QemuConfig;
use crate::console;
use crate::files;
use crate::host::{self, HostFacts};
use crate::process::{Launch, Process};
use crate::vm::{Prepared, Vm};
use async_trait::async_trait;
use flames_vmm::{
    Capabilities, Error, ErrorKind, HANDLE_FILE, Network, PrepareFor, PreparedVm, Result, Retry, RunningVm,
    VmHandle, VmSpec, VmmDriver,
};
use std::path::Path;
use tokio::sync::OnceCell;

/// Runs microVMs in QEMU without hardware virtualisation.
#[derive(Debug)]
pub struct QemuDriver {
    config: QemuConfig,
    host: OnceCell<HostFacts>,
}

pub(crate) const NAME: &str = "qemu";

impl QemuDriver {
    /// Starts nothing and looks at nothing yet.
    pub fn new(config: QemuConfig) -> Self {
        Self { config, host: OnceCell::new() }
    }

    /// What this driver found out about the host; found on first use, in about 50 ms.
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

    /// Refuses what QEMU would only half understand.
    async fn check(&self, spec: &VmSpec, purpose: &PrepareFor) -> Result<()> {
        spec.check(&self.capabilities()).await?;
        if matches!(purpose, PrepareFor::Restore(_)) {
            return Err(Error::new(ErrorKind::Unsupported, "vm", spec.id.as_str()).detail("no snapshots yet"));
        }
        if files::fits_sockets(&spec.run_dir) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::InvalidInput, "run directory", spec.run_dir.display().to_string())
            .detail("too long for the path of a unix socket inside it"))
    }

    async fn start(&self, spec: &VmSpec, purpose: &PrepareFor) -> Result<Process> {
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
        };
        let process = match Process::start(launch).await {
            Ok(process) => process,
            Err(error) => {
                files::remove_live_files(&spec.run_dir);
                let said = console::tail(&spec.run_dir.join(files::VMM_LOG)).await;
                return Err(broken(&format!("cannot start QEMU: {said}"), error));
            }
        };
        write_handle(&process.handle(&spec.id, &spec.run_dir)).await?;
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
            snapshots: false,
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
        self.check(&spec, &purpose).await.map_err(says_who)?;
        let process = self.start(&spec, &purpose).await.map_err(says_who)?;
        let vm = Vm::attach(&spec, process, self.config.command_timeout()).await.map_err(says_who)?;
        Ok(Box::new(Prepared::new(vm, spec)))
    }

    async fn adopt(&self, handle: &VmHandle) -> Result<Option<Box<dyn RunningVm>>> {
        let says_who = |error: Error| error.adapter(NAME).operation("adopt");
        if handle.driver != NAME {
            return Err(says_who(
                Error::new(ErrorKind::InvalidInput, "vm", handle.id.as_str())
                    .detail(format!("belongs to the driver `{}`", handle.driver)),
            ));
        }
        let found = Process::adopt(handle)
            .map_err(|error| says_who(unavailable(handle.id.as_str(), "cannot watch its process", error)))?;
        let Some(process) = found else { return Ok(None) };
        let vm = Vm::attach_again(handle, process, self.config.command_timeout()).await.map_err(says_who)?;
        Ok(Some(Box::new(vm)))
    }
}

fn namespace(network: &Network) -> Option<std::path::PathBuf> {
    match network {
        Network::Tap { netns, .. } => Some(netns.clone()),
        Network::None | Network::User { .. } => None,
    }
}

/// Leaves the handle for a daemon that comes after this one, in one step.
async fn write_handle(handle: &VmHandle) -> Result<()> {
    let written = write_whole(&handle.run_dir.join(HANDLE_FILE), handle).await;
    written.map_err(|error| unavailable(handle.id.as_str(), "cannot write its handle", error))
}

async fn write_whole(path: &Path, handle: &VmHandle) -> std::io::Result<()> {
    let unfinished = path.with_extension("json.new");
    tokio::fs::write(&unfinished, serde_json::to_vec(handle)?).await?;
    tokio::fs::rename(&unfinished, path).await
}

pub(crate) fn unavailable(
    id: &str,
    what: &str,
    error: impl std::error::Error + Send + Sync + 'static,
) -> Error {
    Error::new(ErrorKind::Unavailable, "vm", id).detail(format!("{what}: {error}")).source(error)
}
