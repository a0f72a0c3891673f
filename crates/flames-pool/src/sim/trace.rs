//! When creates arrive.

use super::random::Random;
use crate::Millis;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The shape of a load. All have the same number of creates on average.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trace {
    /// One after the other at equal distances.
    Constant,
    /// By chance, each independent of the others.
    Poisson,
    /// A fifth by chance, the rest in bursts: each within a second, about one a minute.
    Bursts,
    /// By chance, at a rate that rises from a tenth of the mean to nearly twice the mean and falls again, once over the
    /// whole run.
    Daily,
}

/// The mean distance between two bursts.
const BETWEEN_BURSTS_S: f64 = 60.0;
/// The share of creates outside of bursts.
const BACKGROUND: f64 = 0.2;
/// How far the daily rate is from its mean at most, as a share of the mean.
const SWING: f64 = 0.9;

impl Trace {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Constant, Self::Poisson, Self::Bursts, Self::Daily];

    /// Its name, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Constant => "constant",
            Self::Poisson => "poisson",
            Self::Bursts => "bursts",
            Self::Daily => "daily",
        }
    }

    /// The moments, in order, at `per_second` creates per second on average.
    pub fn arrivals(self, per_second: f64, length: Duration, seed: u64) -> Vec<Millis> {
        let length_s = length.as_secs_f64();
        let is_empty = !per_second.is_finite() || per_second <= 0.0;
        let mut random = Random::new(seed, 1);
        let mut seconds = match self {
            _ if is_empty => Vec::new(),
            Self::Constant => constant(per_second, length_s),
            Self::Poisson => poisson(&mut random, per_second, length_s),
            Self::Bursts => bursts(&mut random, per_second, length_s),
            Self::Daily => daily(&mut random, per_second, length_s),
        };
        seconds.sort_unstable_by(f64::total_cmp);
        seconds.into_iter().map(|second| Millis::from(Duration::from_secs_f64(second))).collect()
    }
}

fn constant(per_second: f64, length_s: f64) -> Vec<f64> {
    let at = |count: u32| f64::from(count) / per_second;
    (0..).map(at).take_while(|second| *second < length_s).collect()
}

fn poisson(random: &mut Random, per_second: f64, length_s: f64) -> Vec<f64> {
    let mut second = 0.0;
    let next = || {
        second += random.exponential(1.0 / per_second);
        Some(second)
    };
    std::iter::from_fn(next).take_while(|second| *second < length_s).collect()
}

fn bursts(random: &mut Random, per_second: f64, length_s: f64) -> Vec<f64> {
    let mut seconds = poisson(random, per_second * BACKGROUND, length_s);
    for start in poisson(random, 1.0 / BETWEEN_BURSTS_S, length_s) {
        let size = random.exponential(per_second * (1.0 - BACKGROUND) * BETWEEN_BURSTS_S);
        let mut left = size;
        while left >= 1.0 || random.share() < left {
            seconds.push(start + random.share());
            left -= 1.0;
        }
    }
    seconds.retain(|second| *second < length_s);
    seconds
}

/// Thinning: as many as at the highest rate, of which each stays with the share that its moment's rate has of that.
fn daily(random: &mut Random, per_second: f64, length_s: f64) -> Vec<f64> {
    let highest = 1.0 + SWING;
    let mut seconds = poisson(random, per_second * highest, length_s);
    let rate = |second: f64| 1.0 - SWING * (std::f64::consts::TAU * second / length_s).cos();
    seconds.retain(|second| random.share() * highest < rate(*second));
    seconds
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Trace {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let named = Self::ALL.into_iter().find(|trace| trace.name() == text);
        let names = || Self::ALL.map(Self::name).join(", ");
        named.ok_or_else(|| format!("unknown trace {text:?}: use one of {}", names()))
    }
}
