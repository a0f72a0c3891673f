//! One file per command.

mod alerts;
mod bench;
mod config;
mod copy;
mod doctor;
mod exec;
mod install;
mod keys;
mod network;
mod pools;
mod run;
mod sandboxes;
mod shell;
mod snapshots;
mod templates;
mod tls;
mod top;
mod up;

use crate::cli::{Cli, Command, Global, PauseOnTimeout, Shape};
use crate::client::Client;
use crate::config::Config;
use crate::daemon::Embedded;
use crate::places::Places;
use clap::CommandFactory;
use flames_api::model::{CreateRequest, OnTimeoutView};
use std::process::ExitCode;

/// What every command works with.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) global: Global,
    pub(crate) config: Config,
    pub(crate) places: Places,
}

/// Runs what was typed.
pub(crate) async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match &cli.command {
        Command::Completion { shell } => {
            clap_complete::generate(*shell, &mut Cli::command(), "flames", &mut std::io::stdout());
            return Ok(ExitCode::SUCCESS);
        }
        Command::Config(command) => return config::run(&cli.global, *command),
        Command::Tls(command) => return tls::run(command),
        _ => {}
    }
    let mut config = Config::load(cli.global.config.as_deref())?;
    let places = Places::find(&cli.global, &config);
    places.prefer_installed(&mut config.vmm);
    let context = Context { global: cli.global, config, places };
    match cli.command {
        Command::Up(up) => up::run(&context, &up).await,
        Command::Run(command) => run::run(&context, command).await,
        Command::Exec(command) => exec::run(&context, command).await,
        Command::Shell(command) => shell::run(&context, command).await,
        Command::Doctor => doctor::run(&context).await,
        Command::Install(command) => install::run(&context, &command).await,
        Command::Bench(command) => bench::run(&context, command).await,
        other => client_command(&context, other).await.map(|()| ExitCode::SUCCESS),
    }
}

/// The commands that are a request or two to a daemon.
async fn client_command(context: &Context, command: Command) -> anyhow::Result<()> {
    let client = Client::connect(&context.global, &context.places).await?;
    let json = context.global.json;
    match command {
        Command::Create(command) => sandboxes::create(&client, &command, json).await,
        Command::Cp(command) => copy::run(&client, &command).await,
        Command::Logs(command) => sandboxes::logs(&client, &command).await,
        Command::Ls(command) => sandboxes::ls(&client, &command, json).await,
        Command::Inspect(command) => sandboxes::inspect(&client, &command).await,
        Command::Expose(command) => sandboxes::expose(&client, &command, json).await,
        Command::Network(command) => network::run(&client, command, json).await,
        Command::Events(command) => sandboxes::events(&client, &command, json).await,
        Command::Timeout(command) => sandboxes::timeout(&client, &command, json).await,
        Command::Pause(command) => snapshots::pause(&client, &command, json).await,
        Command::Resume(command) => snapshots::resume(&client, &command, json).await,
        Command::Snapshot(command) => snapshots::run(&client, command, json).await,
        Command::Fork(command) => snapshots::fork(&client, &command, json).await,
        Command::Pool(command) => pools::run(&client, command, json).await,
        Command::Rm(command) => sandboxes::rm(&client, &command, json).await,
        Command::Template(command) => templates::run(&client, command, json).await,
        Command::Key(command) => keys::run(&client, command, json).await,
        Command::Top(command) => top::run(&client, &command, json).await,
        Command::Alerts(command) => alerts::run(&client, &command, json).await,
        Command::Up(_)
        | Command::Run(_)
        | Command::Exec(_)
        | Command::Shell(_)
        | Command::Doctor
        | Command::Install(_)
        | Command::Config(_)
        | Command::Tls(_)
        | Command::Bench(_)
        | Command::Completion { .. } => anyhow::bail!("a bug: this command needs no daemon"),
    }
}

/// A daemon to use: the one that runs, or one for the life of this command.
#[derive(Debug)]
pub(crate) struct AnyDaemon {
    pub(crate) client: Client,
    embedded: Option<Embedded>,
}

impl AnyDaemon {
    pub(crate) async fn find_or_start(context: &Context) -> anyhow::Result<Self> {
        if let Some(client) = Client::try_connect(&context.global, &context.places).await? {
            return Ok(Self { client, embedded: None });
        }
        let embedded = Embedded::start(&context.config, &context.places).await?;
        Ok(Self { client: Client::unix(embedded.socket())?, embedded: Some(embedded) })
    }

    /// True if it lives in this process.
    pub(crate) fn is_embedded(&self) -> bool {
        self.embedded.is_some()
    }

    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        match self.embedded {
            Some(embedded) => embedded.stop().await,
            None => Ok(()),
        }
    }
}

impl From<&Shape> for CreateRequest {
    fn from(shape: &Shape) -> Self {
        Self {
            template: match shape.from_snapshot {
                Some(_) => String::new(),
                None => shape.template.clone(),
            },
            from_snapshot: shape.from_snapshot.clone(),
            level: shape.level.clone(),
            vcpus: shape.cpus,
            memory_mib: shape.memory,
            disk_mib: shape.disk,
            metadata: shape.label.iter().cloned().collect(),
            env: shape.env.iter().cloned().collect(),
            timeout_s: shape.timeout,
            on_timeout: match shape.pause_on_timeout {
                Some(PauseOnTimeout::Disk) => OnTimeoutView::Pause,
                Some(PauseOnTimeout::DiskOnly) => OnTimeoutView::PauseDiskOnly,
                None => OnTimeoutView::Kill,
            },
            idle_timeout_s: shape.idle_timeout,
            user: shape.user.clone(),
            workdir: shape.workdir.clone(),
            network: shape.network.asked(),
        }
    }
}
