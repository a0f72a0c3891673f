//! `flames template`.

use crate::cli::Template as Command;
use crate::client::Client;
use crate::output::{self, Refusal};
use anyhow::anyhow;
use flames_api::model::{BuildEvent, BuildRequest, TemplateSettingsView};
use flames_node::Template;
use futures::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) async fn run(client: &Client, command: Command, json: bool) -> anyhow::Result<()> {
    match command {
        Command::Ls => ls(client, json).await,
        Command::Build { name, dir, tar, start_command, ready_command } => {
            let (directory, tar) = (absolute(dir)?, absolute(tar)?);
            build(client, BuildRequest { name, directory, tar, start_command, ready_command }, json).await
        }
        Command::Set { name, level } => set(client, &name, level, json).await,
        Command::Show { name } => show(&client.template_settings(&name).await?, json),
        Command::Tag { target, tags } => tag(client, &target, &tags, json).await,
        Command::Rm { name } => client.remove_template(&name).await,
    }
}

async fn ls(client: &Client, json: bool) -> anyhow::Result<()> {
    let list = client.templates().await?;
    if json {
        return output::json(&list.templates);
    }
    output::table(&["NAME", "ORIGIN", "SIZE", "HASH", "MADE"], list.templates.iter().map(row).collect())
}

async fn build(client: &Client, request: BuildRequest, json: bool) -> anyhow::Result<()> {
    let mut events = client.build_template(&request).await?;
    // Draws on standard error, and only if that is a terminal.
    let bar =
        ProgressBar::new_spinner().with_style(ProgressStyle::with_template("{spinner} {msg} {elapsed}")?);
    bar.enable_steady_tick(Duration::from_millis(100));
    while let Some(event) = events.next().await {
        match event? {
            BuildEvent::Progress { progress } => bar.set_message(describe(&progress)),
            BuildEvent::Done { template } if json => return output::json(&template),
            BuildEvent::Done { template } => {
                bar.finish_and_clear();
                return output::line(format!("{} {}", template.name, template.sha256));
            }
            BuildEvent::Error { problem } => return Err(Refusal(*problem).into()),
        }
    }
    Err(anyhow!("the daemon went away before the build ended"))
}

async fn set(client: &Client, name: &str, level: String, json: bool) -> anyhow::Result<()> {
    let settings = TemplateSettingsView { level: Some(level).filter(|level| level != "default") };
    show(&client.set_template_settings(name, &settings).await?, json)
}

async fn tag(client: &Client, target: &str, tags: &[String], json: bool) -> anyhow::Result<()> {
    let mut tagged = Vec::new();
    for tag in tags {
        tagged.push(client.tag_template(target, tag).await?);
    }
    if json {
        return output::json(&tagged);
    }
    tagged.iter().try_for_each(|template| output::line(format!("{} {}", template.name, template.sha256)))
}

fn show(settings: &TemplateSettingsView, json: bool) -> anyhow::Result<()> {
    if json {
        return output::json(settings);
    }
    output::line(format!("level {}", settings.level.as_deref().unwrap_or("default")))
}

/// The daemon may stand in another directory.
fn absolute(path: Option<PathBuf>) -> anyhow::Result<Option<String>> {
    let Some(path) = path else { return Ok(None) };
    let path = std::path::absolute(&path)?;
    Ok(Some(path.into_os_string().into_string().map_err(|path| anyhow!("{} is not UTF-8", path.display()))?))
}

fn describe(progress: &serde_json::Value) -> String {
    let stage = progress["stage"].as_str().unwrap_or("working");
    match progress["written_bytes"].as_u64() {
        Some(bytes) => format!("{stage} ({} MiB)", bytes >> 20),
        None => stage.to_owned(),
    }
}

fn row(template: &Template) -> Vec<String> {
    let made =
        i64::try_from(template.created_unix).ok().and_then(|second| Timestamp::from_second(second).ok());
    vec![
        template.name.to_string(),
        format!("{:?}", template.origin).to_lowercase(),
        format!("{:.1} MiB", to_mib(template.size_bytes)),
        template.sha256.chars().take(12).collect(),
        made.map(|made| made.to_string()).unwrap_or_default(),
    ]
}

#[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
fn to_mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
