//! The task: connects, runs the session, waits, and begins again until it is closed.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use crate::net::Connector;
use crate::secret::Secret;

use super::backoff::{Backoff, Pace};
use super::channel::{Error, Outgoing};
use super::session::End;
use super::socket::{self, Loss};
use super::subscription::Subscription;
use super::{Credentials, Mailbox, Options, Status};

/// A broadcast that waits for its acknowledgement.
pub(super) struct Awaited {
    pub(super) until: Instant,
    pub(super) done: oneshot::Sender<Result<(), Error>>,
}

pub(super) struct Driver {
    pub(super) options: Arc<Options>,
    connector: Connector,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) outgoing: mpsc::Receiver<Outgoing>,
    pub(super) credentials: watch::Receiver<Credentials>,
    status: watch::Sender<Status>,
    pub(super) laps: Box<dyn FnMut() -> Duration + Send>,
    pub(super) channels: Vec<Subscription>,
    pub(super) awaited: HashMap<String, Awaited>,
    references: u64,
    backoff: Backoff,
}

/// What interrupts who waits without a connection.
enum Interruption {
    Close,
    Again,
}

impl Driver {
    pub(super) fn new(
        options: Arc<Options>,
        connector: Connector,
        mailbox: Arc<Mailbox>,
        outgoing: mpsc::Receiver<Outgoing>,
        credentials: watch::Receiver<Credentials>,
        status: watch::Sender<Status>,
        laps: Box<dyn FnMut() -> Duration + Send>,
    ) -> Self {
        let backoff = Backoff::new(options.retry);
        Self {
            options,
            connector,
            mailbox,
            outgoing,
            credentials,
            status,
            laps,
            channels: Vec::new(),
            awaited: HashMap::new(),
            references: 0,
            backoff,
        }
    }

    pub(super) async fn run(mut self) {
        while let Some(loss) = self.connection().await {
            let pause = self.backoff.after_loss(loss.pace).max(loss.wait);
            self.report(loss, pause);
            tokio::select! {
                () = sleep(pause) => {}
                interruption = self.interruption() => match interruption {
                    Interruption::Close => break,
                    Interruption::Again => {}
                },
            }
        }
        self.channels.iter_mut().for_each(Subscription::close);
        // Whoever opened one too late is told as well.
        self.mailbox.take().open.iter_mut().for_each(Subscription::close);
        self.status.send_replace(Status::Closed);
    }

    /// One connection from its first byte to its last; how it was lost, or nothing if it was closed.
    async fn connection(&mut self) -> Option<Loss> {
        self.status.send_replace(Status::Connecting);
        let key = self.credentials.borrow_and_update().key.clone();
        let url = self.options.request(&key);
        let opening = socket::open(self.connector.clone(), url, self.options.connect);
        tokio::pin!(opening);
        let mut again = false;
        let opened = loop {
            tokio::select! {
                opened = &mut opening => break opened,
                interruption = self.interruption() => match interruption {
                    Interruption::Close => return None,
                    Interruption::Again => again = true,
                },
            }
        };
        if again {
            // What changed under way serves the next attempt. Not sooner: it would interrupt this one for ever.
            self.credentials.mark_changed();
        }
        let (mut socket, route) = match opened {
            Ok(opened) => opened,
            Err(loss) => return Some(loss),
        };
        debug!("Connected to Realtime at {}", self.options.url);
        self.status.send_replace(Status::Connected);
        let opened = Instant::now();
        let end = self.session(&mut socket, route).await;
        let now = Instant::now();
        if now.duration_since(opened) >= self.options.steady * 4 {
            self.backoff.reset(); // whatever became of its channels, the server is well
        }
        let reason = match &end {
            End::Lost(loss) => self.redacted(&loss.reason),
            End::Closed => "the client was closed".to_owned(),
        };
        for channel in &mut self.channels {
            if channel.disconnected(&reason, now, self.options.steady) {
                self.backoff.reset();
            }
        }
        for (_, awaited) in self.awaited.drain() {
            let _ = awaited.done.send(Err(Error::Lost));
        }
        match end {
            End::Lost(loss) => Some(loss),
            End::Closed => None,
        }
    }

    fn report(&self, loss: Loss, pause: Duration) {
        let message = self.redacted(&loss.reason);
        let url = &self.options.url;
        self.status.send_replace(match loss.status {
            Some(status) => {
                warn!(status, "Realtime at {url} refuses the connection: {message}");
                Status::Refused { status, message, retry_in: pause }
            }
            None => {
                info!(error = message, "Lost Realtime at {url}, trying again in {pause:?}");
                Status::Lost { error: message, retry_in: pause }
            }
        });
    }

    /// What handles want while there is no connection. Ends only with what cannot wait. Cancel-safe:
    /// whatever was taken was done.
    async fn interruption(&mut self) -> Interruption {
        loop {
            tokio::select! {
                () = self.mailbox.changed.notified() => {
                    let wishes = self.mailbox.take();
                    self.open(wishes.open);
                    self.forget_left();
                    if wishes.close {
                        return Interruption::Close;
                    }
                    if wishes.check {
                        return Interruption::Again;
                    }
                }
                outgoing = self.outgoing.recv() => match outgoing {
                    Some(outgoing) => {
                        let _ = outgoing.done.send(Err(Error::NotJoined));
                    }
                    None => return Interruption::Close,
                },
                Ok(()) = self.credentials.changed() => return Interruption::Again,
            }
        }
    }

    /// Takes new channels on; each replaces one of the same topic.
    pub(super) fn open(&mut self, opened: Vec<Subscription>) {
        for new in opened {
            if let Some(at) = self.channels.iter().position(|old| old.topic == new.topic) {
                self.channels.swap_remove(at).close();
            }
            self.channels.push(new);
        }
    }

    /// Takes out the channels whose handles are gone.
    pub(super) fn forget_left(&mut self) -> Vec<Subscription> {
        let gone = |channel: &mut Subscription| channel.port.left.load(Ordering::Acquire);
        let mut left: Vec<_> = self.channels.extract_if(.., gone).collect();
        left.iter_mut().for_each(|channel| channel.port.queue.close());
        left
    }

    pub(super) fn reference(&mut self) -> String {
        self.references += 1;
        self.references.to_string()
    }

    /// What a server said, without our own secrets in it.
    pub(super) fn redacted(&self, text: &str) -> String {
        let credentials = self.credentials.borrow();
        let secrets = [Some(&credentials.key), credentials.token.as_ref()];
        secrets
            .into_iter()
            .flatten()
            .filter(|secret| !secret.is_empty())
            .fold(text.to_owned(), |text, secret: &Secret| {
                text.replace(secret.expose(), "[redacted]")
            })
    }
}

/// A server that wants less of something gets the longest pause.
pub(super) fn pace_of(reason: &str) -> Pace {
    if reason.contains("RateLimit") { Pace::Slow } else { Pace::Usual }
}
