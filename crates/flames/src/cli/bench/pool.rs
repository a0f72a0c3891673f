//! What `flames bench pool` takes.

use super::{duration, rate};
use clap::Args;
use flames_pool::sim::{Durations, Trace};
use flames_pool::{Preset, Strategy};
use std::time::Duration;

/// Durations that are not given are about those of a small image under software emulation.
#[derive(Clone, Debug, Args)]
pub(crate) struct BenchPool {
    /// How much is kept ready: minimal, standard, aggressive or ultra-fast
    #[arg(long, default_value_t = Preset::Standard, value_name = "NAME")]
    pub(crate) preset: Preset,
    /// Only this strategy; may be repeated
    #[arg(long, value_name = "NAME")]
    pub(crate) strategy: Vec<Strategy>,
    /// Only this load: constant, poisson, bursts or daily; may be repeated
    #[arg(long, value_name = "NAME")]
    pub(crate) trace: Vec<Trace>,
    /// Creates per second, on average
    #[arg(long, default_value = "2", value_name = "PER SECOND", value_parser = rate)]
    pub(crate) rate: f64,
    /// How long each run is, in simulated time
    #[arg(long, default_value = "1h", value_name = "TIME", value_parser = length)]
    pub(crate) length: Duration,
    /// Of the random moments and durations: the same seed gives the same figures everywhere
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// To hand out a running member
    #[arg(long, value_name = "TIME", value_parser = duration)]
    hand_out: Option<Duration>,
    /// To let a paused member run, on top of that
    #[arg(long, value_name = "TIME", value_parser = duration)]
    resume: Option<Duration>,
    /// To prepare slot, disk and VMM process
    #[arg(long, value_name = "TIME", value_parser = duration)]
    prepare: Option<Duration>,
    /// To restore the snapshot into what was prepared
    #[arg(long, value_name = "TIME", value_parser = duration)]
    load: Option<Duration>,
    /// To boot, for a template without snapshot
    #[arg(long, value_name = "TIME", value_parser = duration)]
    boot: Option<Duration>,
    /// To end a member
    #[arg(long, value_name = "TIME", value_parser = duration)]
    stop: Option<Duration>,
    /// How long a sandbox lives, on average
    #[arg(long, value_name = "TIME", value_parser = duration)]
    hold: Option<Duration>,
    /// Share of slots in which everything takes longer, 0 to 1
    #[arg(long, value_name = "SHARE", value_parser = share)]
    slow_slots: Option<f64>,
    /// The template has no snapshot: members are booted, and so are creates that find none
    #[arg(long)]
    no_snapshot: bool,
}

impl BenchPool {
    /// The durations to simulate with.
    pub(crate) fn durations(&self) -> Durations {
        let usual = Durations::default();
        let ms =
            |given: Option<Duration>, usual_ms: f64| given.map_or(usual_ms, |time| time.as_secs_f64() * 1e3);
        Durations {
            hand_out_ms: ms(self.hand_out, usual.hand_out_ms),
            resume_ms: ms(self.resume, usual.resume_ms),
            prepare_ms: ms(self.prepare, usual.prepare_ms),
            load_ms: ms(self.load, usual.load_ms),
            boot_ms: ms(self.boot, usual.boot_ms),
            stop_ms: ms(self.stop, usual.stop_ms),
            hold_s: self.hold.map_or(usual.hold_s, |time| time.as_secs_f64()),
            slow_slots: self.slow_slots.unwrap_or(usual.slow_slots),
            snapshot: !self.no_snapshot,
            ..usual
        }
    }
}

/// A week of simulated time is more than anybody waits for.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

fn length(text: &str) -> Result<Duration, String> {
    let length = duration(text)?;
    let is_good = (Duration::from_secs(1)..=LONGEST).contains(&length);
    is_good.then_some(length).ok_or_else(|| format!("`{text}` must be from 1s to 168h"))
}

fn share(text: &str) -> Result<f64, String> {
    let parsed = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    parsed.ok_or_else(|| format!("`{text}` must be a share from 0 to 1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_lengths_are_checked_as_they_are_typed() {
        assert_eq!(share("0.25"), Ok(0.25));
        assert!(["", "-0.1", "1.1", "nan", "half"].into_iter().all(|wrong| share(wrong).is_err()));
        assert_eq!(length("90m"), Ok(Duration::from_secs(5400)));
        assert!(["0s", "500ms", "169h", "1"].into_iter().all(|wrong| length(wrong).is_err()));
    }
}
