//! Files that are read again while the process runs.
//!
//! They are looked at every second, by content. That finds a change on every file system and however it was
//! made: saved in place, renamed over, or by the symlink that Kubernetes turns for a ConfigMap. A crate around
//! inotify would be told sooner, but sees neither network file systems nor, without following each link
//! itself, such a symlink; and it would need the polling beside it all the same.

use std::fmt::Debug;
use std::io;
use std::time::Duration;

use metrics::counter;
use tokio_util::sync::CancellationToken;

use super::{Error, File, Source, diff};
use crate::error::chain;
use crate::live::{Live, Setter};
use crate::metrics::CONFIG_RELOADS_TOTAL;

/// How often the files are looked at.
const LOOK_PERIOD: Duration = Duration::from_secs(1);

/// The files that are read again, and whoever uses them.
#[derive(Debug)]
pub struct Reload {
    source: Source,
    files: Vec<Box<dyn Watched>>,
}

/// What came of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reloaded {
    /// It says the same as before.
    Unchanged,
    /// It says something else, and that holds now.
    Applied {
        /// Which fields differ, for people.
        changes: String,
    },
    /// It cannot be used; what held before goes on.
    Refused {
        /// Which file, line, field and rule.
        why: String,
    },
}

/// What was found at a file's place.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Content {
    /// Nothing: the defaults hold.
    Missing,
    Text(String),
    Unreadable(io::ErrorKind),
}

impl Content {
    fn of<T: File>(source: &Source) -> Self {
        match source.read::<T>() {
            Ok(Some(text)) => Self::Text(text),
            Ok(None) => Self::Missing,
            Err(error) => Self::Unreadable(error.kind()),
        }
    }

    fn load<T: File>(&self, source: &Source) -> Result<T, Error> {
        match self {
            Self::Missing => source.interpret(None),
            Self::Text(text) => source.interpret(Some(text)),
            Self::Unreadable(kind) => Err(source.unreadable::<T>((*kind).into())),
        }
    }
}

/// A file of some type.
trait Watched: Debug + Send {
    fn name(&self) -> &'static str;
    /// Reads it and does what there is to do; `None` when there is nothing to say. Asked for, it acts on
    /// what it finds; else only on what has changed and has been there at two looks.
    fn look(&mut self, source: &Source, asked: bool) -> Option<Reloaded>;
}

#[derive(Debug)]
struct One<T> {
    setter: Setter<T>,
    live: Live<T>,
    /// What was last acted upon.
    known: Content,
    /// What was there at the last look.
    seen: Content,
}

impl Reload {
    /// Nothing is read again yet.
    #[must_use]
    pub fn new(source: Source) -> Self {
        Self { source, files: Vec::new() }
    }

    /// Loads a file, and reads it again from then on.
    ///
    /// # Errors
    /// As [`Source::load`]: at the start a file that cannot be used is an error.
    pub fn watch<T>(&mut self) -> Result<Live<T>, Error>
    where
        T: File + Debug + PartialEq + Send + Sync + 'static,
    {
        let known = Content::of::<T>(&self.source);
        let (setter, live) = Live::new(known.load(&self.source)?);
        let seen = known.clone();
        self.files.push(Box::new(One { setter, live: live.clone(), known, seen }));
        Ok(live)
    }

    /// Reads all files again, now; what came of each, by its name.
    pub fn reload_now(&mut self) -> Vec<(&'static str, Reloaded)> {
        self.each(true)
    }

    /// Looks whether a file has changed; what came of those that have. A change counts once two looks have
    /// found it: an editor may be in the middle of writing, or have taken the old file away.
    pub fn look(&mut self) -> Vec<(&'static str, Reloaded)> {
        self.each(false)
    }

    fn each(&mut self, asked: bool) -> Vec<(&'static str, Reloaded)> {
        let mut came = Vec::new();
        for file in &mut self.files {
            let Some(reloaded) = file.look(&self.source, asked) else { continue };
            tell(file.name(), &reloaded);
            came.push((file.name(), reloaded));
        }
        came
    }

    /// Looks again and again until `stop`, and reads all files whenever `asked` says so, as on a SIGHUP.
    /// An error is told in the log and counted; it ends nothing.
    pub async fn run(mut self, mut asked: Live<()>, stop: CancellationToken) {
        loop {
            let now = tokio::select! {
                () = tokio::time::sleep(LOOK_PERIOD) => false,
                () = asked.changed() => true,
                () = stop.cancelled() => return,
            };
            // Files may lie on a network.
            let looked = tokio::task::spawn_blocking(move || {
                let came = self.each(now);
                (self, came)
            });
            match looked.await {
                Ok((reload, _)) => self = reload,
                Err(error) => {
                    tracing::error!(error = %chain(&error), "Configuration is no longer read again");
                    return;
                }
            }
        }
    }
}

impl<T: File + Debug + PartialEq + Send + Sync> Watched for One<T> {
    fn name(&self) -> &'static str {
        T::NAME
    }

    fn look(&mut self, source: &Source, asked: bool) -> Option<Reloaded> {
        let found = Content::of::<T>(source);
        let settled = found == self.seen;
        self.seen = found.clone();
        if !asked && (!settled || found == self.known) {
            return None;
        }
        let loaded = found.load::<T>(source);
        self.known = found;
        Some(match loaded {
            Err(error) => Reloaded::Refused { why: chain(&error).to_string() },
            Ok(new) if new == *self.live.get() => Reloaded::Unchanged,
            Ok(new) => {
                let changes = diff::changes(self.live.get().as_ref(), &new);
                self.setter.set(new);
                Reloaded::Applied { changes }
            }
        })
    }
}

fn tell(file: &'static str, reloaded: &Reloaded) {
    let outcome = match reloaded {
        Reloaded::Unchanged => {
            tracing::info!(config.file = file, "Read {file} again: it says the same");
            "unchanged"
        }
        Reloaded::Applied { changes } => {
            tracing::info!(config.file = file, "Reloaded {file}: {changes}");
            "applied"
        }
        Reloaded::Refused { why } => {
            tracing::error!(
                config.file = file,
                "Refused {file}, and what it said before still holds: {why}"
            );
            "refused"
        }
    };
    counter!(CONFIG_RELOADS_TOTAL, "file" => file, "outcome" => outcome).increment(1);
}
