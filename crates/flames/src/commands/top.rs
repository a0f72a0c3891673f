//! `flames top`: pools and sandboxes, and what they use, again and again.

mod rows;
mod screen;

use super::sandboxes;
use crate::cli::{Ls, Top};
use crate::client::Client;
use crate::output;
use rows::{Look, View};
use screen::Screen;
use std::io::IsTerminal;
use std::time::Duration;
use tokio::time::MissedTickBehavior;

pub(crate) async fn run(client: &Client, command: &Top, json: bool) -> anyhow::Result<()> {
    if json || command.once || !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        let view = once(client).await?;
        return if json { output::json(&view) } else { output::line(view.text().trim_end()) };
    }
    live(client, Duration::from_secs(command.delay)).await
}

/// Two looks, because processor use is a difference.
async fn once(client: &Client) -> anyhow::Result<View> {
    const BETWEEN: Duration = Duration::from_millis(300);
    let before = look(client).await?;
    tokio::time::sleep(BETWEEN).await;
    Ok(View::of(&look(client).await?, Some(&before)))
}

async fn live(client: &Client, delay: Duration) -> anyhow::Result<()> {
    let mut tick = tokio::time::interval(delay);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut screen = Screen::open()?;
    let mut before: Option<Look> = None;
    loop {
        tokio::select! {
            () = screen.wants_to_quit() => return Ok(()),
            _ = tick.tick() => {}
        }
        let now = tokio::select! {
            () = screen.wants_to_quit() => return Ok(()),
            look = look(client) => look?,
        };
        screen.show(&View::of(&now, before.as_ref()).text())?;
        before = Some(now);
    }
}

async fn look(client: &Client) -> anyhow::Result<Look> {
    let every = Ls { state: None, template: None, label: vec![], quiet: true };
    let sandboxes = sandboxes::all(client, &every).await?;
    let top = client.top().await?;
    Ok(Look::now(sandboxes, top))
}
