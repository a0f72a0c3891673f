//! `VmmDriver` for Firecracker: the VMM wherever KVM works.
//!
//! One jailed process per VM (`jail`), spoken to over its HTTP API (`api`), watched to its end by pidfd
//! (`process`). Nobody polls: Firecracker's log comes through a pipe and says when the API serves.
//!
//! | file in the run directory | what it is |
//! |---|---|
//! | `api.sock` | a link to Firecracker's API in the cage |
//! | `console.in`, `console.out` | pipes: the guest's serial console, which carries the boot channel too (`demux`, `boot`) |
//! | `console.log`, `vmm.log`, `metrics.log` | the newest of the console, of Firecracker's log and of its metrics |
//! | `vmm.stderr` | what the jailer or Firecracker print when they fail |
//! | `faults.log` | what the page-fault handler of a restored VM says, where there is one (`faults`) |
//! | `vmm.json` | the handle by which a restarted daemon adopts the VM, and what is to be given back after it |
//! | `jail/firecracker/<id>/root` | the cage: the VM's root directory, with only what it needs mounted into it |
//!
//! Without a jail (`flames_vmm::jail::JailMode::NoneInsecure`) the cage is `cage`, with links in it.

#![forbid(unsafe_code)]

mod driver;
mod vm;

mod api;
mod boot;
mod config;
mod console;
mod demux;
mod faults;
mod files;
mod host;
mod jail;
mod left;
mod live;
mod machine;
mod process;
mod snapshot;
mod version;

pub use api::{CacheType, CpuTemplate, HugePages, IoEngine};
pub use config::{BalloonConfig, FirecrackerConfig, Limit, MmdsConfig, RestoreMemory};
pub use driver::FirecrackerDriver;
