//! What SQLite's errors mean to callers.

use flames_state::{Error, ErrorKind};
use std::sync::Arc;

pub(crate) const ADAPTER: &str = "sqlite";

/// The call that failed: what it was about and what the trait calls it.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) operation: &'static str,
    pub(crate) resource: &'static str,
    pub(crate) id: String,
}

impl Subject {
    pub(crate) fn new(operation: &'static str, resource: &'static str, id: impl Into<String>) -> Self {
        Self { operation, resource, id: id.into() }
    }

    /// Shared, since one failed transaction fails every call in it.
    pub(crate) fn failed(&self, cause: Arc<rusqlite::Error>) -> Error {
        self.error(kind(&cause)).source(cause)
    }

    pub(crate) fn error(&self, kind: ErrorKind) -> Error {
        Error::new(kind, self.resource, self.id.clone()).operation(self.operation).adapter(ADAPTER)
    }
}

fn kind(error: &rusqlite::Error) -> ErrorKind {
    match error {
        rusqlite::Error::SqliteFailure(error, _) => kind_of_code(error.extended_code),
        rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::IntegralValueOutOfRange(..) => ErrorKind::Corrupt,
        _ => ErrorKind::Internal,
    }
}

/// SQLite's primary result codes are stable: <https://sqlite.org/rescode.html>.
pub(crate) fn kind_of_code(code: i32) -> ErrorKind {
    const PRIMARY: i32 = 0xff; // the upper bytes only refine
    match code & PRIMARY {
        5 | 6 | 10 | 13 | 14 => ErrorKind::Unavailable, // BUSY, LOCKED, IOERR, FULL, CANTOPEN
        3 | 8 | 23 => ErrorKind::PermissionDenied,      // PERM, READONLY, AUTH
        11 | 26 => ErrorKind::Corrupt,                  // CORRUPT, NOTADB
        _ => ErrorKind::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_mean_what_sqlite_says_also_when_refined() {
        assert_eq!(kind_of_code(13), ErrorKind::Unavailable);
        assert_eq!(kind_of_code(1546), ErrorKind::Unavailable, "IOERR_TRUNCATE");
        assert_eq!(kind_of_code(26), ErrorKind::Corrupt);
        assert_eq!(kind_of_code(8), ErrorKind::PermissionDenied);
        assert_eq!(kind_of_code(1), ErrorKind::Internal);
    }
}
