//! `flames config`: needs no daemon and no directory.

use crate::cli::{ConfigCommand, Global};
use crate::config::Config;
use crate::output;
use std::process::ExitCode;

pub(crate) fn run(global: &Global, command: ConfigCommand) -> anyhow::Result<ExitCode> {
    let loaded = Config::load(global.config.as_deref());
    match command {
        ConfigCommand::Schema => output::json(&Config::schema())?,
        ConfigCommand::Show if global.json => output::json(&loaded?)?,
        ConfigCommand::Show => output::line(toml::to_string_pretty(&loaded?)?.trim_end())?,
        ConfigCommand::Check => match loaded {
            Err(bad) if global.json => {
                output::json(&serde_json::json!({ "ok": false, "mistakes": bad.mistakes }))?;
                return Ok(ExitCode::FAILURE);
            }
            Ok(_) if global.json => output::json(&serde_json::json!({ "ok": true, "mistakes": [] }))?,
            Ok(_) => output::line("no mistakes")?,
            Err(bad) => return Err(bad.into()),
        },
    }
    Ok(ExitCode::SUCCESS)
}
