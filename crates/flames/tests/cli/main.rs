//! The program as people use it: the real binary, and for names that begin with `vm_` real microVMs under
//! QEMU, as root and as an ordinary user. Every test ends with the proof that nothing is left on the host.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod adoption;
mod bad_input;
mod bad_snapshots;
mod drivers;
mod e2b;
mod egress;
mod files;
mod home;
mod host;
mod idle;
mod install;
mod life;
mod load;
mod mistakes;
mod monitor;
mod network;
mod ordinary;
mod pools;
mod providers;
mod run;
mod shell;
mod snapshots;
mod templates;
mod warm;
