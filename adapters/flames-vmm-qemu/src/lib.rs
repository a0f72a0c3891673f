//! `VmmDriver` for QEMU's `microvm` machine in software emulation: where KVM does not work, the same guests
//! still boot.
//!
//! One QEMU process per VM, started with a clean environment, three sockets and nothing else. The sockets
//! are bound before QEMU starts and handed to it listening, so nobody ever polls for one to appear:
//!
//! | file in the run directory | what it carries |
//! |---|---|
//! | `qmp.sock` | QEMU's control protocol (`qmp`) |
//! | `boot.sock` | the boot channel to the agent (`boot`) |
//! | `console.sock` | the guest's console, kept with a limit in `console.log` (`console`) |
//! | `vmm.log` | what QEMU itself prints |
//! | `vmm.json` | the handle by which a restarted daemon adopts the VM, with the console's limit |
//!
//! Each socket serves one client at a time, and the directory is the daemon's alone (mode 0700).

#![forbid(unsafe_code)]

mod driver;
mod vm;

mod boot;
mod command;
mod config;
mod console;
mod exit;
mod files;
mod host;
mod left;
mod memory;
mod process;
mod programs;
mod qmp;
mod snapshot;
mod view;

pub use command::{CommandLine, command_line};
pub use config::QemuConfig;
pub use driver::QemuDriver;
pub use host::HostFacts;
