//! When a failed call is made again: only on errors marked retryable, a bounded number of times.

use crate::{Error, Result, Retry};
use backon::{ExponentialBuilder, Retryable};
use std::future::Future;
use std::num::NonZeroUsize;
use std::time::Duration;

/// How often and how soon a call is made again. Whether a call may be repeated at all (whether it is
/// idempotent) is for the decorator of its interface to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Calls in all, the first included.
    pub attempts: NonZeroUsize,
    /// Pause before the second call; it doubles each time, with jitter.
    pub first_delay: Duration,
    /// No pause is longer, also when the backend asks for more: then the call fails instead.
    pub max_delay: Duration,
}

impl Default for RetryPolicy {
    /// Three calls within about half a second.
    fn default() -> Self {
        Self {
            attempts: NonZeroUsize::MIN.saturating_add(2),
            first_delay: Duration::from_millis(50),
            max_delay: Duration::from_secs(1),
        }
    }
}

impl RetryPolicy {
    /// Makes the call until it succeeds, fails for good, or the attempts are used up.
    ///
    /// # Errors
    /// The last call's.
    pub async fn run<T, Call, Start>(&self, call: Start) -> Result<T>
    where
        Start: FnMut() -> Call,
        Call: Future<Output = Result<T>>,
    {
        let backoff = ExponentialBuilder::default()
            .with_jitter()
            .with_min_delay(self.first_delay)
            .with_max_delay(self.max_delay)
            .with_max_times(self.attempts.get() - 1);
        call.retry(backoff).when(|error: &Error| self.allows(error)).adjust(wait).await
    }

    fn allows(&self, error: &Error) -> bool {
        match error.retry_hint() {
            Retry::Never => false,
            Retry::Later => true,
            Retry::After(pause) => pause <= self.max_delay,
        }
    }
}

/// The backend's own word on the pause wins over the schedule; `None` means the attempts are used up.
fn wait(error: &Error, scheduled: Option<Duration>) -> Option<Duration> {
    match error.retry_hint() {
        Retry::After(pause) => scheduled.map(|_| pause),
        Retry::Later | Retry::Never => scheduled,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use std::sync::atomic::{AtomicUsize, Ordering};

    async fn calls_until_given_up(error: impl Fn() -> Error) -> usize {
        let calls = AtomicUsize::new(0);
        let call = || async {
            calls.fetch_add(1, Ordering::SeqCst);
            Err::<(), _>(error())
        };
        RetryPolicy::default().run(call).await.unwrap_err();
        calls.into_inner()
    }

    fn error(kind: ErrorKind) -> Error {
        Error::new(kind, "record", "a")
    }

    #[tokio::test(start_paused = true)]
    async fn a_passing_fault_is_tried_a_bounded_number_of_times() {
        assert_eq!(calls_until_given_up(|| error(ErrorKind::Unavailable)).await, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lasting_fault_is_tried_once() {
        assert_eq!(calls_until_given_up(|| error(ErrorKind::Conflict)).await, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_backend_that_asks_for_too_long_a_pause_is_not_waited_for() {
        let slow = || error(ErrorKind::Unavailable).retry(Retry::After(Duration::from_secs(60)));
        assert_eq!(calls_until_given_up(slow).await, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_pause_the_backend_asks_for_is_kept() {
        let before = tokio::time::Instant::now();
        let slow = || error(ErrorKind::Unavailable).retry(Retry::After(Duration::from_millis(800)));
        assert_eq!(calls_until_given_up(slow).await, 3);
        assert!(before.elapsed() >= Duration::from_millis(1600));
    }
}
