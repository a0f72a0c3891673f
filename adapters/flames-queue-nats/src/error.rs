//! What the client and the server say, in the words of the interface.

use async_nats::jetstream::context::{
    CreateStreamError, PublishError, PublishErrorKind, RequestError, RequestErrorKind,
};
use async_nats::jetstream::stream::{ConsumerError, LastRawMessageError, LastRawMessageErrorKind};
use flames_queue::{Error, ErrorKind, JobId};

pub(crate) const ADAPTER: &str = "nats";

type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why a step failed, before it is known what the call was about.
#[derive(Debug)]
pub(crate) enum Fault {
    /// Somebody else changed it first.
    Moved,
    /// The server cannot be reached, or has no JetStream (yet).
    Unreachable(Source),
    /// No answer in time.
    Silent(Source),
    /// The server refused the step.
    Refused(Source),
    /// Something stored is not what this program writes.
    Corrupt(Source),
}

pub(crate) type Step<T> = std::result::Result<T, Fault>;

impl Fault {
    pub(crate) fn about(self, operation: &'static str, id: &str) -> Error {
        let (kind, detail, source) = match self {
            Self::Moved => return lost(operation, &JobId::new(id)),
            Self::Unreachable(source) => (
                ErrorKind::Unavailable,
                "the server cannot be reached, or JetStream is not enabled on it",
                source,
            ),
            Self::Silent(source) => (ErrorKind::Timeout, "the server did not answer", source),
            Self::Refused(source) => (ErrorKind::Internal, "the server refused", source),
            Self::Corrupt(source) => {
                (ErrorKind::Corrupt, "a stream holds what no version of this program writes", source)
            }
        };
        Error::new(kind, "queue", id).operation(operation).adapter(ADAPTER).detail(detail).source(source)
    }
}

pub(crate) fn corrupt(error: impl Into<Source>) -> Fault {
    Fault::Corrupt(error.into())
}

impl From<PublishError> for Fault {
    fn from(error: PublishError) -> Self {
        match error.kind() {
            PublishErrorKind::WrongLastSequence => Self::Moved,
            PublishErrorKind::StreamNotFound | PublishErrorKind::BrokenPipe => {
                Self::Unreachable(error.into())
            }
            PublishErrorKind::TimedOut | PublishErrorKind::MaxAckPending => Self::Silent(error.into()),
            _ => Self::Refused(error.into()),
        }
    }
}

impl From<RequestError> for Fault {
    fn from(error: RequestError) -> Self {
        match error.kind() {
            RequestErrorKind::NoResponders => Self::Unreachable(error.into()),
            RequestErrorKind::TimedOut => Self::Silent(error.into()),
            _ => Self::Refused(error.into()),
        }
    }
}

impl From<LastRawMessageError> for Fault {
    fn from(error: LastRawMessageError) -> Self {
        match error.kind() {
            // The client folds "no answer" into this kind; the server's refusals have kinds of their own.
            LastRawMessageErrorKind::Other => Self::Silent(error.into()),
            _ => Self::Refused(error.into()),
        }
    }
}

/// Errors of making streams and consumers: the server refuses for good, or could not be asked.
macro_rules! setup_errors {
    ($($error:ty),+) => {$(
        impl From<$error> for Fault {
            fn from(error: $error) -> Self {
                let told = error.to_string();
                if told.contains("timed out") { Self::Silent(error.into()) } else { Self::Refused(error.into()) }
            }
        }
    )+};
}
setup_errors!(CreateStreamError, ConsumerError);

pub(crate) fn lost(operation: &'static str, job: &JobId) -> Error {
    Error::new(ErrorKind::Conflict, "lease", job.as_str())
        .operation(operation)
        .adapter(ADAPTER)
        .detail("the lease has expired or was settled")
}

pub(crate) fn no_dead(operation: &'static str, job: &JobId) -> Error {
    Error::new(ErrorKind::NotFound, "dead letter", job.as_str()).operation(operation).adapter(ADAPTER)
}
