//! Label sets. Every label has a fixed set of values, or one that `names` bounds.

use prometheus_client::encoding::EncodeLabelSet;
use std::sync::Arc;

/// How a create ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The sandbox was handed out.
    Ok,
    /// The request was wrong: nobody could have met it. Does not count against the success rate.
    Rejected,
    /// The host had no room, or the daemon was shutting down.
    Refused,
    /// Something broke.
    Failed,
}

/// What can be done to a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// It is made. Timed in families of its own, see [`crate::Metrics::created`].
    Create,
    /// Its virtual CPUs are stopped, or its memory goes to disk.
    Pause,
    /// It goes on.
    Resume,
    /// It is captured.
    Snapshot,
    /// Sandboxes are made from it while it runs.
    Fork,
    /// It ends.
    Destroy,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Ok, Self::Rejected, Self::Refused, Self::Failed];

    /// As in the label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Rejected => "rejected",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

impl Operation {
    /// As in the label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Snapshot => "snapshot",
            Self::Fork => "fork",
            Self::Destroy => "destroy",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Stage {
    pub(crate) stage: &'static str,
    pub(crate) path: &'static str,
    pub(crate) template: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Way {
    pub(crate) path: &'static str,
    pub(crate) level: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct InPool {
    pub(crate) template: Arc<str>,
    pub(crate) strategy: &'static str,
    pub(crate) path: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct AtLevel {
    pub(crate) level: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Ended {
    pub(crate) outcome: &'static str,
    /// The kind of the error; `none` for a create that went well.
    pub(crate) error: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Of {
    pub(crate) operation: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OperationEnded {
    pub(crate) operation: &'static str,
    /// `ok`, or the kind of the error.
    pub(crate) outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct InState {
    pub(crate) state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Kind {
    pub(crate) kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Request {
    pub(crate) method: &'static str,
    /// As the router knows it: `/v1/sandboxes/{id}`, never with an id in it.
    pub(crate) route: Arc<str>,
    pub(crate) status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Route {
    pub(crate) method: &'static str,
    pub(crate) route: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct AlertTurn {
    pub(crate) rule: Arc<str>,
    /// `firing` or `resolved`.
    pub(crate) state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Told {
    /// `delivered` or `failed`.
    pub(crate) outcome: &'static str,
}
