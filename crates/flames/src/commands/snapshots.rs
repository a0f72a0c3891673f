//! `flames pause`, `resume`, `snapshot` and `fork`.

use crate::cli::snapshots::{Fork, Pause, Resume, Snapshot as Command};
use crate::client::Client;
use crate::output;
use flames_api::model::{
    CaptureTimings, ContentsView, ForkRequest, PauseModeView, PauseRequest, ResumeRequest, SnapshotRequest,
    SnapshotView,
};
use indicatif::ProgressBar;
use std::time::Duration;

pub(crate) async fn pause(client: &Client, command: &Pause, json: bool) -> anyhow::Result<()> {
    let mode = match (command.memory, command.disk_only) {
        (true, _) => PauseModeView::Memory,
        (_, true) => PauseModeView::DiskOnly,
        _ => PauseModeView::Disk,
    };
    let paused = working("pausing", client.pause(&command.id, &PauseRequest { mode })).await?;
    if json {
        return output::json(&paused);
    }
    if command.timings {
        capture_bars(&paused.timings);
    }
    output::line(format!("{} {}", paused.sandbox.id, paused.sandbox.state))
}

pub(crate) async fn resume(client: &Client, command: &Resume, json: bool) -> anyhow::Result<()> {
    let request = ResumeRequest { timeout_s: command.timeout };
    let resumed = working("resuming", client.resume(&command.id, &request)).await?;
    if json {
        return output::json(&resumed);
    }
    if command.timings {
        let timings = &resumed.timings;
        let stages = [
            ("network", timings.network_ms),
            ("disk", timings.disk_ms),
            ("VMM spawn", timings.vmm_spawn_ms),
            ("kernel to agent", timings.kernel_to_agent_ms),
            ("restore", timings.restore_ms),
            ("agent init", timings.agent_init_ms),
            ("start-up", timings.start_up_ms),
        ];
        output::bars(&stages, timings.total_ms);
    }
    output::line(format!("{} {}", resumed.sandbox.id, resumed.sandbox.state))
}

pub(crate) async fn fork(client: &Client, command: &Fork, json: bool) -> anyhow::Result<()> {
    let request = ForkRequest { count: command.count, timeout_s: command.timeout };
    let forked = working("forking", client.fork(&command.id, &request)).await?;
    if json {
        return output::json(&forked);
    }
    if command.timings {
        let timings = &forked.timings;
        let stages = [
            ("source paused", timings.paused_ms),
            ("  memory", timings.memory_ms),
            ("  disk", timings.disk_ms),
            ("capture", timings.capture_ms),
            ("clones", timings.clone_ms),
        ];
        output::bars(&stages, timings.total_ms);
    }
    forked.forks.iter().try_for_each(|fork| output::line(&fork.id))
}

pub(crate) async fn run(client: &Client, command: Command, json: bool) -> anyhow::Result<()> {
    match command {
        Command::Create { id, name, disk_only, timings } => {
            let contents = if disk_only { ContentsView::DiskOnly } else { ContentsView::MemoryAndDisk };
            take(client, &id, SnapshotRequest { name, contents }, timings, json).await
        }
        Command::Ls => ls(client, json).await,
        Command::Rm { snapshots } => rm(client, &snapshots, json).await,
    }
}

async fn take(
    client: &Client,
    id: &str,
    request: SnapshotRequest,
    timings: bool,
    json: bool,
) -> anyhow::Result<()> {
    let taken = working("capturing", client.snapshot(id, &request)).await?;
    if json {
        return output::json(&taken);
    }
    if timings {
        capture_bars(&taken.timings);
    }
    output::line(&taken.id)
}

async fn ls(client: &Client, json: bool) -> anyhow::Result<()> {
    let list = client.snapshots().await?;
    if json {
        return output::json(&list.snapshots);
    }
    let headings =
        ["ID", "NAME", "STATUS", "HOLDS", "TEMPLATE", "CPUS", "MEMORY", "SIZE", "CLONES", "SOURCE", "TAKEN"];
    output::table(&headings, list.snapshots.iter().map(row).collect())
}

/// Removes all that were named; the first that failed is the error, after the others were tried.
async fn rm(client: &Client, snapshots: &[String], json: bool) -> anyhow::Result<()> {
    let (mut removed, mut failed) = (Vec::new(), None);
    for snapshot in snapshots {
        match client.remove_snapshot(snapshot).await {
            Ok(()) => removed.push(snapshot),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    match json {
        true => output::json(&serde_json::json!({ "removed": removed }))?,
        false => removed.iter().try_for_each(output::line)?,
    }
    failed.map_or(Ok(()), Err)
}

fn row(snapshot: &SnapshotView) -> Vec<String> {
    vec![
        snapshot.id.clone(),
        snapshot.name.clone().unwrap_or_default(),
        snapshot.status.clone(),
        match snapshot.contents {
            ContentsView::MemoryAndDisk => "memory, disk".to_owned(),
            ContentsView::DiskOnly => "disk".to_owned(),
        },
        snapshot.template.clone(),
        snapshot.vcpus.to_string(),
        format!("{} MiB", snapshot.memory_mib),
        format!("{} MiB", snapshot.size_bytes >> 20),
        snapshot.clones.to_string(),
        snapshot.source.clone(),
        snapshot.created_at.to_string(),
    ]
}

fn capture_bars(timings: &CaptureTimings) {
    let stages = [
        ("freeze", timings.freeze_ms),
        ("paused", timings.paused_ms),
        ("  memory", timings.memory_ms),
        ("  disk", timings.disk_ms),
        ("seal", timings.seal_ms),
    ];
    output::bars(&stages, timings.total_ms);
}

/// Shows on a terminal that something goes on.
async fn working<T>(what: &'static str, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    // Draws on standard error, and only if that is a terminal.
    let bar = ProgressBar::new_spinner().with_message(what);
    bar.enable_steady_tick(Duration::from_millis(100));
    let done = work.await;
    bar.finish_and_clear();
    done
}
