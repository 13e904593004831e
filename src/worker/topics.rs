//! The topics of a worker, which may come and go while it runs.

use tokio_util::sync::CancellationToken;

use crate::bus::Bus;
use crate::identity::Role;
use crate::live::{Live, Setter};
use crate::message::Topic;

/// More than this a claim does not take (`bus_claim`).
const MOST: usize = 1000;

/// What a worker is to claim.
#[derive(Debug, Clone)]
pub(super) struct Topics {
    /// The role of all of them; known also while there is none.
    pub(super) role: String,
    wanted: Live<Vec<Topic>>,
}

impl Topics {
    pub(super) fn fixed(topics: Vec<Topic>) -> Self {
        let role = topics.first().map_or_else(String::new, |topic| topic.role().to_owned());
        Self { role, wanted: topics.into() }
    }

    pub(super) fn new(role: &str, wanted: Live<Vec<Topic>>) -> Self {
        Self { role: role.to_owned(), wanted }
    }

    pub(super) fn now(&self) -> Vec<Topic> {
        self.wanted.get().to_vec()
    }

    /// Has the bus tell of what is claimed, from now until `stop`, and passes on what has changed: without what
    /// the key does not allow, for which the bus would refuse all the others as well.
    pub(super) async fn follow(
        mut self,
        bus: Bus,
        tenant: String,
        claimed: Setter<Vec<Topic>>,
        stop: CancellationToken,
    ) {
        let mut before = self.now();
        bus.follow(&tenant, &before);
        loop {
            tokio::select! {
                () = self.wanted.changed() => {}
                () = stop.cancelled() => return,
            }
            let allowed = self.allowed(&bus, &tenant);
            let gone: Vec<_> =
                before.iter().filter(|topic| !allowed.contains(topic)).cloned().collect();
            bus.unfollow(&tenant, &gone);
            let new: Vec<_> =
                allowed.iter().filter(|topic| !before.contains(topic)).cloned().collect();
            bus.follow(&tenant, &new);
            before.clone_from(&allowed);
            claimed.set(allowed);
        }
    }

    fn allowed(&self, bus: &Bus, tenant: &str) -> Vec<Topic> {
        let mut topics = self.now();
        if let Some(claims) = bus.claims().filter(|claims| claims.role != Role::ServiceRole) {
            topics.retain(|topic| {
                let may = claims.may_claim(tenant, topic);
                if !may {
                    tracing::error!(
                        message.topic = %topic,
                        "The key may not claim topic {topic}, which stays with others; get a key with `cogo \
                         token mint --topic {topic}` and the other topics of this worker"
                    );
                }
                may
            });
        }
        if topics.len() > MOST {
            tracing::error!("A worker claims at most {MOST} topics; the others stay with others");
            topics.truncate(MOST);
        }
        topics
    }
}
