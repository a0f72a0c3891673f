//! What a driver and its page-fault handler say to each other: a process of its own that fills a restored guest's memory.
//!
//! Which program that is, is the binary's choice ([`Program`]): serving faults takes `unsafe` calls, which no driver may
//! make. The driver starts one per VM with [`Orders`] as its last argument and these descriptors open:
//!
//! | descriptor | what it is |
//! |---|---|
//! | 1 | a pipe: [`READY`], then, if one was asked for, the recorded [`WorkingSet`] in a line |
//! | 2 | a log |
//! | [`LISTENER`] | a unix socket on which the VMM hands over its userfaultfd |
//! | [`MEMORY`] | the snapshot's memory, to read |
//! | [`VMM`] | a pidfd: the handler ends when the VMM has |
//! | [`WORKING_SET`] | what to fetch ahead, empty if nothing is known |
//!
//! A handler that ends while its VMM lives failed: the guest hangs at the next page that it lacks, and the driver ends
//! the VM.

mod working_set;

pub use working_set::{Unusable, WorkingSet};

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The socket on which the VMM hands over its userfaultfd.
pub const LISTENER: i32 = 3;
/// The snapshot's memory.
pub const MEMORY: i32 = 4;
/// The VMM's pidfd.
pub const VMM: i32 = 5;
/// What to fetch ahead.
pub const WORKING_SET: i32 = 6;

/// What the handler says once it is confined and listens.
pub const READY: u8 = b'!';

/// Which program serves page faults. It is started with the orders behind these arguments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Program {
    /// Its absolute path.
    pub path: PathBuf,
    /// What it is told first.
    pub arguments: Vec<String>,
}

/// The argument by which the daemon's own program knows that it is to serve page faults.
pub const ARGUMENT: &str = "page-faults";

impl Default for Program {
    /// This program, told [`ARGUMENT`].
    fn default() -> Self {
        Self { path: PathBuf::from("/proc/self/exe"), arguments: vec![ARGUMENT.to_owned()] }
    }
}

/// What a handler is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Orders {
    /// Whom to become and where, for one that is started as root.
    pub jail: Option<HandlerJail>,
    /// How long the order of first touches is recorded, in milliseconds from the first one.
    pub record_ms: Option<u64>,
}

/// What a handler does to itself before it listens, beside giving up every right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct HandlerJail {
    /// User and group to become.
    pub uid: u32,
    /// An empty folder in whose place its own, empty root directory comes to be. It is in a mount namespace of its own
    /// already.
    pub over: PathBuf,
}
