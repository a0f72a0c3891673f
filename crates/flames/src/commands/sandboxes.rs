//! The commands that look at sandboxes, make and end them.

use crate::cli::{Create, Events, Expose, Inspect, Logs, Ls, Rm, Timeout};
use crate::client::Client;
use crate::output;
use flames_api::model::{ContentsView, CreateRequest, SandboxView};
use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use std::io::Write;

pub(crate) async fn create(client: &Client, command: &Create, json: bool) -> anyhow::Result<()> {
    let sandbox = client.create(&CreateRequest::from(&command.shape)).await?;
    if json {
        return output::json(&sandbox);
    }
    if command.timings {
        output::timing_bars(&sandbox.timings, None);
    }
    output::line(&sandbox.id)
}

pub(crate) async fn ls(client: &Client, command: &Ls, json: bool) -> anyhow::Result<()> {
    let sandboxes = all(client, command).await?;
    if json {
        return output::json(&sandboxes);
    }
    if command.quiet {
        return sandboxes.iter().try_for_each(|sandbox| output::line(&sandbox.id));
    }
    let now = Timestamp::now();
    let rows = sandboxes.iter().map(|sandbox| row(sandbox, now)).collect();
    output::table(&["ID", "TEMPLATE", "STATE", "CPUS", "MEMORY", "AGE", "ENDS IN", "LABELS"], rows)
}

pub(crate) async fn inspect(client: &Client, command: &Inspect) -> anyhow::Result<()> {
    output::json(&client.get(&command.id).await?)
}

pub(crate) async fn timeout(client: &Client, command: &Timeout, json: bool) -> anyhow::Result<()> {
    let sandbox = client.set_timeout(&command.id, command.seconds).await?;
    match (json, sandbox.ends_at) {
        (true, _) => output::json(&sandbox),
        (false, Some(ends_at)) => output::line(format!("{} ends at {ends_at}", sandbox.id)),
        (false, None) => output::line(format!("{} does not end by itself", sandbox.id)),
    }
}

pub(crate) async fn expose(client: &Client, command: &Expose, json: bool) -> anyhow::Result<()> {
    if command.remove {
        return client.unexpose(&command.id, command.port).await;
    }
    let exposed = client.expose(&command.id, command.port).await?;
    if json { output::json(&exposed) } else { output::line(exposed.url) }
}

/// Prints a line an event until the daemon goes away or somebody stops it.
pub(crate) async fn events(client: &Client, command: &Events, json: bool) -> anyhow::Result<()> {
    let mut events = client.events(command.since).await?;
    while let Some(event) = events.next().await {
        let event = event?;
        let state = event.sandbox.as_ref().map_or("removed", |sandbox| sandbox.state.as_str());
        match json {
            true => output::line(serde_json::to_string(&event)?)?,
            false => output::line(format!("{:>8}  {}  {state}", event.revision, event.id))?,
        }
    }
    Err(anyhow::anyhow!("the daemon went away"))
}

pub(crate) async fn logs(client: &Client, command: &Logs) -> anyhow::Result<()> {
    let console = client.logs(&command.id, command.tail).await?;
    Ok(std::io::stdout().write_all(&console)?)
}

/// Destroys all that were named; the first that failed is the error, after the others were tried.
pub(crate) async fn rm(client: &Client, command: &Rm, json: bool) -> anyhow::Result<()> {
    let ids = match command.all {
        true => all(client, &Ls { state: None, template: None, label: vec![], quiet: true }).await?,
        false => vec![],
    };
    let ids: Vec<String> = ids.into_iter().map(|sandbox| sandbox.id).chain(command.ids.clone()).collect();
    let mut failed = None;
    let mut removed = Vec::new();
    for id in ids {
        match client.delete(&id).await {
            Ok(()) => removed.push(id),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    match json {
        true => output::json(&serde_json::json!({ "removed": removed }))?,
        false => removed.iter().try_for_each(output::line)?,
    }
    failed.map_or(Ok(()), Err)
}

/// Every page.
pub(super) async fn all(client: &Client, filter: &Ls) -> anyhow::Result<Vec<SandboxView>> {
    let labels = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&filter.label).finish();
    let mut sandboxes = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let mut query = vec![("limit", "1000")];
        query.extend(filter.state.as_deref().map(|state| ("state", state)));
        query.extend(filter.template.as_deref().map(|template| ("template", template)));
        query.extend(
            Some(labels.as_str()).filter(|labels| !labels.is_empty()).map(|labels| ("metadata", labels)),
        );
        query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let page = client.list(&query).await?;
        sandboxes.extend(page.sandboxes);
        match page.next {
            Some(next) => cursor = Some(next),
            None => return Ok(sandboxes),
        }
    }
}

fn row(sandbox: &SandboxView, now: Timestamp) -> Vec<String> {
    let labels: Vec<_> = sandbox.metadata.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let ends = sandbox.ends_at.map_or("never".to_owned(), |ends_at| span(ends_at.duration_since(now)));
    vec![
        sandbox.id.clone(),
        sandbox.template.clone(),
        state(sandbox),
        sandbox.vcpus.to_string(),
        format!("{} MiB", sandbox.memory_mib),
        span(now.duration_since(sandbox.created_at)),
        ends,
        labels.join(" "),
    ]
}

/// Whoever rests without its memory will have lost its processes: that is worth a word.
fn state(sandbox: &SandboxView) -> String {
    match sandbox.kept {
        Some(ContentsView::DiskOnly) => format!("{} (disk only)", sandbox.state),
        _ => sandbox.state.clone(),
    }
}

/// A duration in its two largest units, for example `3m 20s`.
pub(super) fn span(duration: SignedDuration) -> String {
    let seconds = duration.as_secs().max(0);
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, minutes) => format!("{minutes}m {}s", seconds % 60),
        (0, hours, minutes) => format!("{hours}h {minutes}m"),
        (days, hours, _) => format!("{days}d {hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_shows_its_two_largest_units() {
        let shown = |seconds| span(SignedDuration::from_secs(seconds));
        assert_eq!([shown(-4), shown(59), shown(200)], ["0s", "59s", "3m 20s"]);
        assert_eq!([shown(3660), shown(90_000)], ["1h 1m", "1d 1h"]);
    }
}
