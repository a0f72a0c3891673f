//! Names, durations and counts within their limits: checked once, where they are made.

use crate::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::num::NonZeroU16;
use std::time::Duration;

/// Name of a queue: 1 to 48 of `a-z`, `0-9`, `-` and `_`, so that every backend can use it as it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct QueueName(String);

impl QueueName {
    /// The longest name, in bytes.
    pub const MAX_LEN: usize = 48;

    /// Checks a name.
    ///
    /// # Errors
    /// `InvalidInput` outside the limits.
    pub fn new(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
        if name.is_empty() || name.len() > Self::MAX_LEN || !name.bytes().all(legal) {
            return Err(invalid("queue name", name, "use 1 to 48 of a-z, 0-9, - and _"));
        }
        Ok(Self(name))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Name of a consumer, for people: 1 to 128 printable ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ConsumerName(String);

impl ConsumerName {
    /// Checks a name.
    ///
    /// # Errors
    /// `InvalidInput` outside the limits.
    pub fn new(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        if name.is_empty() || name.len() > 128 || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(invalid("consumer name", name, "use 1 to 128 printable ASCII characters"));
        }
        Ok(Self(name))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

macro_rules! text_conversions {
    ($($name:ident),+) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;
            fn try_from(name: String) -> Result<Self> {
                Self::new(name)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }
    )+};
}
text_conversions!(QueueName, ConsumerName);

macro_rules! bounded_duration {
    ($(#[$doc:meta])+ $name:ident, $field:literal, $min:expr, $max:expr, $mend:literal) => {
        $(#[$doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Duration);

        impl $name {
            /// The shortest one.
            pub const MIN: Self = Self($min);
            /// The longest one.
            pub const MAX: Self = Self($max);

            /// Checks a duration.
            ///
            /// # Errors
            /// `InvalidInput` outside the limits.
            pub fn new(duration: Duration) -> Result<Self> {
                if duration < $min || duration > $max {
                    return Err(invalid($field, format!("{duration:?}"), $mend));
                }
                Ok(Self(duration))
            }

            /// The nearest duration within the limits.
            pub fn clamped(duration: Duration) -> Self {
                Self(duration.clamp($min, $max))
            }

            /// As a duration.
            pub fn get(self) -> Duration {
                self.0
            }
        }
    };
}

bounded_duration!(
    /// How long a job waits before it is ready: 0 to 30 days, kept to the millisecond.
    Delay, "delay", Duration::ZERO, Duration::from_hours(24 * 30), "use 0 to 30 days"
);
bounded_duration!(
    /// How long a lease lasts: 10 ms to 12 hours.
    Visibility, "visibility", Duration::from_millis(10), Duration::from_hours(12), "use 10 ms to 12 hours"
);
bounded_duration!(
    /// How long a lease call waits for a job: 0 to 60 seconds.
    Wait, "wait", Duration::ZERO, Duration::from_secs(60), "use 0 to 60 seconds"
);
bounded_duration!(
    /// How long a dedup key is remembered after its first use: 100 ms to 24 hours.
    DedupWindow, "dedup window", Duration::from_millis(100), Duration::from_hours(24), "use 100 ms to 24 hours"
);

impl Delay {
    /// No delay.
    pub const NONE: Self = Self::MIN;
}

impl Wait {
    /// Answer at once.
    pub const NONE: Self = Self::MIN;
}

impl Default for DedupWindow {
    /// Two minutes, as JetStream has it.
    fn default() -> Self {
        Self(Duration::from_mins(2))
    }
}

/// How often a job may be tried: 1 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MaxAttempts(NonZeroU16);

impl MaxAttempts {
    /// Checks a number of attempts.
    ///
    /// # Errors
    /// `InvalidInput` for 0 and for more than 100.
    pub fn new(attempts: u16) -> Result<Self> {
        match NonZeroU16::new(attempts) {
            Some(count) if attempts <= 100 => Ok(Self(count)),
            _ => Err(invalid("max_attempts", attempts.to_string(), "use 1 to 100")),
        }
    }

    /// As a number.
    pub fn get(self) -> u16 {
        self.0.get()
    }

    /// True if a job whose `attempt` (1 is the first) failed has none left.
    pub fn used_up_by(self, attempt: u16) -> bool {
        attempt >= self.get()
    }
}

impl Default for MaxAttempts {
    /// Five.
    fn default() -> Self {
        Self(NonZeroU16::MIN.saturating_add(4))
    }
}

/// How many items one call may answer: 1 to 1,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Batch(NonZeroU16);

impl Batch {
    /// One.
    pub const ONE: Self = Self(NonZeroU16::MIN);
    /// A thousand.
    pub const MAX: Self = Self(NonZeroU16::MIN.saturating_add(999));

    /// Checks a number of items.
    ///
    /// # Errors
    /// `InvalidInput` for 0 and for more than 1,000.
    pub fn new(count: u16) -> Result<Self> {
        match NonZeroU16::new(count) {
            Some(value) if value <= Self::MAX.0 => Ok(Self(value)),
            _ => Err(invalid("batch", count.to_string(), "use 1 to 1000")),
        }
    }

    /// As a number.
    pub fn get(self) -> usize {
        usize::from(self.0.get())
    }

    /// So many more, up to the limit.
    #[must_use]
    pub fn saturating_add(self, more: u16) -> Self {
        Self(self.0.saturating_add(more).min(Self::MAX.0))
    }
}

pub(crate) fn invalid(field: &'static str, value: impl Into<String>, mend: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, field, value).detail(mend)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused<T: fmt::Debug>(result: Result<T>) -> String {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        error.to_string()
    }

    #[test]
    fn refusals_name_the_field_and_the_mend() {
        assert_eq!(refused(MaxAttempts::new(0)), "max_attempts `0`: invalid input: use 1 to 100");
        assert!(refused(QueueName::new("Über")).starts_with("queue name"));
        assert!(refused(QueueName::new("")).contains("1 to 48"));
        assert!(refused(QueueName::new("x".repeat(49))).contains("1 to 48"));
        assert!(refused(ConsumerName::new("a b")).starts_with("consumer name"));
        assert!(refused(Batch::new(1001)).starts_with("batch"));
    }

    #[test]
    fn durations_are_bounded_on_both_sides() {
        assert!(refused(Delay::new(Duration::from_hours(24 * 31))).contains("30 days"));
        assert!(refused(Visibility::new(Duration::ZERO)).contains("10 ms"));
        assert_eq!(Visibility::clamped(Duration::ZERO), Visibility::MIN);
        assert_eq!(Wait::clamped(Duration::MAX), Wait::MAX);
    }
}
