//! What can be typed about snapshots and pools.

use clap::{Args, Subcommand};

#[derive(Clone, Debug, Args)]
#[command(
    after_help = "A sandbox that rests on disk has no VMM and takes no memory; its clock stands still. With \
    --disk-only it keeps its files and not its memory: its processes end, what it writes is synced first, and it boots \
    when it comes back, with the same id, token and environment. One that rests in memory is back within milliseconds \
    and still ends at its time."
)]
pub(crate) struct Pause {
    /// Keep its disk and not its memory: less to store, a boot to come back (default: both)
    #[arg(long, conflicts_with = "memory")]
    pub(crate) disk_only: bool,
    /// Keep it in memory, with its virtual CPUs stopped (default: to disk)
    #[arg(long)]
    pub(crate) memory: bool,
    /// Show how long each stage took
    #[arg(long)]
    pub(crate) timings: bool,
    /// Which sandbox
    pub(crate) id: String,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Resume {
    /// Seconds until it ends by itself; 0 is never (default: what was left when it was paused)
    #[arg(long, value_name = "SECONDS")]
    pub(crate) timeout: Option<u64>,
    /// Show how long each stage took
    #[arg(long)]
    pub(crate) timings: bool,
    /// Which sandbox
    pub(crate) id: String,
}

#[derive(Clone, Debug, Args)]
#[command(after_help = "Prints the ids of the forks. All of them run, or none is left.")]
pub(crate) struct Fork {
    /// How many, 1 to 20
    #[arg(short = 'n', long, default_value_t = 1)]
    pub(crate) count: u32,
    /// Seconds until each of them ends by itself; 0 is never
    #[arg(long, value_name = "SECONDS")]
    pub(crate) timeout: Option<u64>,
    /// Show how long each stage took
    #[arg(long)]
    pub(crate) timings: bool,
    /// Which sandbox
    pub(crate) id: String,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Snapshot {
    /// Take a snapshot of a running sandbox, which goes on, and print its id
    #[command(after_help = "Create from it with `flames create --from-snapshot`.")]
    Create {
        /// A name of your own for it
        #[arg(long)]
        name: Option<String>,
        /// Take its disk and not its memory: who comes from it boots (default: both)
        #[arg(long)]
        disk_only: bool,
        /// Show how long each stage took
        #[arg(long)]
        timings: bool,
        /// Which sandbox
        id: String,
    },
    /// List snapshots
    Ls,
    /// Remove snapshots; sandboxes that came from them go on
    Rm {
        /// Which snapshots, by id or name
        #[arg(required = true)]
        snapshots: Vec<String>,
    },
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Pool {
    /// List pools and how they do
    Ls,
    /// Show everything about a pool
    Show {
        /// Of which template
        template: String,
    },
    /// Keep VMs of a template ready, from now on
    Set(PoolSet),
    /// Keep no VMs of a template ready any more
    Rm {
        /// Of which template
        template: String,
    },
}

#[derive(Clone, Debug, Args)]
pub(crate) struct PoolSet {
    /// Numbers to start from: minimal, standard, aggressive or ultra-fast (default: standard)
    #[arg(long)]
    pub(crate) preset: Option<String>,
    /// Members that run
    #[arg(long, value_name = "N")]
    pub(crate) running: Option<u32>,
    /// Members that are paused in memory
    #[arg(long, value_name = "N")]
    pub(crate) paused: Option<u32>,
    /// Members of which all is ready but the restore
    #[arg(long, value_name = "N")]
    pub(crate) prepared: Option<u32>,
    /// Never fewer members
    #[arg(long, value_name = "N")]
    pub(crate) min: Option<u32>,
    /// Never more members
    #[arg(long, value_name = "N")]
    pub(crate) max: Option<u32>,
    /// Members that are made at once
    #[arg(long, value_name = "N")]
    pub(crate) refill: Option<u32>,
    /// Which member is handed out: first-available, best-performance, least-recently-used, round-robin or
    /// weighted-random
    #[arg(long, value_name = "NAME")]
    pub(crate) strategy: Option<String>,
    /// Any other field, for example autoscale.by_use.grow_above=0.8; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = super::pair)]
    pub(crate) field: Vec<(String, String)>,
    /// Of which template
    pub(crate) template: String,
}
