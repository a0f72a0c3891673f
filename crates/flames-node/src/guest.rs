//! The typed client of the agent inside a guest: HTTP/1.1 over connections that a [`Dial`] opens.
//!
//! Everything has a deadline and everything read is bounded: what answers is a guest, and a guest is hostile.

mod file;
mod process;
mod transport;
mod types;

pub use process::ProcessEvents;
pub use transport::Dial;
pub use types::{
    ByteStream, Entry, EntryKind, FileDownload, GuestError, GuestErrorKind, GuestMetrics, GuestResult,
    ProcessEnd, ProcessEvent, ProcessInfo, Signal, StartProcess, Stdin, TerminalSize, WriteFile,
};

use crate::AccessToken;
use flames_guest::control::{
    FREEZE_PATH, Frozen, INIT_PATH, InitRequest, InitResponse, SHUTDOWN_PATH, THAW_PATH,
};
use std::sync::Arc;
use std::time::Duration;
use transport::{Call, Transport};

pub use flames_guest::files::{Operation, Signed, signature};

/// Port of the agent in every guest.
pub const AGENT_PORT: u16 = flames_guest::PORT;

/// For calls that answer at once.
const CALL_DEADLINE: Duration = Duration::from_secs(30);
/// For calls that a guest at work may take long for (recursive removes, long listings).
const WORK_DEADLINE: Duration = Duration::from_secs(120);

/// Speaks to the agent of one run. Clones share their connections.
#[derive(Clone, Debug)]
pub struct GuestClient {
    transport: Transport,
}

impl GuestClient {
    /// A client whose connections `dial` opens and whose calls carry `token`.
    pub fn new(dial: Arc<dyn Dial>, token: AccessToken) -> Self {
        Self { transport: Transport::new(dial, token) }
    }

    /// The same over the same connections with another token.
    pub(crate) fn with_token(&self, token: AccessToken) -> Self {
        Self { transport: self.transport.with_token(token) }
    }

    /// Asks whether the agent serves.
    ///
    /// # Errors
    /// `Unavailable` when it does not.
    pub async fn health(&self) -> GuestResult<()> {
        self.transport.get("/health", CALL_DEADLINE).await
    }

    /// The handshake after a boot or a restore: time, entropy, token, environment, hostname.
    ///
    /// # Errors
    /// `Unauthenticated` for a wrong control token; `Internal` when the agent cannot do what it must.
    pub async fn init(&self, control: &AccessToken, init: &InitRequest) -> GuestResult<InitResponse> {
        self.transport.control(INIT_PATH, control, init, CALL_DEADLINE).await
    }

    /// What the guest uses at this moment.
    ///
    /// # Errors
    /// `Unavailable` when the agent does not answer.
    pub async fn metrics(&self) -> GuestResult<GuestMetrics> {
        self.transport.get_json("/metrics", CALL_DEADLINE).await
    }

    /// Writes everything out and stops all writing to the guest's disk, until [`GuestClient::thaw`] or, at the latest,
    /// [`THAW_AFTER`](flames_guest::control::THAW_AFTER). Answers what the guest's memory alone holds.
    ///
    /// # Errors
    /// `Unauthenticated` for a wrong control token; `Unimplemented` or `NotFound` by an agent that is older than this call;
    /// `Internal` for a disk that fails.
    pub(crate) async fn freeze(&self, control: &AccessToken) -> GuestResult<Frozen> {
        let empty = flames_guest::process::Empty {};
        self.transport.control(FREEZE_PATH, control, &empty, CALL_DEADLINE).await
    }

    /// Lets the guest write to its disk again.
    ///
    /// # Errors
    /// As of [`GuestClient::freeze`].
    pub(crate) async fn thaw(&self, control: &AccessToken) -> GuestResult<()> {
        let empty = flames_guest::process::Empty {};
        self.transport
            .control::<serde::de::IgnoredAny>(THAW_PATH, control, &empty, CALL_DEADLINE)
            .await
            .map(drop)
    }

    /// Asks the guest to power off.
    ///
    /// # Errors
    /// `Unauthenticated` for a wrong control token.
    pub async fn shutdown(&self, control: &AccessToken) -> GuestResult<()> {
        let empty = flames_guest::process::Empty {};
        self.transport
            .control::<serde::de::IgnoredAny>(SHUTDOWN_PATH, control, &empty, CALL_DEADLINE)
            .await
            .map(drop)
    }

    async fn call<Answer: serde::de::DeserializeOwned>(
        &self,
        method: &'static str,
        user: Option<&str>,
        request: &impl serde::Serialize,
    ) -> GuestResult<Answer> {
        self.transport.unary(Call { method, user, deadline: WORK_DEADLINE }, request).await
    }
}
