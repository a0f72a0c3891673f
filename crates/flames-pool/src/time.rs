//! Time as a value.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A point in time: milliseconds since whatever moment the caller counts from. It never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct Millis(pub u64);

impl Millis {
    /// How long ago `earlier` was; nothing if it is yet to come.
    pub fn since(self, earlier: Millis) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// This moment and `later` more, to the millisecond.
    #[must_use]
    pub fn plus(self, later: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(later.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl From<Duration> for Millis {
    fn from(since_epoch: Duration) -> Self {
        Self(0).plus(since_epoch)
    }
}
