//! Look at sandboxes, and the small changes that leave their state alone.

use crate::SandboxId;
use crate::plane::ControlPlane;
use crate::sandbox::admit::{Timeout, timeout};
use crate::sandbox::error::{InvalidRequest, LifecycleError};
use crate::sandbox::record::Sandbox;
use crate::sandbox::state::State;
use flames_node::AccessToken;
use jiff::Timestamp;
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// Which sandboxes to list. What is not set does not filter.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only in one of these states; empty is any.
    pub states: Vec<State>,
    /// Only of this template.
    pub template: Option<String>,
    /// Only with all of these labels.
    pub metadata: BTreeMap<String, String>,
    /// Only created at this moment or later.
    pub created_since: Option<Timestamp>,
    /// Which come first.
    pub order: Order,
}

/// Which sandboxes come first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Those created last.
    #[default]
    NewestFirst,
    /// Those created first.
    OldestFirst,
}

/// Some sandboxes, in the order that was asked for.
#[derive(Clone, Debug)]
pub struct Page {
    /// At most as many as were asked for.
    pub sandboxes: Vec<Sandbox>,
    /// Where the next page starts; `None` on the last.
    pub next: Option<Cursor>,
}

/// The place behind the last sandbox of a page. Stays right while others are created and destroyed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    created_at: Timestamp,
    id: SandboxId,
}

/// The most sandboxes of one page.
pub const MAX_PAGE: usize = 1000;

impl ControlPlane {
    /// One sandbox.
    ///
    /// # Errors
    /// `NotFound` when nobody knows it.
    pub async fn get(&self, id: &SandboxId) -> Result<Sandbox, LifecycleError> {
        Ok(self.records.load(id).await?.sandbox)
    }

    /// The sandboxes that pass `filter`, `limit` of them from behind `after`.
    ///
    /// # Errors
    /// `Invalid` for a limit of 0 or above [`MAX_PAGE`].
    pub async fn list(
        &self,
        filter: &Filter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page, LifecycleError> {
        if !(1..=MAX_PAGE).contains(&limit) {
            return Err(InvalidRequest::new("limit", format!("must be 1 to {MAX_PAGE}")).into());
        }
        Ok(page(self.passing(filter).await?, filter.order, after, limit))
    }

    /// All sandboxes that pass `filter`, in its order. Each page of [`ControlPlane::list`] reads all records: whoever wants
    /// every sandbox reads them once.
    ///
    /// # Errors
    /// What the store answers.
    pub async fn list_all(&self, filter: &Filter) -> Result<Vec<Sandbox>, LifecycleError> {
        Ok(page(self.passing(filter).await?, filter.order, None, usize::MAX).sandboxes)
    }

    async fn passing(&self, filter: &Filter) -> Result<Vec<Sandbox>, LifecycleError> {
        let all = self.records.all().await?.into_iter().map(|stored| stored.sandbox);
        Ok(all.filter(|sandbox| filter.passes(sandbox)).collect())
    }

    /// Sets when a sandbox ends, counted from now; for one that rests in a snapshot, from its resume on.
    ///
    /// # Errors
    /// `Invalid` past the limit; `NotRunning` for one that has no end any more.
    pub async fn set_timeout(&self, id: &SandboxId, asked: Timeout) -> Result<Sandbox, LifecycleError> {
        let (whole, now) = (timeout(&self.limits, Some(asked))?, self.clock.now());
        let stored = self
            .records
            .update(id, |sandbox| {
                must_live(sandbox)?;
                match sandbox.state {
                    // Its clock stands still: it has this much when it comes back.
                    State::Snapshotted => sandbox.left_ms = whole.as_millis(),
                    _ => sandbox.ends_at = whole.ends_at(now),
                }
                Ok(())
            })
            .await?;
        self.touch(id);
        self.watch_end(&stored.sandbox);
        Ok(stored.sandbox)
    }

    /// Puts the end of a sandbox off, counted from now. One that ends later anyway stays as it is.
    ///
    /// # Errors
    /// As [`ControlPlane::set_timeout`].
    pub async fn extend_timeout(&self, id: &SandboxId, asked: Timeout) -> Result<Sandbox, LifecycleError> {
        let (whole, now) = (timeout(&self.limits, Some(asked))?, self.clock.now());
        let stored = self
            .records
            .update(id, |sandbox| {
                must_live(sandbox)?;
                match sandbox.state {
                    State::Snapshotted => sandbox.left_ms = longer(sandbox.left_ms, whole.as_millis()),
                    _ => sandbox.ends_at = longer(sandbox.ends_at, whole.ends_at(now)),
                }
                Ok(())
            })
            .await?;
        self.touch(id);
        self.watch_end(&stored.sandbox);
        Ok(stored.sandbox)
    }

    /// The token that clients of this sandbox present to its agent.
    pub fn access_token(&self, id: &SandboxId) -> AccessToken {
        self.tokens.access(id)
    }

    /// The token that clients of its servers present, if its traffic needs one.
    pub fn traffic_token(&self, id: &SandboxId) -> AccessToken {
        self.tokens.traffic(id)
    }

    /// Remembers how long the first command took, if none was remembered yet.
    ///
    /// # Errors
    /// What the store answers.
    pub async fn record_first_command(&self, id: &SandboxId, took_ms: f64) -> Result<(), LifecycleError> {
        if self.get(id).await?.timings.first_command_ms.is_some() {
            return Ok(());
        }
        self.monitor.first_command(took_ms);
        let remember = |sandbox: &mut Sandbox| {
            sandbox.timings.first_command_ms.get_or_insert(took_ms);
            Ok(())
        };
        self.records.update(id, remember).await.map(drop)
    }
}

impl Filter {
    fn passes(&self, sandbox: &Sandbox) -> bool {
        let label = |(name, value): (&String, &String)| sandbox.metadata.get(name) == Some(value);
        (self.states.is_empty() || self.states.contains(&sandbox.state))
            && self.template.as_ref().is_none_or(|name| name == sandbox.template.as_str())
            && self.metadata.iter().all(label)
            && self.created_since.is_none_or(|since| sandbox.created_at >= since)
    }
}

impl Cursor {
    /// As text that a client hands back unchanged.
    pub fn encode(&self) -> String {
        format!("{}.{}", self.created_at.as_microsecond(), self.id)
    }

    /// # Errors
    /// [`InvalidRequest`] for text that [`Cursor::encode`] never wrote.
    pub fn decode(text: &str) -> Result<Self, InvalidRequest> {
        let parse = || {
            let (created_at, id) = text.split_once('.')?;
            let created_at = Timestamp::from_microsecond(created_at.parse().ok()?).ok()?;
            Some(Self { created_at, id: SandboxId::parse(id).ok()? })
        };
        parse().ok_or_else(|| InvalidRequest::new("cursor", "take it from `next` of the page before"))
    }

    fn of(sandbox: &Sandbox) -> Self {
        Self { created_at: sandbox.created_at, id: sandbox.id.clone() }
    }
}

/// By the time of creation; the id decides between two of the same microsecond.
fn page(mut found: Vec<Sandbox>, order: Order, after: Option<&Cursor>, limit: usize) -> Page {
    let in_order = |ordering: Ordering| match order {
        Order::NewestFirst => ordering.reverse(),
        Order::OldestFirst => ordering,
    };
    found.sort_by(|a, b| in_order((a.created_at, &a.id).cmp(&(b.created_at, &b.id))));
    if let Some(after) = after {
        let place = (after.created_at, &after.id);
        found.retain(|sandbox| in_order((sandbox.created_at, &sandbox.id).cmp(&place)).is_gt());
    }
    let more = found.len() > limit;
    found.truncate(limit);
    Page { next: found.last().filter(|_| more).map(Cursor::of), sandboxes: found }
}

/// `None` is never.
fn longer<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
    Some(one?.max(other?))
}

fn must_live(sandbox: &Sandbox) -> Result<(), LifecycleError> {
    match sandbox.state {
        State::Running | State::Paused | State::Snapshotted => Ok(()),
        state => Err(LifecycleError::NotRunning { id: sandbox.id.clone(), state }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_the_client_and_a_made_up_one_is_refused() {
        let cursor =
            Cursor { created_at: Timestamp::from_microsecond(1_234).unwrap(), id: SandboxId::random() };
        assert_eq!(Cursor::decode(&cursor.encode()), Ok(cursor));
        for bad in ["", "12", "x.abc", "12.A", "99999999999999999999.abc"] {
            assert_eq!(Cursor::decode(bad).unwrap_err().field, "cursor", "{bad}");
        }
    }
}
