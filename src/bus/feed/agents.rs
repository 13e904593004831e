//! Following the workers: whose have come, gone or changed, and whose approvals have.

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::Feed;
use crate::bus::queries::events::Head;

/// How many changes are kept for a follower that is slow; then it is told that it missed some.
pub(super) const KEPT_CHANGES: usize = 256;

/// Tells of changes among the workers of each tenant, and of what is approved of what they offer. What has changed is
/// for the follower to look at.
#[derive(Debug)]
pub struct Agents {
    changes: broadcast::Receiver<String>,
}

/// What a change is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// This tenant's workers; those for all tenants are `*`.
    Tenant(String),
    /// Changes were missed: any tenant's.
    Any,
}

impl Feed {
    /// Follows the workers from now on.
    #[must_use]
    pub fn agents(&self) -> Agents {
        Agents { changes: self.agents.subscribe() }
    }

    /// Tells those who follow the workers, if that is what these events are of.
    pub(super) fn tell_of_agents(&self, events: &[Head]) {
        if self.agents.receiver_count() == 0 {
            return;
        }
        let mut last = None;
        for head in events {
            let is_of_agents = head.message_id.is_none()
                && (head.event_type.starts_with("agent_") || head.event_type.starts_with("tool_"));
            // Many come in a row after a hub's restart.
            if is_of_agents && last != Some(&head.tenant) {
                last = Some(&head.tenant);
                // The last one may just have gone.
                let _ = self.agents.send(head.tenant.clone());
            }
        }
    }
}

impl Agents {
    /// The next change. Pending for ever once the feed has ended. Cancel-safe.
    pub async fn next(&mut self) -> Changed {
        match self.changes.recv().await {
            Ok(tenant) => Changed::Tenant(tenant),
            Err(RecvError::Lagged(_)) => Changed::Any,
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}
