//! `flames config`: needs no daemon and no directory.

use crate::cli::{ConfigCommand, Global};
use crate::config::Config;
use crate::output;
use flames_metrics::Execution;
use flames_metrics::alert::rule_file;
use std::process::ExitCode;
use std::time::Duration;

pub(crate) fn run(global: &Global, command: ConfigCommand) -> anyhow::Result<ExitCode> {
    let loaded = Config::load(global.config.as_deref());
    match command {
        ConfigCommand::Schema => output::json(&Config::schema())?,
        ConfigCommand::AlertRules => output::line(alert_rules(&loaded?)?.trim_end())?,
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

fn alert_rules(config: &Config) -> anyhow::Result<String> {
    // For whatever machine: the file asks each daemon for its targets.
    let rules = config.alerts.rules(Execution::default());
    let rules = rules.map_err(|mistakes| anyhow::anyhow!("alerts.rules: {mistakes:?}"))?;
    Ok(rule_file(&rules, Duration::from_secs(config.alerts.every_s)))
}
