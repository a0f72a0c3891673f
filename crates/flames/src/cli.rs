//! What can be typed.

mod bench;
mod install;
pub(crate) mod network;
pub(crate) mod snapshots;

pub(crate) use bench::{Bench, BenchBoot, BenchCompare, BenchCreate, BenchPool, Ramp};
pub(crate) use install::{Install, InstallFirecracker, release, sha256};

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Runs untrusted code in microVMs on your own Linux machines.
#[derive(Debug, Parser)]
#[command(name = "flames", version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "Try:  flames run -- uname -a\n\nExit codes: of the command for `run` and `exec`; \
    125 when Flames itself failed there, 127 for a command that does not exist, 128+N for one that signal N \
    ended; 1 for other failures, 2 for a wrong command line, 3 when no daemon runs.")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct Global {
    /// Print JSON for programs
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say more (twice: everything)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Configuration file (default: /etc/flames/flames.toml if there is one)
    #[arg(long, global = true, env = "FLAMES_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Records, disks and templates
    #[arg(long, global = true, env = "FLAMES_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Where the daemon's socket is
    #[arg(long, global = true, env = "FLAMES_RUNTIME_DIR", value_name = "DIR")]
    pub(crate) runtime_dir: Option<PathBuf>,
    /// Kernel, agent and base images
    #[arg(long, global = true, env = "FLAMES_ASSETS", value_name = "DIR")]
    pub(crate) assets_dir: Option<PathBuf>,
    /// A daemon elsewhere (default: the unix socket of the one on this machine)
    #[arg(long, global = true, env = "FLAMES_URL", value_name = "URL")]
    pub(crate) url: Option<url::Url>,
    /// API key for --url
    #[arg(long, global = true, env = "FLAMES_API_KEY", value_name = "KEY", hide_env_values = true)]
    pub(crate) api_key: Option<String>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the daemon
    Up(Up),
    /// Create a sandbox, run a command in it, destroy it
    Run(Run),
    /// Create a sandbox and print its id
    Create(Create),
    /// Run a command in a sandbox
    Exec(Exec),
    /// Sit at a terminal of a sandbox
    Shell(Shell),
    /// Copy files into or out of a sandbox
    Cp(Cp),
    /// Show a sandbox's console
    Logs(Logs),
    /// List sandboxes
    Ls(Ls),
    /// Show everything about a sandbox
    Inspect(Inspect),
    /// Let the world reach a port of a sandbox
    Expose(Expose),
    /// What a sandbox may reach
    #[command(subcommand)]
    Network(network::Network),
    /// Follow what happens to sandboxes
    Events(Events),
    /// Set when a sandbox ends by itself
    Timeout(Timeout),
    /// Pause a sandbox, to disk or in memory
    Pause(snapshots::Pause),
    /// Bring a paused sandbox back
    Resume(snapshots::Resume),
    /// What sandboxes were at one moment, to create others from
    #[command(subcommand)]
    Snapshot(snapshots::Snapshot),
    /// Make clones of a running sandbox
    Fork(snapshots::Fork),
    /// Destroy sandboxes
    Rm(Rm),
    /// VMs that are ready before anyone asks
    #[command(subcommand)]
    Pool(snapshots::Pool),
    /// What sandboxes are created from
    #[command(subcommand)]
    Template(Template),
    /// API keys
    #[command(subcommand)]
    Key(Key),
    /// Certificates for the listener of E2B's interface
    #[command(subcommand)]
    Tls(Tls),
    /// Show pools and sandboxes live, and what they use
    Top(Top),
    /// Show the alerts that fire, are pending, or were resolved lately
    Alerts(Alerts),
    /// Check this machine and say how to mend what is missing
    Doctor,
    /// Install programs that Flames uses
    #[command(subcommand)]
    Install(Install),
    /// Look at the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Measure this machine
    #[command(subcommand)]
    Bench(Bench),
    /// Print a completion script for a shell
    Completion {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Up {
    /// Where to listen (default: 127.0.0.1:7070)
    #[arg(long, env = "FLAMES_LISTEN", value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// Log JSON lines
    #[arg(long)]
    pub(crate) log_json: bool,
}

/// Where a sandbox rests when its time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PauseOnTimeout {
    /// On disk, with its memory
    Disk,
    /// On disk, without its memory: it boots when it comes back
    DiskOnly,
}

/// What a sandbox is made of.
#[derive(Clone, Debug, Args)]
pub(crate) struct Shape {
    /// What to create it from
    #[arg(short, long, default_value = "mini", value_name = "NAME")]
    pub(crate) template: String,
    /// Create it from a snapshot, by id or name, instead
    #[arg(long, value_name = "SNAPSHOT", conflicts_with_all = ["template", "cpus", "memory", "disk", "level"])]
    pub(crate) from_snapshot: Option<String>,
    /// How fast it should be: standard, fast, ultra-fast, sub2-second or instant
    #[arg(long, value_name = "LEVEL")]
    pub(crate) level: Option<String>,
    /// Pause it to disk when its time is over, instead of destroying it; `=disk-only` keeps its disk and not its memory
    #[arg(long, value_name = "MODE", num_args = 0..=1, require_equals = true, default_missing_value = "disk")]
    pub(crate) pause_on_timeout: Option<PauseOnTimeout>,
    /// Virtual CPUs
    #[arg(long, value_name = "N")]
    pub(crate) cpus: Option<u32>,
    /// Memory in MiB
    #[arg(long, value_name = "MIB")]
    pub(crate) memory: Option<u32>,
    /// Writable disk in MiB
    #[arg(long, value_name = "MIB")]
    pub(crate) disk: Option<u32>,
    /// Seconds until it ends by itself; 0 is never
    #[arg(long, value_name = "SECONDS")]
    pub(crate) timeout: Option<u64>,
    /// End it, or with --pause-on-timeout pause it, when it was not used for so long, for example 5m: no request into
    /// it, no open stream, no command that somebody follows
    #[arg(long, value_name = "TIME", value_parser = whole_seconds)]
    pub(crate) idle_timeout: Option<u64>,
    /// Environment of every process in it; may be repeated
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) env: Vec<(String, String)>,
    /// A label to list by; may be repeated
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) label: Vec<(String, String)>,
    /// Whom commands run as
    #[arg(short, long, value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// Where commands start
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    #[command(flatten)]
    pub(crate) network: network::Policy,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) shape: Shape,
    /// Show how long each stage took
    #[arg(long)]
    pub(crate) timings: bool,
    /// Do not pass standard input on
    #[arg(short = 'n', long)]
    pub(crate) no_stdin: bool,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Create {
    #[command(flatten)]
    pub(crate) shape: Shape,
    /// Show how long each stage took
    #[arg(long)]
    pub(crate) timings: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Exec {
    /// Environment on top of the sandbox's; may be repeated
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) env: Vec<(String, String)>,
    /// Whom it runs as
    #[arg(short, long, value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// Where it starts
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// Seconds until it is killed
    #[arg(long, value_name = "SECONDS")]
    pub(crate) timeout: Option<u64>,
    /// Do not pass standard input on
    #[arg(short = 'n', long)]
    pub(crate) no_stdin: bool,
    /// Which sandbox
    pub(crate) id: String,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Ends with the shell, and with its exit code: type `exit` or Ctrl-D. Every other key goes \
    to the sandbox, Ctrl-C too."
)]
pub(crate) struct Shell {
    /// Environment on top of the sandbox's; may be repeated
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) env: Vec<(String, String)>,
    /// Whom it runs as
    #[arg(short, long, value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// Where it starts
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// Which sandbox
    pub(crate) id: String,
    /// What to run instead of a login shell
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

#[derive(Clone, Debug, Args)]
#[command(after_help = "One of SOURCE and TARGET is SANDBOX:PATH, the other a path here, or - for standard \
    input or output.")]
pub(crate) struct Cp {
    /// Copy directories with what is in them
    #[arg(short, long)]
    pub(crate) recursive: bool,
    /// Whom files belong to in the sandbox
    #[arg(short, long, value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// From where
    pub(crate) source: String,
    /// To where
    pub(crate) target: String,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Logs {
    /// At most this many bytes from the end
    #[arg(long, value_name = "BYTES")]
    pub(crate) tail: Option<usize>,
    /// Which sandbox
    pub(crate) id: String,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Ls {
    /// Only in one of these states, separated by commas
    #[arg(long)]
    pub(crate) state: Option<String>,
    /// Only of this template
    #[arg(short, long, value_name = "NAME")]
    pub(crate) template: Option<String>,
    /// Only with this label; may be repeated
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) label: Vec<(String, String)>,
    /// Print ids only
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Inspect {
    /// Which sandbox
    pub(crate) id: String,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Expose {
    /// Take the port back
    #[arg(long)]
    pub(crate) remove: bool,
    /// Which sandbox
    pub(crate) id: String,
    /// A TCP port inside it
    pub(crate) port: u16,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Events {
    /// Start behind the event with this number
    #[arg(long, value_name = "REVISION")]
    pub(crate) since: Option<u64>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Timeout {
    /// Which sandbox
    pub(crate) id: String,
    /// Seconds from now; 0 is never
    pub(crate) seconds: u64,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Rm {
    /// All of them
    #[arg(long, conflicts_with = "ids")]
    pub(crate) all: bool,
    /// Which sandboxes
    #[arg(required_unless_present = "all")]
    pub(crate) ids: Vec<String>,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Template {
    /// List templates
    Ls,
    /// Build a template from a root file system on the daemon's machine
    Build {
        /// The name to give
        name: String,
        /// A directory tree
        #[arg(long, value_name = "DIR", conflicts_with = "tar", required_unless_present = "tar")]
        dir: Option<PathBuf>,
        /// A tar archive
        #[arg(long, value_name = "FILE")]
        tar: Option<PathBuf>,
        /// What its sandboxes run from the start, by root in `/bin/sh -lc`; snapshots of the template hold it running
        #[arg(long, value_name = "COMMAND")]
        start_command: Option<String>,
        /// Succeeds once what the start command starts is ready; asked until then
        #[arg(long, value_name = "COMMAND", requires = "start_command")]
        ready_command: Option<String>,
    },
    /// Say what creates from a template get when they do not say otherwise
    Set {
        /// Which template
        name: String,
        /// Boot level: `standard`, `fast`, `ultra-fast`, `sub2-second`, `instant`; `default` for the daemon's
        #[arg(long, value_name = "LEVEL")]
        level: String,
    },
    /// Show what was said of a template
    Show {
        /// Which template
        name: String,
    },
    /// Give a build of a template a further name, `NAME:TAG`, which keeps it when the template is built anew
    Tag {
        /// Which build: a template, or one of its tags
        target: String,
        /// The tags; one that is there moves
        #[arg(required = true)]
        tags: Vec<String>,
    },
    /// Remove a template that was built here, or a tag
    Rm {
        /// Which template
        name: String,
    },
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Tls {
    /// Make an authority of your own and a certificate of a domain and all hosts below it
    Init {
        /// The domain, without a port
        domain: String,
        /// Where to put the files
        #[arg(long, default_value = ".")]
        out: PathBuf,
    },
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Key {
    /// Make a key and print it, this once
    Create {
        /// What to call it
        name: String,
    },
    /// List keys
    Ls,
    /// Make a key useless
    Revoke {
        /// Which key
        id: String,
    },
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Report every mistake in the configuration
    Check,
    /// Print the configuration in force
    Show,
    /// Print the JSON schema of the file
    Schema,
    /// Print the alert rules in force as a rule file for Prometheus
    AlertRules,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Top {
    /// Print one table and end; without a terminal that is the default
    #[arg(long)]
    pub(crate) once: bool,
    /// Seconds between two looks
    #[arg(short = 'd', long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) delay: u64,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Alerts {
    /// Show the rules instead
    #[arg(long)]
    pub(crate) rules: bool,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("`{text}` must be NAME=VALUE")),
    }
}

/// A time of whole seconds, at least one; a bare number is seconds.
fn whole_seconds(text: &str) -> Result<u64, String> {
    let span = || text.parse::<jiff::SignedDuration>().ok().filter(|span| span.subsec_nanos() == 0);
    let seconds = text.parse().ok().or_else(|| u64::try_from(span()?.as_secs()).ok());
    let wrong = || format!("`{text}` must be a time of whole seconds, at least one, for example 90s or 5m");
    seconds.filter(|seconds| *seconds > 0).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn words_behind_two_dashes_belong_to_the_command() {
        let cli = Cli::try_parse_from(["flames", "run", "-t", "base", "--", "ls", "-l", "--json"]).unwrap();
        let Command::Run(run) = cli.command else { panic!("not a run") };
        assert_eq!(run.command, ["ls", "-l", "--json"]);
        assert!(!cli.global.json);
    }

    #[test]
    fn a_time_to_be_idle_is_whole_seconds_in_any_unit_and_at_least_one() {
        for (text, seconds) in [("5m", 300), ("90s", 90), ("1h 30m", 5400), ("45", 45)] {
            assert_eq!(whole_seconds(text), Ok(seconds), "{text}");
        }
        for wrong in ["0", "0s", "-5m", "-5", "1500ms", "soon", ""] {
            assert!(whole_seconds(wrong).is_err(), "{wrong}");
        }
        let cli = Cli::try_parse_from(["flames", "create", "--idle-timeout", "5m"]).unwrap();
        let Command::Create(create) = cli.command else { panic!("not a create") };
        assert_eq!(create.shape.idle_timeout, Some(300));
    }

    #[test]
    fn a_pair_without_a_name_is_refused() {
        assert!(pair("=x").is_err() && pair("x").is_err());
        assert_eq!(pair("a=b=c"), Ok(("a".into(), "b=c".into())));
    }
}
