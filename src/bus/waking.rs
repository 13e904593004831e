//! When to look again: what wakes, whom this process wakes, and how long to wait where nothing does.

use std::sync::Weak;
use std::time::Duration;

use crate::bus::take::Take;
use crate::bus::transport::{Pace, Want};
use crate::bus::wake::Hear;
use crate::bus::{Bus, Signal, Waker};
use crate::message::Topic;

impl Bus {
    /// A waker for `signal`, armed from now on. For [`Signal::Work`] see also [`Bus::follow`].
    #[must_use]
    pub fn waker(&self, signal: Signal) -> Waker {
        match signal {
            Signal::Log => self.transport().want(Want::Log),
            Signal::Circuit => self.transport().want(Want::Circuit),
            Signal::Work | Signal::Claims | Signal::Link | Signal::Due | Signal::Env => {}
        }
        self.core.wake.waker(signal)
    }

    /// Has [`Signal::Work`] tell of messages to `topics` of `tenant` that other processes make claimable. Without
    /// it a bus over HTTPS tells of what this process does alone.
    pub fn follow(&self, tenant: &str, topics: &[Topic]) {
        for topic in topics {
            self.transport().want(Want::Work {
                tenant: tenant.to_owned(),
                role: topic.role().to_owned(),
                service: topic.service().to_owned(),
            });
        }
    }

    /// Ends what [`Bus::follow`] asked for, of these topics.
    pub(crate) fn unfollow(&self, tenant: &str, topics: &[Topic]) {
        for topic in topics {
            self.transport().forget(&Want::Work {
                tenant: tenant.to_owned(),
                role: topic.role().to_owned(),
                service: topic.service().to_owned(),
            });
        }
    }

    /// How long to wait before looking again when nothing wakes us; another time at each call, and longer where
    /// a look costs a request over the internet.
    #[must_use]
    pub fn pause(&self) -> Duration {
        self.pace().pause()
    }

    pub(crate) fn pace(&self) -> Pace {
        self.transport().pace()
    }

    pub(crate) fn wake(&self, signal: Signal) {
        self.core.wake.wake(signal);
    }

    /// Says that a call was given up which should have been answered by then.
    pub(crate) fn unanswered(&self) {
        self.transport().unanswered();
    }

    /// Wakes other processes now. For a process that ends after a publish: otherwise wake-ups are sent
    /// soon after the call, by a task that would end with it, and the others would find the work only
    /// when they next poll.
    pub async fn wake_others(&self) {
        self.transport().wake_others().await;
    }

    /// Whether another process told of the log since this was last asked.
    pub(crate) fn is_from_afar(&self) -> bool {
        self.core.wake.is_from_afar()
    }

    /// Waits for the log to have grown by what all who wait here were told of already.
    pub(crate) fn when_grown(&self) -> Waker {
        self.core.wake.when_grown()
    }

    /// Has `hearer` hear from now on of messages that this process has settled.
    pub(crate) fn hear(&self, hearer: Weak<dyn Hear>) {
        self.core.wake.hear(hearer);
    }

    /// Has `taker` take what this process publishes, where that goes to the database that this bus is at.
    /// Whether it is at one.
    pub(crate) fn join(&self, taker: Weak<dyn Take>) -> bool {
        let is_near = self.transport().postgres().is_some();
        if is_near {
            self.core.wake.join(taker);
        }
        is_near
    }
}
