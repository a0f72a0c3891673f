//! What PostgreSQL's errors mean to callers.
//!
//! `Unavailable` promises that nothing was executed, so a failure of COMMIT itself is a `Timeout`: nobody
//! knows what the server made of it.

use flames_state::{Error, ErrorKind};

pub(crate) const ADAPTER: &str = "postgres";

/// The call that failed: what it was about and what the trait calls it.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    operation: &'static str,
    resource: &'static str,
    id: String,
}

impl Subject {
    pub(crate) fn new(operation: &'static str, resource: &'static str, id: impl Into<String>) -> Self {
        Self { operation, resource, id: id.into() }
    }

    pub(crate) fn error(&self, kind: ErrorKind) -> Error {
        Error::new(kind, self.resource, self.id.clone()).operation(self.operation).adapter(ADAPTER)
    }

    pub(crate) fn failed(&self, failure: Failure) -> Error {
        match failure {
            Failure::Refused(error) => *error,
            Failure::Backend(cause) => self.error(kind(&cause)).source(cause),
            Failure::Unknown(cause) => {
                self.error(ErrorKind::Timeout).detail("the connection broke while committing").source(cause)
            }
        }
    }
}

/// Why a piece of work on a connection did not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The store's own answer: a precondition, a lease that is held.
    Refused(Box<Error>),
    /// The backend failed, and nothing was executed.
    Backend(sqlx::Error),
    /// The backend failed in COMMIT.
    Unknown(sqlx::Error),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Backend(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused(Box::new(error))
    }
}

impl Failure {
    /// Of COMMIT: an answer of the server is certain, a broken connection is not.
    pub(crate) fn of_commit(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(_) => Self::Backend(error),
            _ => Self::Unknown(error),
        }
    }
}

pub(crate) fn kind(error: &sqlx::Error) -> ErrorKind {
    match error {
        sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_) => ErrorKind::Unavailable,
        sqlx::Error::Database(error) => {
            error.code().map_or(ErrorKind::Internal, |state| kind_of_state(&state))
        }
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => ErrorKind::Corrupt,
        _ => ErrorKind::Internal,
    }
}

/// SQLSTATE is stable: <https://www.postgresql.org/docs/15/errcodes-appendix.html>.
fn kind_of_state(state: &str) -> ErrorKind {
    match state {
        "57014" => ErrorKind::Timeout,          // canceled by statement_timeout
        "42501" => ErrorKind::PermissionDenied, // insufficient privilege
        "3D000" => ErrorKind::NotFound,         // no such database
        "25006" | "40001" | "40P01" | "55P03" => ErrorKind::Unavailable, // read-only, serialization, deadlock, lock
        _ => match state.get(..2) {
            Some("08" | "53" | "57" | "58") => ErrorKind::Unavailable, // connection, resources, shutdown, system
            Some("28") => ErrorKind::PermissionDenied,
            Some("XX") => ErrorKind::Corrupt,
            _ => ErrorKind::Internal,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_mean_what_the_manual_says() {
        for (state, kind) in [
            ("28P01", ErrorKind::PermissionDenied),
            ("3D000", ErrorKind::NotFound),
            ("53300", ErrorKind::Unavailable),
            ("57P01", ErrorKind::Unavailable),
            ("57014", ErrorKind::Timeout),
            ("XX001", ErrorKind::Corrupt),
            ("42601", ErrorKind::Internal),
        ] {
            assert_eq!(kind_of_state(state), kind, "{state}");
        }
    }

    #[test]
    fn only_a_commit_without_an_answer_is_unknown() {
        let subject = Subject::new("commit", "record", "a");
        let broken = || sqlx::Error::Io(std::io::ErrorKind::BrokenPipe.into());
        assert_eq!(subject.failed(broken().into()).kind(), ErrorKind::Unavailable);
        assert_eq!(subject.failed(Failure::of_commit(broken())).kind(), ErrorKind::Timeout);
    }
}
