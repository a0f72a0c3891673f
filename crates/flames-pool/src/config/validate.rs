//! What a pool may not be asked to be: every mistake at once, each with its place and its mend.

use super::{ByArrivals, ByUse, PoolConfig};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Something in a configuration that cannot be meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Mistake {
    /// The field, with dots, for example `autoscale.by_use.grow_above`.
    pub field: String,
    /// What is wrong.
    pub what: String,
    /// What to write instead.
    pub mend: String,
}

/// More than any node holds: a number beyond it is a slip of the finger.
const MOST_MEMBERS: u32 = 10_000;

impl PoolConfig {
    /// # Errors
    /// All mistakes, in the order of the fields.
    pub fn validate(&self) -> Result<(), Vec<Mistake>> {
        let mut mistakes = Vec::new();
        self.check_size(&mut mistakes);
        self.check_members(&mut mistakes);
        self.check_limits(&mut mistakes);
        if let Some(by_use) = &self.autoscale.by_use {
            by_use.check(&mut mistakes);
        }
        if let Some(by_arrivals) = &self.autoscale.by_arrivals {
            by_arrivals.check(&mut mistakes);
        }
        if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
    }

    fn check_size(&self, found: &mut Vec<Mistake>) {
        if self.template.is_empty() {
            found.push(mistake("template", "is empty", "name the template whose VMs are kept ready"));
        }
        let sizes = [
            ("vcpus", self.vcpus.map(u32::from)),
            ("memory_mib", self.memory_mib),
            ("disk_mib", self.disk_mib),
        ];
        for (field, _) in sizes.into_iter().filter(|(_, size)| *size == Some(0)) {
            found.push(mistake(field, "is 0", "leave it out for the node's default, or give at least 1"));
        }
    }

    fn check_members(&self, found: &mut Vec<Mistake>) {
        let (base, minimum, maximum) = (self.tiers.total(), self.minimum, self.maximum);
        if base > maximum {
            let what = format!("ask for {base} members together, more than the maximum of {maximum}");
            found.push(mistake("tiers", what, format!("raise maximum to {base} or lower the tiers")));
        }
        if minimum > maximum {
            let what = format!("is {minimum}, more than the maximum of {maximum}");
            found.push(mistake("minimum", what, format!("lower it to {maximum} or raise maximum")));
        }
        if maximum > MOST_MEMBERS {
            let what = format!("is {maximum}");
            found.push(mistake("maximum", what, format!("give at most {MOST_MEMBERS}")));
        }
    }

    fn check_limits(&self, found: &mut Vec<Mistake>) {
        if self.refill_concurrency == 0 {
            found.push(mistake(
                "refill_concurrency",
                "is 0: the pool would never fill",
                "give at least 1; for no pool at all set maximum, minimum and tiers to 0",
            ));
        }
        if self.max_replacements == 0 {
            found.push(mistake(
                "max_replacements",
                "is 0: what is unhealthy or outdated would stay",
                "give at least 1",
            ));
        }
    }
}

impl ByUse {
    fn check(&self, found: &mut Vec<Mistake>) {
        let is_share = |value: f64| (0.0..=1.0).contains(&value);
        for (field, value) in [("grow_above", self.grow_above), ("shrink_below", self.shrink_below)] {
            if !is_share(value) {
                let field = format!("autoscale.by_use.{field}");
                found.push(mistake(field, format!("is {value}"), "give a share from 0 to 1"));
            }
        }
        if self.shrink_below >= self.grow_above {
            let what = format!("is {}, not below grow_above, {}", self.shrink_below, self.grow_above);
            found.push(mistake("autoscale.by_use.shrink_below", what, "give a share below grow_above"));
        }
        for (field, step) in [("grow_by", self.grow_by), ("shrink_by", self.shrink_by)] {
            if step == 0 {
                let field = format!("autoscale.by_use.{field}");
                found.push(mistake(field, "is 0: a step that does nothing", "give at least 1"));
            }
        }
    }
}

impl ByArrivals {
    fn check(&self, found: &mut Vec<Mistake>) {
        let mut check = |field: &str, value: f64, is_good: bool, mend: &str| {
            if !is_good {
                let field = format!("autoscale.by_arrivals.{field}");
                found.push(mistake(field, format!("is {value}"), mend));
            }
        };
        let (half_life, lead, deviations) = (self.half_life_s, self.lead_time_s, self.deviations);
        check("half_life_s", half_life, half_life.is_finite() && half_life > 0.0, "give seconds above 0");
        check("lead_time_s", lead, lead.is_finite() && lead >= 0.0, "give seconds, 0 or more");
        check("deviations", deviations, deviations.is_finite() && deviations >= 0.0, "give 0 or more");
    }
}

fn mistake(field: impl Into<String>, what: impl Into<String>, mend: impl Into<String>) -> Mistake {
    Mistake { field: field.into(), what: what.into(), mend: mend.into() }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.field, self.what, self.mend)
    }
}
