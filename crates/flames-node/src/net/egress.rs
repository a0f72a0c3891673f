//! What one guest may reach, carried out: its policy's rules in the namespace, the way out once there is one, and the
//! services that a policy about names needs.
//!
//! A change is one transaction of the namespace's own firewall, so it costs the same however many others there are,
//! and no packet sees half of it. Connections that stay allowed do not notice; of the others the next packet is the
//! last. The rules stay when this program ends: a restarted daemon takes the slot up again with [`Egress::adopt`].

use super::firewall::{self, Way};
use super::slot::{Slot, Unwanted, enter, on_own_thread};
use super::{Dialer, nft};
use flames_egress::{Carried, Count, EgressPolicy, Observed};
use flames_vmm::{Error, ErrorKind, Result};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;

/// The egress of one guest. It changes nothing when it is dropped: the rules are the namespace's.
#[derive(Debug)]
pub(crate) struct Egress {
    slot: Slot,
    dialer: Dialer,
    policy: watch::Sender<Arc<EgressPolicy>>,
    /// One change at a time, and what it finds.
    state: Mutex<State>,
    stop: CancellationToken,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// Whether the slot has its pair of links.
    linked: bool,
}

/// What passed and what did not, since the sandbox's network was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct EgressFigures {
    /// By counter, those of [`flames_egress::counter`] and of the frames that were no honest guest's.
    pub counters: BTreeMap<String, Count>,
    /// Bytes that count against a budget.
    pub budget_used: u64,
}

impl Egress {
    /// The egress of a slot that nobody had yet: nothing is allowed.
    pub(crate) fn new(slot: Slot, dialer: Dialer) -> Self {
        let policy = watch::Sender::new(Arc::new(EgressPolicy::default()));
        Self { slot, dialer, policy, state: Mutex::default(), stop: CancellationToken::new() }
    }

    /// The egress of a slot that an earlier daemon made, with the policy that it had.
    ///
    /// # Errors
    /// Those of [`Egress::change`].
    pub(crate) async fn adopt(slot: Slot, dialer: Dialer, policy: EgressPolicy) -> Result<Self> {
        let linked = slot.is_connected().await?;
        let egress = Self::new(slot, dialer);
        egress.state.lock().await.linked = linked;
        egress.change(policy).await?;
        Ok(egress)
    }

    /// What the guest may reach now.
    pub(crate) fn policy(&self) -> Arc<EgressPolicy> {
        Arc::clone(&self.policy.borrow())
    }

    /// Lets the guest reach what a policy allows, from now on and in connections that are open. What was counted and
    /// used stays.
    ///
    /// # Errors
    /// `Unavailable` when the host forwards nothing, has no address left, or does not take the rules; then the policy
    /// before holds.
    pub(crate) async fn change(&self, policy: EgressPolicy) -> Result<()> {
        let mut state = self.state.lock().await;
        let way = if policy.is_sealed() { Way::Closed } else { Way::Open };
        if way == Way::Open && !state.linked {
            self.slot.connect().await?;
            state.linked = true;
        }
        if state.linked {
            replace_rules(self.slot.namespace(), policy.clone(), way).await?;
        }
        self.policy.send_replace(Arc::new(policy));
        Ok(())
    }

    /// What passed so far, and what did not.
    ///
    /// # Errors
    /// `Unavailable` when the namespace does not tell.
    pub(crate) async fn figures(&self) -> Result<EgressFigures> {
        let namespace = self.slot.namespace();
        on_own_thread(move || {
            enter_slot(&namespace)?;
            read_figures()
        })
        .await
    }

    /// Ends what serves the guest. The rules stay until the slot goes.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }
}

impl Unwanted for EgressFigures {
    fn discard(self) {}
}

/// Replaces a namespace's rules by those of a policy, and takes over what was counted and admitted.
async fn replace_rules(namespace: Arc<File>, policy: EgressPolicy, way: Way) -> Result<()> {
    on_own_thread(move || {
        enter_slot(&namespace)?;
        nft::apply(&firewall::policy_rules(&policy, way, carried()?))
    })
    .await
}

/// What the rules of the calling thread's namespace hold that new ones take over.
fn carried() -> Result<Carried> {
    let listing = nft::list_table("inet", firewall::TABLE)?;
    let observed = Observed::read(&listing).map_err(|error| {
        Error::new(ErrorKind::Corrupt, "firewall", firewall::TABLE).operation("list").source(error)
    })?;
    Ok(observed.carried)
}

fn read_figures() -> Result<EgressFigures> {
    let Carried { mut counters, budget_used, .. } = carried()?;
    for object in nft::list(&["counters", "netdev"])? {
        let counter = &object["counter"];
        let (Some(name), Some(packets), Some(bytes)) =
            (counter["name"].as_str(), counter["packets"].as_u64(), counter["bytes"].as_u64())
        else {
            continue;
        };
        let count = counters.entry(name.to_owned()).or_default();
        count.packets += packets;
        count.bytes += bytes;
    }
    Ok(EgressFigures { counters, budget_used })
}

fn enter_slot(namespace: &File) -> Result<()> {
    enter(namespace.as_fd()).map_err(|error| crate::paths::io_error("network slot", "", "enter", error))
}
