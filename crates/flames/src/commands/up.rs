//! `flames up`: the daemon.

use super::Context;
use crate::cli::Up;
use crate::{daemon, e2b, output};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

pub(crate) async fn run(context: &Context, up: &Up) -> anyhow::Result<ExitCode> {
    let mut config = context.config.clone();
    config.api.listen = up.listen.unwrap_or(config.api.listen);
    // Before anything is touched: a port in use is the commonest mistake.
    let listener = daemon::bind(config.api.listen, "--listen or `api.listen`").await?;
    let address = listener.local_addr()?;
    let e2b = e2b::Listener::bind(&config, &context.places.data).await?;
    // Before the listeners, so that no signal is missed once clients see it up.
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let daemon = daemon::start_machine(&config, &context.places).await?;
    if let Some(key) = daemon.serve_tcp(listener).await? {
        output::line(format!("API key (shown this once, stored hashed): {}", key.expose()))?;
    }
    output::line(e2b.told())?;
    daemon.serve_e2b(e2b);
    tracing::info!(%address, socket = %context.places.socket().display(), "up");
    output::line(format!("flames is up on http://{address} and {}", context.places.socket().display()))?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("shutting down; sandboxes go on");
    daemon.stop().await;
    Ok(ExitCode::SUCCESS)
}
