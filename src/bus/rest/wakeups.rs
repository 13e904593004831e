//! Wake-ups over Realtime: told by the server, believed about nothing.
//!
//! Of work the hub tells on a private channel for each topic, also where no event of the log does (promotions,
//! unparks), and only of that topic. Where that is refused, as by hosted Supabase, changes of `agent_messages`
//! have to do. Whatever goes wrong here is no failure of the bus: it polls, faster while nothing is heard.

mod plan;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use reqwest::Url;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use self::plan::{Line, is_refused, of_work, wakes};
use crate::bus::rest::http::Doubt;
use crate::bus::rest::key::Keyring;
use crate::bus::transport::{Pace, Want};
use crate::bus::wake::{Lines, Wake};
use crate::error::chain;
use crate::net;
use crate::realtime::{Channel, Client, Event, Options};
use crate::shutdown::Tasks;

/// Wake-ups of one bus. The connection is made when something is wanted of it.
#[derive(Debug)]
pub(super) struct Wakeups {
    inner: Arc<Inner>,
    tasks: Tasks,
    start: Mutex<Option<Start>>,
}

/// What it takes to start.
#[derive(Debug)]
struct Start {
    url: Url,
    keys: Keyring,
    net: net::Options,
    doubt: Arc<Doubt>,
    closed: CancellationToken,
}

/// Shared with the tasks that listen.
#[derive(Debug)]
struct Inner {
    lines: Arc<Lines>,
    state: Mutex<State>,
    changed: Notify,
    /// The hub was heard on a channel of its own: it is one, and reaps by itself.
    is_hub: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    wants: Vec<Want>,
    /// The private channels of the hub were refused.
    no_hub: bool,
    /// Which channels there are to be, and whether they are joined as far as they need to be.
    is_up: HashMap<Line, bool>,
}

impl Wakeups {
    pub(super) fn new(
        url: &Url,
        keys: &Keyring,
        net: &net::Options,
        doubt: &Arc<Doubt>,
        wake: &Wake,
    ) -> Self {
        let inner = Inner {
            lines: wake.lines(),
            state: Mutex::default(),
            changed: Notify::new(),
            is_hub: AtomicBool::new(false),
        };
        let start = Start {
            url: url.clone(),
            keys: keys.clone(),
            net: net.clone(),
            doubt: Arc::clone(doubt),
            closed: wake.closed(),
        };
        Self { inner: Arc::new(inner), tasks: Tasks::new(), start: Mutex::new(Some(start)) }
    }

    pub(super) fn pace(&self) -> Pace {
        let state = self.inner.state();
        let is_told = !state.is_up.is_empty() && state.is_up.values().all(|is_up| *is_up);
        // Of one that refuses its channels nothing is heard of what it reaps.
        let is_reaped = self.inner.is_hub.load(Ordering::Acquire) && !state.no_hub;
        Pace::far(is_told, is_reaped)
    }

    pub(super) fn want(&self, want: Want) {
        {
            let mut state = self.inner.state();
            if state.wants.contains(&want) {
                return;
            }
            state.wants.push(want);
            state.plan();
        }
        self.inner.changed.notify_one();
        let start = self.start.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(start) = start {
            let (inner, tasks) = (Arc::clone(&self.inner), self.tasks.clone());
            self.tasks.spawn(async move { inner.run(start, tasks).await });
        }
    }
}

impl Wakeups {
    /// Of a bus that two workers share, the one that stays polls for what the other gave up.
    pub(super) fn forget(&self, want: &Want) {
        let mut state = self.inner.state();
        state.wants.retain(|known| known != want);
        state.plan();
        drop(state);
        self.inner.changed.notify_one();
    }
}

impl State {
    /// The channels that the wants need; those that are new are not up yet.
    fn plan(&mut self) {
        let lines: Vec<Line> = of_work(&self.wants, self.no_hub)
            .into_iter()
            .chain(self.wants.contains(&Want::Log).then_some(Line::Log))
            .chain(self.wants.contains(&Want::Circuit).then_some(Line::Circuits))
            .collect();
        self.is_up.retain(|line, _| lines.contains(line));
        for line in lines {
            self.is_up.entry(line).or_insert(false);
        }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic happens under the lock, so a poisoned one is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(self: Arc<Self>, start: Start, tasks: Tasks) {
        let Start { url, keys, net, doubt, closed } = start;
        let client = match client(&url, &keys, net, &tasks) {
            Ok(client) => client,
            Err(why) => {
                tracing::warn!("No wake-ups: {why}; polling instead");
                return;
            }
        };
        let mut key = keys.watch();
        let mut listening: HashMap<Line, CancellationToken> = HashMap::new();
        loop {
            let wanted: Vec<Line> = self.state().is_up.keys().cloned().collect();
            listening.retain(|line, stop| {
                let kept = wanted.contains(line);
                if !kept {
                    stop.cancel();
                }
                kept
            });
            for line in wanted {
                let Entry::Vacant(place) = listening.entry(line) else { continue };
                let line = place.key().clone();
                let stop = closed.child_token();
                let channel = client.channel(&line.topic(), line.config());
                let (inner, doubt, until) = (Arc::clone(&self), Arc::clone(&doubt), stop.clone());
                tasks.spawn(async move { inner.listen(&line, channel, &doubt, until).await });
                place.insert(stop);
            }
            tokio::select! {
                () = self.changed.notified() => {}
                changed = key.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let new = key.borrow_and_update().clone();
                    client.set_key(keys.api_key(&new));
                    client.set_token(new);
                    // The new one may be let in where the old one was not.
                    self.with_hub();
                    // Whoever waits for another key may go on.
                    self.lines.wake_all_here();
                }
                () = doubt.raised() => client.check(),
                () = closed.cancelled() => {
                    client.close().await;
                    return;
                }
            }
        }
    }

    async fn listen(
        &self,
        line: &Line,
        mut channel: Channel,
        doubt: &Doubt,
        stop: CancellationToken,
    ) {
        loop {
            let event = tokio::select! {
                event = channel.next() => event,
                () = stop.cancelled() => return,
            };
            match event {
                Some(Event::Joined) if line.is_hubs() => {
                    self.is_hub.store(true, Ordering::Release);
                    self.up(line, true);
                }
                Some(Event::Subscribed) => self.up(line, true),
                // Before it was subscribed, too, something may have happened.
                Some(Event::Joined) => self.lines.wake_all_here(),
                Some(Event::Broadcast { event, .. }) => {
                    self.lines.heard(line.signal_of(&event));
                }
                // Of what there was no telling.
                Some(Event::Missed) => self.lines.wake_all_here(),
                Some(Event::Change(change)) => {
                    if let Some(signal) = wakes(line, &change) {
                        self.lines.heard(signal);
                    }
                }
                Some(Event::Lost { reason }) => {
                    tracing::debug!("Wake-ups on {} are lost: {reason}", line.topic());
                    if line.is_hubs() && is_refused(&reason) {
                        self.without_hub();
                        return;
                    }
                    self.up(line, false);
                    doubt.raise_here();
                }
                Some(Event::SystemError(why)) => {
                    tracing::debug!("Wake-ups on {}: {why}", line.topic());
                }
                Some(_) => {}
                None => return self.up(line, false),
            }
        }
    }

    /// A channel came or went. Either way it is time to look, and to see how long to wait from now on.
    fn up(&self, line: &Line, up: bool) {
        let was = self.state().is_up.get_mut(line).map(|is_up| std::mem::replace(is_up, up));
        // One that is refused again and again brings no news.
        if up || was == Some(true) {
            self.lines.wake_all_here();
        }
    }

    /// The server may have channels for work after all.
    fn with_hub(&self) {
        let mut state = self.state();
        if std::mem::take(&mut state.no_hub) {
            state.plan();
            self.changed.notify_one();
        }
    }

    /// The server has no channels for work; changes of the table tell of it instead.
    fn without_hub(&self) {
        let mut state = self.state();
        state.no_hub = true;
        state.plan();
        drop(state);
        self.changed.notify_one();
    }
}

fn client(url: &Url, keys: &Keyring, net: net::Options, tasks: &Tasks) -> Result<Client, String> {
    let key = keys.get();
    let mut options =
        Options::new(url.as_str(), keys.api_key(&key)).map_err(|error| error.to_string())?;
    options.token = Some(key);
    options.net = net;
    Client::start(options, tasks).map_err(|error| chain(&error).to_string())
}
