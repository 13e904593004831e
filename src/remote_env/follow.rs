//! The values of some names, as they are at any moment: read when a wake-up says that they may have changed, and again
//! and again without one.
//!
//! Only what somebody wants is read: a process that refers to nothing asks for nothing, and has none of the others'
//! values in its memory. What cannot be opened, or is older than what was seen here before, is told and not taken: the
//! value that was good stays, so that whoever can write the table can stop nothing that runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::bus::{self, Bus, Signal};
use crate::error::chain;
use crate::live::{Live, Setter};
use crate::remote_env::key::{KeyError, Keyring};
use crate::remote_env::seal;
use crate::remote_env::{ExposeSecret as _, SecretString, check_name};
use crate::shutdown::Tasks;

/// How often to look at least when nothing wakes us, where a look costs next to nothing.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What there is of one name.
#[derive(Debug, Clone)]
pub enum Found {
    /// Its value.
    Value(Arc<SecretString>),
    /// It was not looked for yet.
    NotYet,
    /// There is none; and why, where that is not simply that nobody has set it.
    None(Option<String>),
}

/// Reads the values of some names of one tenant. Cheap to clone; all clones want and see the same.
#[derive(Clone)]
pub struct RemoteEnv {
    tenant: Arc<str>,
    wanted: watch::Sender<BTreeSet<String>>,
    known: Live<Known>,
}

impl fmt::Debug for RemoteEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteEnv").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

/// What is known at one moment.
#[derive(Clone, Default)]
struct Known {
    /// Which names were looked for.
    asked: BTreeSet<String>,
    values: BTreeMap<String, Value>,
    problems: BTreeMap<String, String>,
    /// Why none can be read at all.
    failure: Option<String>,
}

#[derive(Clone)]
struct Value {
    version: i64,
    text: Arc<SecretString>,
}

impl Known {
    /// Whether whoever uses the values would find a difference.
    fn differs(&self, other: &Self) -> bool {
        let texts = |known: &Self| -> Vec<(String, Arc<SecretString>)> {
            let values = known.values.iter();
            values.map(|(name, value)| (name.clone(), Arc::clone(&value.text))).collect()
        };
        let (ours, theirs) = (texts(self), texts(other));
        let same = ours.len() == theirs.len()
            && ours.iter().zip(&theirs).all(|((name, text), (other, its))| {
                name == other && text.expose_secret() == its.expose_secret()
            });
        !same
            || (&self.asked, &self.problems, &self.failure)
                != (&other.asked, &other.problems, &other.failure)
    }
}

impl RemoteEnv {
    /// Follows the values of `tenant` with `keys` until `stop`. Without keys nothing is asked of the bus, and every name
    /// has the reason for it.
    #[must_use]
    pub fn start(
        bus: Bus,
        tenant: &str,
        keys: Result<Keyring, KeyError>,
        tasks: &Tasks,
        stop: CancellationToken,
    ) -> Self {
        let wanted = watch::Sender::new(BTreeSet::new());
        let failure = keys.as_ref().err().map(ToString::to_string);
        let (set, known) = Live::new(Known { failure, ..Known::default() });
        if let Ok(keys) = keys {
            let follower = Follower {
                bus,
                tenant: tenant.to_owned(),
                keys,
                wanted: wanted.subscribe(),
                set,
                known: Known::default(),
                revision: 0,
            };
            tasks.spawn(follower.run(stop));
        }
        Self { tenant: tenant.into(), wanted, known }
    }

    /// Whose values they are.
    #[must_use]
    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    /// Says which names are wanted from now on, in place of those before. What may not be set is not asked for.
    pub fn want(&self, names: impl IntoIterator<Item = String>) {
        let names: BTreeSet<_> =
            names.into_iter().filter(|name| check_name(name).is_ok()).collect();
        self.wanted.send_if_modified(|wanted| {
            let changed = *wanted != names;
            *wanted = names;
            changed
        });
    }

    /// What there is of `name`, without waiting.
    #[must_use]
    pub fn get(&self, name: &str) -> Found {
        if let Err(rule) = check_name(name) {
            return Found::None(Some(format!("never there: {name} {rule}")));
        }
        let known = self.known.get();
        match (known.values.get(name), &known.failure) {
            (Some(value), _) => Found::Value(Arc::clone(&value.text)),
            (None, Some(failure)) => Found::None(Some(failure.clone())),
            (None, None) if !known.asked.contains(name) => Found::NotYet,
            (None, None) => Found::None(known.problems.get(name).cloned()),
        }
    }

    /// Tells of changes from now on.
    #[must_use]
    pub fn changes(&self) -> Changes {
        Changes(self.known.clone())
    }

    /// Waits until all that is wanted was looked for, or cannot be.
    pub async fn settled(&self) {
        let (mut known, mut wanted) = (self.known.clone(), self.wanted.subscribe());
        loop {
            let now = known.get();
            if now.failure.is_some() || wanted.borrow_and_update().is_subset(&now.asked) {
                return;
            }
            // Also when less is wanted: of nothing nobody is asked, and so nothing becomes known.
            tokio::select! {
                () = known.changed() => {}
                // The sender lives in `self`.
                _ = wanted.changed() => {}
            }
        }
    }
}

/// Tells of changes of what is known.
pub struct Changes(Live<Known>);

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Changes")
    }
}

impl Changes {
    /// Waits until something has changed since the last call, or since this was made. Cancel-safe.
    pub async fn next(&mut self) {
        self.0.changed().await;
    }
}

struct Follower {
    bus: Bus,
    tenant: String,
    keys: Keyring,
    wanted: watch::Receiver<BTreeSet<String>>,
    set: Setter<Known>,
    known: Known,
    /// The latest that was seen.
    revision: i64,
}

impl Follower {
    async fn run(mut self, stop: CancellationToken) {
        // Armed before the first look, so that nothing falls between.
        let mut woken = self.bus.waker(Signal::Env);
        let mut link = self.bus.waker(Signal::Link);
        let mut complete = BTreeSet::new();
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            let mut pause = LOOK_EVERY.max(self.bus.pause());
            if !wanted.is_empty() || !self.known.asked.is_empty() {
                let looked = tokio::select! {
                    looked = self.look(&wanted, complete == wanted) => looked,
                    () = stop.cancelled() => return,
                };
                match looked {
                    Ok(()) => complete = wanted,
                    Err(error) => {
                        complete.clear();
                        self.failed(&error);
                        pause = self.bus.pause();
                    }
                }
            } else {
                // Nobody wants anything; nobody need be asked.
                pause = Duration::MAX;
            }
            tokio::select! {
                () = woken.woken() => {}
                () = link.woken() => {}
                changed = self.wanted.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(pause.min(Duration::from_secs(86_400))) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Looks once. `complete` says that these same names were looked for before, so that an unchanged revision means
    /// that there is nothing to do.
    async fn look(&mut self, wanted: &BTreeSet<String>, complete: bool) -> Result<(), bus::Error> {
        let after = (complete && self.known.failure.is_none()).then_some(self.revision);
        let names = self.bus.env_names(&self.tenant, after).await?;
        let mut next = Known { asked: wanted.clone(), ..Known::default() };
        if names.revision < self.revision {
            let why = format!(
                "the RemoteEnv of tenant {} was put back from revision {} to {}; where that was meant, restart this process",
                self.tenant, self.revision, names.revision
            );
            next.values = self.known.values.clone();
            next.problems = wanted.iter().map(|name| (name.clone(), why.clone())).collect();
            self.tell(next);
            return Ok(());
        }
        let Some(found) = names.names else { return Ok(()) };
        let of_interest = found.into_iter().filter(|name| wanted.contains(&name.name));
        let (mut to_read, mut present) = (Vec::new(), BTreeSet::new());
        for name in of_interest {
            present.insert(name.name.clone());
            match self.known.values.get(&name.name) {
                Some(value)
                    if value.version == name.version
                        && !self.known.problems.contains_key(&name.name) =>
                {
                    next.values.insert(name.name, value.clone());
                }
                _ => to_read.push(name.name),
            }
        }
        for sealed in self.bus.env_read(&self.tenant, &to_read).await? {
            let name = sealed.name.clone();
            let before = self.known.values.get(&name);
            let opened = match before {
                Some(before) if sealed.version < before.version => Err(format!(
                    "was put back from version {} to {}",
                    before.version, sealed.version
                )),
                _ => {
                    seal::open(&self.keys, &self.tenant, &sealed).map_err(|error| error.to_string())
                }
            };
            match opened {
                Ok(text) => {
                    let value = Value { version: sealed.version, text: Arc::new(text) };
                    next.values.insert(name, value);
                }
                Err(why) => {
                    if let Some(before) = before {
                        next.values.insert(name.clone(), before.clone());
                    }
                    next.problems.insert(name, why);
                }
            }
        }
        self.revision = names.revision;
        self.tell(next);
        Ok(())
    }

    /// What was known stays; who still waits for a first answer gets it, if waiting longer would not help.
    fn failed(&mut self, error: &bus::Error) {
        if error.is_transient() {
            tracing::debug!(error = %chain(error), "Could not look at RemoteEnv; trying again");
            return;
        }
        // It may be shown far from here; what the database said in its own words is for the log.
        let why = format!("RemoteEnv cannot be read: {error}");
        tracing::debug!(error = %chain(error), "Could not look at RemoteEnv");
        let next = Known { failure: Some(why), ..self.known.clone() };
        self.tell(next);
    }

    /// Makes it known, and says once what is wrong.
    fn tell(&mut self, next: Known) {
        for (name, why) in &next.problems {
            if self.known.problems.get(name) != Some(why) {
                tracing::error!(env.name = %name, "RemoteEnv: {name} of tenant {}: {why}", self.tenant);
            }
        }
        if let Some(why) = &next.failure
            && self.known.failure.as_ref() != Some(why)
        {
            tracing::error!("RemoteEnv of tenant {}: {why}", self.tenant);
        }
        if next.differs(&self.known) {
            self.set.set(next.clone());
        }
        self.known = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_values_waits_no_longer_once_nothing_is_wanted_any_more() {
        let (_set, known) = Live::new(Known::default());
        let env = RemoteEnv {
            tenant: "default".into(),
            wanted: watch::Sender::new(BTreeSet::new()),
            known,
        };
        env.want(["FIGMA_TOKEN".to_owned()]);
        let waiting = env.clone();
        let settled = waiting.settled();
        let changed = async {
            tokio::task::yield_now().await;
            env.want([]);
        };
        let both = async { tokio::join!(settled, changed) };
        tokio::time::timeout(Duration::from_secs(60), both).await.expect("nothing is waited for");
    }
}
