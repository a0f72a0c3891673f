//! The one error that crosses a provider boundary.

use std::fmt;
use std::time::Duration;

type Source = Box<dyn std::error::Error + Send + Sync + 'static>;

/// What failed, where, and whether trying again can help.
///
/// `Display` gives one line and never repeats the source; print the chain with
/// [`std::error::Error::source`].
///
/// ```
/// use flames_provider::{Error, ErrorKind};
/// let error = Error::new(ErrorKind::NotFound, "record", "sandbox/abc").operation("get").adapter("sqlite");
/// assert_eq!(error.to_string(), "sqlite: get record `sandbox/abc`: not found");
/// ```
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    resource: &'static str,
    id: Box<str>,
    operation: &'static str,
    adapter: &'static str,
    detail: Option<Box<str>>,
    retry: Retry,
    source: Option<Source>,
}

/// What a caller may branch on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The resource does not exist.
    NotFound,
    /// It exists, and the call asked for it not to.
    AlreadyExists,
    /// A precondition did not hold: somebody else was first. Nothing was changed.
    Conflict,
    /// This adapter cannot do that, ever.
    Unsupported,
    /// The backend cannot be reached or refuses work now.
    Unavailable,
    /// The backend did not answer in time: the call may or may not have taken effect.
    Timeout,
    /// The backend refused the credentials, or the operating system the access.
    PermissionDenied,
    /// The request itself is wrong: repeating it cannot help.
    InvalidInput,
    /// What was stored is not what was written.
    Corrupt,
    /// A fault of the adapter or of the backend that no other kind names.
    Internal,
}

/// Whether the same call may succeed later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The same call gives the same answer.
    Never,
    /// The cause may pass. An idempotent call may be repeated.
    Later,
    /// The same, and the backend said how long to wait.
    After(Duration),
}

impl Error {
    /// An error about the `id` of a `resource` type. The retry hint follows from the kind: `Unavailable` and
    /// `Timeout` are worth another try, the rest is not.
    pub fn new(kind: ErrorKind, resource: &'static str, id: impl Into<String>) -> Self {
        Self {
            kind,
            resource,
            id: id.into().into_boxed_str(),
            operation: "",
            adapter: "",
            detail: None,
            retry: kind.default_retry(),
            source: None,
        }
    }

    /// The same place, another kind; the retry hint follows.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.kind = kind;
        self.retry = kind.default_retry();
        self
    }

    /// Names the operation that failed, as the trait calls it.
    #[must_use]
    pub fn operation(mut self, operation: &'static str) -> Self {
        self.operation = operation;
        self
    }

    /// Names the adapter that failed.
    #[must_use]
    pub fn adapter(mut self, adapter: &'static str) -> Self {
        self.adapter = adapter;
        self
    }

    /// Says what was wrong and how to mend it, for a person. Must hold no secret.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into().into_boxed_str());
        self
    }

    /// Overrides the retry hint.
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// Keeps the cause.
    #[must_use]
    pub fn source(mut self, source: impl Into<Source>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What to branch on.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Type of the resource, for example `record`.
    pub fn resource(&self) -> &'static str {
        self.resource
    }

    /// Which one.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The trait's method that failed; empty when it was not said.
    pub fn failed_operation(&self) -> &'static str {
        self.operation
    }

    /// The adapter that failed; empty when it was not said.
    pub fn failed_adapter(&self) -> &'static str {
        self.adapter
    }

    /// What was wrong, for a person.
    pub fn detail_text(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// Whether trying again can help.
    pub fn retry_hint(&self) -> Retry {
        self.retry
    }

    /// True if the cause may pass by itself.
    pub fn is_retryable(&self) -> bool {
        self.retry != Retry::Never
    }
}

impl ErrorKind {
    fn default_retry(self) -> Retry {
        match self {
            Self::Unavailable | Self::Timeout => Retry::Later,
            _ => Retry::Never,
        }
    }

    /// The kind in words, as `Display` of the error shows it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not found",
            Self::AlreadyExists => "already exists",
            Self::Conflict => "conflict",
            Self::Unsupported => "unsupported",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timed out",
            Self::PermissionDenied => "permission denied",
            Self::InvalidInput => "invalid input",
            Self::Corrupt => "corrupt",
            Self::Internal => "internal error",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.adapter.is_empty() {
            write!(f, "{}: ", self.adapter)?;
        }
        if !self.operation.is_empty() {
            write!(f, "{} ", self.operation)?;
        }
        write!(f, "{} `{}`: {}", self.resource, self.id, self.kind)?;
        match &self.detail {
            Some(detail) => write!(f, ": {detail}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source.as_ref() as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_names_all_parts_once_and_never_the_source() {
        let error = Error::new(ErrorKind::Unavailable, "lease", "node-1")
            .operation("renew")
            .adapter("postgres")
            .detail("no connection within 5 s")
            .source("secret of the driver");
        assert_eq!(
            error.to_string(),
            "postgres: renew lease `node-1`: unavailable: no connection within 5 s"
        );
        assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "secret of the driver");
    }

    #[test]
    fn only_passing_faults_are_retryable_unless_said_otherwise() {
        let kinds = [ErrorKind::Conflict, ErrorKind::InvalidInput, ErrorKind::Corrupt, ErrorKind::Internal];
        assert!(kinds.iter().all(|kind| !Error::new(*kind, "record", "x").is_retryable()));
        assert!(Error::new(ErrorKind::Timeout, "record", "x").is_retryable());
        let told = Error::new(ErrorKind::Conflict, "record", "x").retry(Retry::After(Duration::from_secs(1)));
        assert_eq!(told.retry_hint(), Retry::After(Duration::from_secs(1)));
    }
}
