//! `flames bench create`: loads a daemon with creates and says what its clients saw.
//!
//! In an open loop every create has a moment at which it is meant to begin, fixed ahead. Its latency counts
//! from there, also when this client or the daemon was late: a daemon that stalls cannot hide the creates that
//! would have come meanwhile (coordinated omission).

use super::arrivals::Load;
use super::life::{Life, Plan};
use super::report::{Report, Tally};
use crate::cli::BenchCreate;
use crate::client::Client;
use crate::commands::exec::as_failure;
use crate::commands::{AnyDaemon, Context};
use crate::output;
use anyhow::Context as _;
use flames_api::model::{CreateRequest, ExecRequest};
use futures::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Exit code of a load that was interrupted: of a program that SIGINT ended.
const INTERRUPTED: u8 = 130;
/// The label of a load's sandboxes, so that those whose answer was lost are found.
const LABEL: &str = "flames-bench";
/// More would wait for each other in the daemon.
const DELETES_AT_ONCE: usize = 64;

pub(crate) async fn run(context: &Context, command: BenchCreate) -> anyhow::Result<ExitCode> {
    let load = Load::of(&command)?;
    let daemon = AnyDaemon::find_or_start(context).await?;
    let outcome = measure(&daemon, &command, &load).await;
    daemon.stop().await.map_err(as_failure)?;
    let report = outcome?;
    if let Some(file) = &command.save {
        let text = serde_json::to_vec_pretty(&report)?;
        std::fs::write(file, text).with_context(|| format!("{} cannot be written", file.display()))?;
    }
    if context.global.json {
        output::json(&report)?;
    } else {
        report.print()?;
    }
    Ok(match (report.interrupted, report.is_clean()) {
        (true, _) => ExitCode::from(INTERRUPTED),
        (false, true) => ExitCode::SUCCESS,
        (false, false) => ExitCode::FAILURE,
    })
}

async fn measure(daemon: &AnyDaemon, command: &BenchCreate, load: &Load) -> anyhow::Result<Report> {
    let label = format!("{:016x}", rand::random::<u64>());
    let plan = Arc::new(plan(&daemon.client, command, &label)?);
    stop_on_signals(&plan.stop)?;
    let mut tally = Tally::begin(command, load, daemon.is_embedded());
    drive(&plan, load, &mut tally).await?;
    tally.left_behind = sweep(&plan.client, &label).await?;
    tally.leaks = orphans(&plan.client).await?;
    tally.interrupted = plan.stop.is_cancelled();
    Ok(tally.end())
}

fn plan(client: &Client, command: &BenchCreate, label: &str) -> anyhow::Result<Plan> {
    let exec = ExecRequest { command: command.command.clone(), ..ExecRequest::default() };
    let most = command.max_live.map_or(Semaphore::MAX_PERMITS, |most| most as usize);
    Ok(Plan {
        client: client.clone(),
        request: request(command, label)?,
        command: (!command.no_command).then_some(exec),
        keep: command.keep,
        live: Semaphore::new(most),
        deleting: Semaphore::new(DELETES_AT_ONCE),
        stop: CancellationToken::new(),
    })
}

/// The create's body. Without a level the daemon's own choice counts.
fn request(command: &BenchCreate, label: &str) -> anyhow::Result<Value> {
    let mut request = serde_json::to_value(CreateRequest {
        template: match command.snapshot {
            Some(_) => String::new(),
            None => command.template.clone(),
        },
        from_snapshot: command.snapshot.clone(),
        memory_mib: command.memory,
        metadata: BTreeMap::from([(LABEL.to_owned(), label.to_owned())]),
        ..CreateRequest::default()
    })?;
    if let Some(level) = &command.level {
        request["level"] = json!(level);
    }
    Ok(request)
}

/// The first signal ends the load in order: what lives is deleted. The second ends the program.
fn stop_on_signals(stop: &CancellationToken) -> anyhow::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let stop = stop.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if stop.is_cancelled() {
                std::process::exit(INTERRUPTED.into());
            }
            stop.cancel();
        }
    });
    Ok(())
}

/// Runs the load to its end and takes down how each life went.
async fn drive(plan: &Arc<Plan>, load: &Load, tally: &mut Tally) -> anyhow::Result<()> {
    let (told, mut lives) = mpsc::unbounded_channel();
    let started = Instant::now();
    let bar = ProgressBar::new(0);
    let driving = match load.arrivals() {
        Some(arrivals) => {
            tally.planned = Some(arrivals.len());
            bar.set_length(arrivals.len() as u64);
            tokio::spawn(open_loop(Arc::clone(plan), arrivals, started, told))
        }
        None => tokio::spawn(closed_loop(Arc::clone(plan), load.clone(), started, told)),
    };
    bar.set_style(ProgressStyle::with_template("{elapsed} {wide_bar} {pos}/{len} {msg}")?);
    while let Some(life) = lives.recv().await {
        tally.take(&life)?;
        bar.inc(1);
        bar.set_message(tally.in_short());
    }
    bar.finish_and_clear();
    Ok(driving.await?)
}

/// Begins creates at their moments, whatever became of earlier ones.
async fn open_loop(
    plan: Arc<Plan>,
    arrivals: Vec<Duration>,
    started: Instant,
    told: mpsc::UnboundedSender<Life>,
) {
    let tasks = TaskTracker::new();
    for arrival in arrivals {
        let intended = started + arrival;
        let waited = plan.stop.run_until_cancelled(tokio::time::sleep_until(intended.into())).await;
        if waited.is_none() {
            break;
        }
        let (plan, told) = (Arc::clone(&plan), told.clone());
        tasks.spawn(async move { tell(&told, plan.live(intended).await) });
    }
    tasks.close();
    tasks.wait().await;
}

/// Begins a create when another has ended.
async fn closed_loop(plan: Arc<Plan>, load: Load, started: Instant, told: mpsc::UnboundedSender<Life>) {
    let Load::Closed { concurrency, count, duration_s } = load else { return };
    let end = duration_s.map(|span| started + Duration::from_secs_f64(span));
    let begun = AtomicU32::new(0);
    let may_begin = || {
        let in_time = end.is_none_or(|end| Instant::now() < end);
        in_time && begun.fetch_add(1, Ordering::Relaxed) < count.unwrap_or(u32::MAX)
    };
    let worker = async || {
        while !plan.stop.is_cancelled() && may_begin() {
            tell(&told, plan.live(Instant::now()).await);
        }
    };
    futures::future::join_all((0..concurrency).map(|_| worker())).await;
}

/// Nobody listens any more only when the command itself is over.
fn tell(told: &mpsc::UnboundedSender<Life>, life: Option<Life>) {
    if let Some(life) = life {
        let _ = told.send(life);
    }
}

/// Deletes what this load made and could not delete, or never heard of. Gives the ids of what still stays.
async fn sweep(client: &Client, label: &str) -> anyhow::Result<Vec<String>> {
    let found = futures::stream::iter(labelled(client, label).await?);
    found
        .for_each_concurrent(DELETES_AT_ONCE, async |id| {
            // Whatever is wrong with it: if it stays it is in the list that follows.
            let _ = client.delete(&id).await;
        })
        .await;
    labelled(client, label).await
}

async fn labelled(client: &Client, label: &str) -> anyhow::Result<Vec<String>> {
    let (metadata, mut found, mut cursor) = (format!("{LABEL}={label}"), Vec::new(), None::<String>);
    loop {
        let mut query = vec![("metadata", metadata.as_str()), ("limit", "1000")];
        query.extend(cursor.iter().map(|cursor| ("cursor", cursor.as_str())));
        let page = client.list(&query).await?;
        found.extend(page.sandboxes.into_iter().map(|sandbox| sandbox.id));
        match page.next {
            Some(next) => cursor = Some(next),
            None => return Ok(found),
        }
    }
}

/// What the node has that belongs to nobody: how many of each kind.
async fn orphans(client: &Client) -> anyhow::Result<BTreeMap<String, u64>> {
    let node = client.node().await?;
    let resources = node.get("resources").and_then(Value::as_array);
    let orphan = |leak: &Value| {
        let count = leak.get("orphaned")?.as_u64().filter(|count| *count > 0)?;
        Some((leak.get("kind")?.as_str()?.to_owned(), count))
    };
    Ok(resources.into_iter().flatten().filter_map(orphan).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Bench, Cli, Command};
    use clap::Parser;

    fn typed(words: &[&str]) -> BenchCreate {
        let cli = Cli::try_parse_from(["flames", "bench", "create"].iter().chain(words)).unwrap();
        let Command::Bench(Bench::Create(command)) = cli.command else { panic!("not a load") };
        *command
    }

    #[test]
    fn what_is_not_typed_is_left_to_the_daemon() {
        let bare = request(&typed(&[]), "l").unwrap();
        assert_eq!((&bare["template"], &bare["metadata"]), (&json!("mini"), &json!({ "flames-bench": "l" })));
        for absent in ["level", "from_snapshot", "memory_mib"] {
            assert_eq!(bare.get(absent), None, "{absent}");
        }
        let level = request(&typed(&["--level", "instant"]), "l").unwrap();
        assert_eq!(level["level"], "instant");
        let snapshot = request(&typed(&["--snapshot", "s1"]), "l").unwrap();
        assert_eq!((snapshot.get("template"), &snapshot["from_snapshot"]), (None, &json!("s1")));
    }

    #[test]
    fn each_way_to_load_is_typed_alone() {
        let load = |words: &[&str]| Load::of(&typed(words)).unwrap();
        let closed = Load::Closed { concurrency: 1, count: Some(20), duration_s: None };
        assert_eq!(load(&[]), closed);
        assert_eq!(load(&["--burst", "9"]), Load::Burst { count: 9 });
        let poisson = Load::Poisson { rate: 2.0, duration_s: 5.0, seed: 1 };
        assert_eq!(load(&["--rate", "2", "-n", "10"]), poisson);
        assert_eq!(load(&["--rate", "2", "-d", "5s"]), poisson);
        assert!(Load::of(&typed(&["--rate", "2"])).is_err());
        for wrong in [&["--burst", "9", "--rate", "1"][..], &["--ramp", "1..2"], &["--rate", "1", "-c", "2"]]
        {
            assert!(
                Cli::try_parse_from(["flames", "bench", "create"].iter().chain(wrong)).is_err(),
                "{wrong:?}"
            );
        }
    }
}
