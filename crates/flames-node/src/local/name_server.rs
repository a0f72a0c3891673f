//! Tells a guest whom to ask for names: an image names nobody, so that lookups fail at once where nothing is reached.

use crate::net::HOST_IP;
use crate::{EgressPolicy, GuestClient, GuestResult, WriteFile};
use bytes::Bytes;
use futures::StreamExt;
use std::time::Duration;

/// Where programs look for servers.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// A guest that does not take a line within this time has other troubles.
const DEADLINE: Duration = Duration::from_secs(5);

/// Makes the node's resolver the guest's, if its policy has names at all. A guest that does not take it runs without:
/// what it may reach by address it reaches.
pub(super) async fn tell(guest: &GuestClient, policy: &EgressPolicy) {
    if !policy.resolves() {
        return;
    }
    match tokio::time::timeout(DEADLINE, write(guest)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "a guest does not know whom to ask for names"),
        Err(_) => tracing::warn!("a guest was not told in time whom to ask for names"),
    }
}

async fn write(guest: &GuestClient) -> GuestResult<()> {
    if put(guest).await.is_ok() {
        return Ok(());
    }
    // A link to a file of a service that does not run here.
    guest.remove(RESOLV_CONF, Some("root")).await?;
    put(guest).await
}

async fn put(guest: &GuestClient) -> GuestResult<()> {
    let file = WriteFile { path: RESOLV_CONF.to_owned(), user: Some("root".to_owned()) };
    let line = Bytes::from(format!("nameserver {HOST_IP}\n"));
    guest.write_file(&file, futures::stream::iter([Ok(line)]).boxed()).await.map(drop)
}
