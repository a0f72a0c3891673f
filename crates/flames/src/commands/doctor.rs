//! `flames doctor`.

use super::Context;
use std::process::ExitCode;

pub(crate) async fn run(_context: &Context) -> anyhow::Result<ExitCode> {
    anyhow::bail!("wip")
}
