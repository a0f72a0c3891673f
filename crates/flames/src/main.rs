//! `flames`: the daemon and the command line in one binary.
//!
//! | module | what |
//! |---|---|
//! | `cli` | what can be typed |
//! | `commands` | one file per command |
//! | `client` | talks to a daemon over its unix socket or TCP |
//! | `daemon` | a control plane, its node and its listeners, for `up` and for the embedded one of `run` |
//! | `e2b` | the listener of E2B's interface |
//! | `providers` | the only place that names adapters |
//! | `webhook` | tells others of alerts |
//! | `config` | the configuration file |
//! | `output` | tables, bars, JSON and errors |

#![forbid(unsafe_code)]

mod cli;
mod client;
mod commands;
mod config;
mod daemon;
mod e2b;
mod output;
mod places;
mod providers;
mod webhook;

use clap::Parser;
use std::ffi::OsString;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    if let Some(orders) = page_fault_orders(std::env::args_os().skip(1)) {
        return flames_node::faults::serve(&orders);
    }
    let cli = cli::Cli::parse();
    start_logging(&cli);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return output::fail(&anyhow::anyhow!("no runtime: {error}"), cli.global.json),
    };
    let json = cli.global.json;
    let ended = runtime.block_on(commands::run(cli));
    // A read of the terminal cannot be cancelled: do not wait for it.
    runtime.shutdown_background();
    match ended {
        Ok(code) => code,
        Err(error) => output::fail(&error, json),
    }
}

/// Of a process that the Firecracker driver starts to fill a guest's memory. Not a command: nobody types it, and it must
/// come before there is a second thread.
fn page_fault_orders(mut arguments: impl Iterator<Item = OsString>) -> Option<String> {
    let (what, orders) = (arguments.next()?, arguments.next()?.into_string().ok()?);
    (what == flames_vmm::faults::ARGUMENT && orders.starts_with('{')).then_some(orders)
}

/// Logs to standard error: the daemon its life, the other commands only what is wrong.
fn start_logging(cli: &cli::Cli) {
    let default = match (&cli.command, cli.global.verbose) {
        (_, 2..) => "debug",
        (cli::Command::Up(_), _) | (_, 1) => "info",
        // What an embedded daemon refuses, the command itself tells.
        _ => "warn,flames_api=off,tower_http=off",
    };
    let filter = EnvFilter::try_from_env("FLAMES_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match &cli.command {
        cli::Command::Up(up) if up.log_json => logs.json().init(),
        _ => logs.with_target(false).compact().init(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orders(arguments: &[&str]) -> Option<String> {
        page_fault_orders(arguments.iter().map(OsString::from))
    }

    #[test]
    fn only_the_driver_says_page_faults_with_orders() {
        assert_eq!(orders(&["page-faults", "{}"]), Some("{}".to_owned()));
        for others in [&["page-faults"][..], &["page-faults", "--help"], &["run", "{}"], &[]] {
            assert_eq!(orders(others), None, "{others:?}");
        }
    }

    #[test]
    fn arguments_that_are_no_text_are_left_to_the_command_line() {
        use std::os::unix::ffi::OsStringExt;
        let no_text = OsString::from_vec(vec![0xff]);
        assert_eq!(page_fault_orders([no_text.clone(), no_text].into_iter()), None);
    }
}
