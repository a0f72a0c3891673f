//! The agent inside the microVM, and the protocol that host and guest speak.
//!
//! This library is the protocol: values, frames, error codes, signatures. It opens no file and no socket, and
//! both sides use it. The feature `agent` builds the binary `flames-guest`, which lives as follows:
//!
//! ```text
//! boot      the kernel starts /flames-guest as PID 1 from its own read-only disk (vda)
//!   │       mounts: template image (vdb, read-only) + the sandbox's disk (vdc) = overlay, which becomes /
//!   │       network: lo, and eth0 from `flames.net=` on the kernel command line
//! ready     listens on TCP 49983, reads the greeting with the control token from the port `flames.boot`,
//!   │       answers {"ready":true}, or {"error":...} and restarts the machine, which ends the VM
//! init      POST /flames/v1/init: clock, entropy, access token, environment, hostname, default user.
//!   │       Until then every data call is answered 503. Repeated after each restore from a snapshot.
//! serve     processes and files, as E2B clients expect them
//!   │
//! shutdown  {"shutdown":true} on the port `flames.boot`, POST /flames/v1/shutdown, SIGTERM or ctrl-alt-del:
//!           processes end, the sandbox's disk is left clean, the machine restarts, and the VMM takes that for
//!           the end
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`process`] | `process.Process`: start, on pipes or a terminal, connect, input, signals, list |
//! | [`filesystem`] | `filesystem.Filesystem`: stat, list, make, move, remove, watch |
//! | [`files`] | `/files`: what an upload answers, composing, and signed URLs |
//! | [`control`] | what only the node may ask: init and shutdown; the boot channel's lines |
//! | [`frame`] | the envelope of streaming calls, with a decoder for any split of the bytes |
//! | [`rpc`] | error codes, their HTTP status, and the end of a stream |

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod control;
pub mod files;
pub mod filesystem;
pub mod frame;
mod json;
pub mod process;
pub mod rpc;

/// The TCP port the agent serves on, in every guest.
pub const PORT: u16 = 49983;

/// Version of the E2B guest interface that this agent answers to, as clients compare it.
pub const ENVD_VERSION: &str = "0.6.4";

/// Header of an E2B client's access token.
pub const ACCESS_TOKEN_HEADER: &str = "X-Access-Token";
