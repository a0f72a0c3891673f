//! What a VMM is confined to, as every driver has it: a user id and control groups of its own (`lease`), namespaces
//! and a root directory with only what it needs (`cage`), and no right to open anything else (`landlock`).
//!
//! Namespaces, mounts, the root directory and `no_new_privs` belong to a thread and are inherited by what it
//! starts. A driver therefore prepares all of it on the thread that starts the VMM
//! ([`crate::process::spawn_on_own_thread`]): nothing runs between fork and exec, no program stands in between, and
//! the VMM is the daemon's own child and the first process of its pid namespace. What is mounted for a VM exists in
//! its namespace alone, and goes with it.

mod cage;
mod cgroups;
mod config;
mod landlock;
mod lease;
mod rights;
mod room;
mod stock;
mod uids;

pub use cage::{
    Access, Cage, Mount, Net, bind, enter_namespaces, enter_network, leave_the_host, open_to_others,
};
pub use cgroups::{Cgroups, Needs};
pub use config::{IoLimit, JailConfig, JailMode};
pub use landlock::{Enforcement, Openable, landlock_works, restrict};
pub use lease::{Held, Lease, LeaseError};
pub use rights::{give_up_rights, impediment};
pub use room::{Belongings, Room};
pub use stock::Stock;
pub use uids::{ClaimError, Owned};
