//! Which call of a fault-injecting decorator goes wrong, and how. The same seed gives the same faults for
//! the same sequence of calls.

use crate::{Error, ErrorKind, Result};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A list of rules; each call gets the first fault whose rule fires.
///
/// ```
/// use flames_provider::ErrorKind;
/// use flames_provider::decorate::{Fault, FaultPlan, When};
/// let plan = FaultPlan::seeded(7).rule("put", When::Nth(2), Fault::Error(ErrorKind::Unavailable));
/// assert_eq!(plan.next("put"), None);
/// assert_eq!(plan.next("get"), None);
/// assert_eq!(plan.next("put"), Some(Fault::Error(ErrorKind::Unavailable)));
/// ```
#[derive(Debug)]
pub struct FaultPlan {
    rules: Mutex<Vec<Rule>>,
    random: Mutex<StdRng>,
}

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails with this kind and never reaches the backend.
    Error(ErrorKind),
    /// It reaches the backend late.
    Delay(Duration),
    /// It takes effect, and the caller gets `Timeout`.
    LostAck,
}

/// Which of the calls that a rule matches are hit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum When {
    /// Each with this probability, 0.0 to 1.0.
    Rate(f64),
    /// The n-th alone, counted from 1.
    Nth(u64),
    /// All.
    Always,
}

#[derive(Debug)]
struct Rule {
    operation: &'static str,
    when: When,
    fault: Fault,
    calls: u64,
}

/// A rule with this operation matches every operation.
const ANY_OPERATION: &str = "*";

impl FaultPlan {
    /// A plan without rules.
    pub fn seeded(seed: u64) -> Self {
        Self { rules: Mutex::new(Vec::new()), random: Mutex::new(StdRng::seed_from_u64(seed)) }
    }

    /// Adds a rule for one operation, named as the trait names it, or for all of them with `*`.
    #[must_use]
    pub fn rule(self, operation: &'static str, when: When, fault: Fault) -> Self {
        lock(&self.rules).push(Rule { operation, when, fault, calls: 0 });
        self
    }

    /// What happens to the call that is made now.
    pub fn next(&self, operation: &str) -> Option<Fault> {
        let mut random = lock(&self.random);
        let mut chosen = None;
        for rule in lock(&self.rules).iter_mut().filter(|rule| rule.matches(operation)) {
            rule.calls += 1;
            let fires = rule.when.fires(rule.calls, random.random());
            chosen = chosen.or(fires.then_some(rule.fault));
        }
        chosen
    }

    /// Makes `call`, or not, as the plan says. `error` names what the call is about.
    ///
    /// # Errors
    /// What `call` gives, or the injected fault.
    pub async fn run<T, Call, Start>(&self, operation: &'static str, error: Error, call: Start) -> Result<T>
    where
        Start: FnOnce() -> Call + Send,
        Call: Future<Output = Result<T>> + Send,
    {
        match self.next(operation) {
            None => call().await,
            Some(Fault::Error(kind)) => Err(error.with_kind(kind).detail("injected fault: not executed")),
            Some(Fault::Delay(delay)) => {
                tokio::time::sleep(delay).await;
                call().await
            }
            Some(Fault::LostAck) => {
                call().await?;
                Err(error.with_kind(ErrorKind::Timeout).detail("injected fault: acknowledgement lost"))
            }
        }
    }
}

impl Rule {
    fn matches(&self, operation: &str) -> bool {
        self.operation == ANY_OPERATION || self.operation == operation
    }
}

impl When {
    /// `draw` is uniform in 0.0..1.0.
    fn fires(self, call: u64, draw: f64) -> bool {
        match self {
            Self::Rate(rate) => draw < rate,
            Self::Nth(n) => call == n,
            Self::Always => true,
        }
    }
}

/// A panic elsewhere cannot leave a plan half-changed, so a poisoned lock is still good.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(seed: u64, rate: f64) -> Vec<bool> {
        let plan = FaultPlan::seeded(seed).rule("*", When::Rate(rate), Fault::LostAck);
        (0..1000).map(|_| plan.next("get").is_some()).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_faults_and_another_seed_others() {
        assert_eq!(hits(1, 0.3), hits(1, 0.3));
        assert_ne!(hits(1, 0.3), hits(2, 0.3));
    }

    #[test]
    fn a_rate_is_kept_roughly() {
        let count = hits(3, 0.3).into_iter().filter(|hit| *hit).count();
        assert!((230..370).contains(&count), "{count}");
    }

    #[test]
    fn an_nth_rule_counts_only_its_own_operation_and_fires_once() {
        let plan = FaultPlan::seeded(0).rule("put", When::Nth(2), Fault::LostAck);
        let fired: Vec<_> = ["put", "get", "put", "put"].iter().map(|op| plan.next(op).is_some()).collect();
        assert_eq!(fired, [false, false, true, false]);
    }

    #[tokio::test]
    async fn a_lost_acknowledgement_takes_effect_and_reports_a_timeout() {
        let plan = FaultPlan::seeded(0).rule("*", When::Always, Fault::LostAck);
        let done = std::sync::atomic::AtomicBool::new(false);
        let error = Error::new(ErrorKind::Internal, "record", "a");
        let call = || async {
            done.store(true, std::sync::atomic::Ordering::SeqCst);
            Ok(())
        };
        let result = plan.run("put", error, call).await;
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Timeout);
        assert!(done.into_inner());
    }

    #[tokio::test]
    async fn an_injected_error_never_reaches_the_backend() {
        let plan = FaultPlan::seeded(0).rule("*", When::Always, Fault::Error(ErrorKind::Unavailable));
        let error = Error::new(ErrorKind::Internal, "record", "a");
        let result: Result<()> = plan.run("put", error, || async { panic!("must not run") }).await;
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.is_retryable());
    }
}
