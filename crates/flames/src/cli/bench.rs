//! What `flames bench` takes.

mod pool;

pub(crate) use pool::BenchPool;

use clap::{ArgGroup, Args, Subcommand};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// What to measure.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Bench {
    /// Time creates, from the request to the first output of a command
    Boot(BenchBoot),
    /// Load a daemon with creates: one after another, at a rate, in a burst or in a ramp
    Create(Box<BenchCreate>),
    /// Set results that `flames bench create --save` wrote side by side
    Compare(BenchCompare),
    /// Compare the warm pool's allocation strategies under loads of several shapes: a simulation, without any VM
    Pool(BenchPool),
}

#[derive(Clone, Debug, Args)]
pub(crate) struct BenchBoot {
    /// How many sandboxes
    #[arg(short = 'n', long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) count: u32,
    /// How many at once
    #[arg(short = 'c', long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) concurrency: u32,
    /// What to create them from
    #[arg(short, long, default_value = "mini", value_name = "NAME")]
    pub(crate) template: String,
    /// Memory in MiB
    #[arg(long, value_name = "MIB")]
    pub(crate) memory: Option<u32>,
    /// The command whose first output is waited for
    #[arg(last = true, value_name = "COMMAND", default_values_t = ["/bin/echo".to_owned(), "ready".to_owned()])]
    pub(crate) command: Vec<String>,
}

/// Without --rate, --burst or --ramp the next create begins when one has ended (closed loop).
#[derive(Clone, Debug, Args)]
#[command(group = ArgGroup::new("open").args(["rate", "burst", "ramp"]))]
pub(crate) struct BenchCreate {
    /// Closed loop: how many creates; with --rate or --ramp, the most
    #[arg(short = 'n', long, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) count: Option<u32>,
    /// Closed loop: how many at once
    #[arg(short = 'c', long, default_value_t = 1, conflicts_with = "open",
        value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) concurrency: u32,
    /// How long creates begin, for example 90s or 10m
    #[arg(short, long, value_name = "TIME", value_parser = duration)]
    pub(crate) duration: Option<Duration>,
    /// Open loop: creates per second at random moments (Poisson), whether earlier ones have ended or not
    #[arg(long, value_name = "PER SECOND", value_parser = rate)]
    pub(crate) rate: Option<f64>,
    /// So many creates at one moment
    #[arg(long, value_name = "N", conflicts_with_all = ["count", "duration"],
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) burst: Option<u32>,
    /// Open loop with a rate that goes evenly from one to another over --duration
    #[arg(long, value_name = "FROM..TO", requires = "duration")]
    pub(crate) ramp: Option<Ramp>,
    /// Of the random moments
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// What to create them from
    #[arg(short, long, default_value = "mini", value_name = "NAME")]
    pub(crate) template: String,
    /// Boot level: standard, fast, ultra-fast, sub2-second or instant (default: the daemon's)
    #[arg(long, value_name = "LEVEL")]
    pub(crate) level: Option<String>,
    /// Create them from this snapshot, by id or name
    #[arg(long, value_name = "SNAPSHOT", conflicts_with_all = ["template", "level"])]
    pub(crate) snapshot: Option<String>,
    /// Memory in MiB
    #[arg(long, value_name = "MIB")]
    pub(crate) memory: Option<u32>,
    /// How long each sandbox lives after its command
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = duration)]
    pub(crate) keep: Duration,
    /// The most that live at once: further creates wait here, which counts as their latency
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) max_live: Option<u32>,
    /// Do not run a command
    #[arg(long, conflicts_with = "command")]
    pub(crate) no_command: bool,
    /// Also write the result here, for `flames bench compare`
    #[arg(long, value_name = "FILE")]
    pub(crate) save: Option<PathBuf>,
    /// The command whose first output, or end, is waited for
    #[arg(last = true, value_name = "COMMAND", default_values_t = ["true".to_owned()])]
    pub(crate) command: Vec<String>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct BenchCompare {
    /// Results; ratios are to the first
    #[arg(required = true, num_args = 2.., value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
}

/// A rate that changes: creates per second at the start and at the end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ramp {
    pub(crate) from: f64,
    pub(crate) to: f64,
}

impl FromStr for Ramp {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once("..").and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)));
        match parts {
            Some((from, to)) if is_rate(from) && is_rate(to) && (from > 0.0 || to > 0.0) => {
                Ok(Self { from, to })
            }
            _ => Err(format!("`{text}` must be FROM..TO, in creates per second: for example 1..20")),
        }
    }
}

const MAX_RATE: f64 = 100_000.0;

fn is_rate(rate: f64) -> bool {
    (0.0..=MAX_RATE).contains(&rate)
}

fn rate(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|rate| is_rate(*rate) && *rate > 0.0)
        .ok_or_else(|| format!("`{text}` must be creates per second, above 0 and at most {MAX_RATE}"))
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<jiff::SignedDuration>().ok().and_then(|span| Duration::try_from(span).ok());
    parsed.ok_or_else(|| format!("`{text}` must be a time, for example 90s or 10m"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_ramps_and_times_are_checked_as_they_are_typed() {
        assert_eq!("1..20".parse(), Ok(Ramp { from: 1.0, to: 20.0 }));
        assert_eq!("0..2.5".parse(), Ok(Ramp { from: 0.0, to: 2.5 }));
        for wrong in ["", "5", "0..0", "-1..4", "1..nan", "1..inf"] {
            assert!(wrong.parse::<Ramp>().is_err(), "{wrong}");
        }
        assert_eq!(rate("0.5"), Ok(0.5));
        assert!(rate("0").is_err() && rate("nan").is_err() && rate("1e9").is_err());
        assert_eq!(duration("1m 30s"), Ok(Duration::from_secs(90)));
        assert!(duration("10").is_err() && duration("-1s").is_err());
    }
}
