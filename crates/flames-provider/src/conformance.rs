//! Helpers of the conformance suites: when a backend runs, is skipped, or must not be skipped.
//!
//! An interface crate exports its suite as one public async function per promise, and a macro that expands
//! to one named test per promise for a given factory, so that a red line names the broken promise.

/// Decides what to do about a backend that is not configured or not installed.
///
/// Prints a loud line and returns when the backend may be missing; fails the test when `FLAMES_REQUIRE`
/// (comma separated) names it, so that CI cannot go green by skipping.
///
/// # Panics
/// If `FLAMES_REQUIRE` names `backend`.
pub fn skip(backend: &str, mend: &str) {
    assert!(!is_required(backend), "{backend} is required by FLAMES_REQUIRE, and missing: {mend}");
    eprintln!("SKIPPED: {backend} is not available: {mend}");
}

/// True if `FLAMES_REQUIRE` names `backend`.
pub fn is_required(backend: &str) -> bool {
    std::env::var("FLAMES_REQUIRE").is_ok_and(|list| list.split(',').any(|name| name.trim() == backend))
}

/// A prefix no other test uses, so that tests share a backend without seeing each other.
pub fn unique_prefix(test: &str) -> String {
    format!("{test}-{}", uuid::Uuid::new_v4().simple())
}
