//! What each attempt leaves behind: `mcp/<toolset>/<time>-<message id>/` below the artifacts
//! directory, with `request.json`, `summary.json`, and `response.json` or `error.json` or both.
//!
//! A directory appears as a whole: it is written under a name that begins with `.tmp-` and then renamed.
//! What is kept of a failure is flushed to disk before that; of a success it is not, since the call that waits
//! for it is in the log with its result, and three flushes took longer than all else that a call does: what was
//! written in the last seconds before a power cut may be empty then. Secrets are out before anything is
//! written. A disk that fails never fails a call.
//!
//! Successes that come while one is being written wait for the same thread: to hand each to a thread of its own and back
//! takes as long as to write it, and threads that make directories in one directory wait for each other. So the next
//! thread is begun only where many wait, or one has for long: the write that it waits for may hang.

use std::collections::VecDeque;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cogo::clock::{Stopwatch, utc_now};
use cogo::message::MessageId;
use serde_json::Value;
use tokio::sync::{Semaphore, oneshot};

use crate::metrics;
use crate::redact::Redactor;

/// How many directories of one message may bear the same millisecond.
const MAX_SAME_TIME: u32 = 16;
/// From so many that wait for each thread that writes, another one is begun: then it is the disk that is slow.
const MANY: usize = 8;
/// How many threads write successes at most; as many as calls wait for a disk that takes its time.
const WRITERS: usize = 64;
/// The same, from when on one has waited for so long, for each time so long.
const SLOW: Duration = Duration::from_millis(50);
/// How many threads write failures at most, each one of them.
const FAILURES: usize = 64;

/// Writes artifacts. Cheap to clone; clones share what waits.
#[derive(Debug, Clone)]
pub struct Capture {
    root: Arc<Path>,
    waiting: Arc<Mutex<Waiting>>,
    failures: Arc<Semaphore>,
}

/// What waits for a thread, and how many there are.
#[derive(Debug, Default)]
struct Waiting {
    attempts: VecDeque<Attempt>,
    writers: usize,
    /// Since the last one was begun because of one that had waited for long.
    relieved: Option<Stopwatch>,
}

/// An attempt that is to be written.
#[derive(Debug)]
struct Attempt {
    toolset: String,
    message: MessageId,
    record: Record,
    redactor: Arc<Redactor>,
    written: oneshot::Sender<io::Result<String>>,
    since: Stopwatch,
}

type Answer = oneshot::Receiver<io::Result<String>>;
type Answered = Result<io::Result<String>, oneshot::error::RecvError>;

/// One attempt. What is `None` gets no file.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// What was asked for.
    pub request: Value,
    /// What the server answered.
    pub response: Option<Value>,
    /// Who, when, how long, how it ended.
    pub summary: Value,
    /// Why it failed.
    pub error: Option<Value>,
}

impl Capture {
    /// Artifacts go below `root`, which is made when first needed.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let failures = Arc::new(Semaphore::new(FAILURES));
        Self { root: root.into().into(), waiting: Arc::default(), failures }
    }

    /// Writes one attempt of `message` at `toolset`, which must be the name of a toolset, without what `redactor` knows
    /// to be secret. Gives the directory's path relative to the artifacts directory; `None` if it could not be written
    /// within `patience`, which is logged and counted.
    pub async fn write(
        &self,
        toolset: &str,
        message: MessageId,
        record: Record,
        redactor: Arc<Redactor>,
        patience: Duration,
    ) -> Option<String> {
        let (written, answer) = oneshot::channel();
        let (toolset_name, since) = (toolset.to_owned(), Stopwatch::start());
        let attempt = Attempt { toolset: toolset_name, message, record, redactor, written, since };
        let writing = async {
            if attempt.record.error.is_some() {
                self.write_failure(attempt, answer).await
            } else {
                self.write_success(attempt, answer).await
            }
        };
        let written = match tokio::time::timeout(patience, writing).await {
            Ok(written) => written.map_err(io::Error::other).and_then(|written| written),
            Err(_) => {
                self.waiting().forget_given_up();
                Err(io::ErrorKind::TimedOut.into()) // the thread may still finish
            }
        };
        match written {
            Ok(path) => Some(path),
            Err(error) => {
                metrics::artifact_failed(toolset);
                tracing::error!(
                    message.id = %message, mcp.toolset = %toolset, error = %error,
                    "Cannot write the artifacts of {message}; its result stands"
                );
                None
            }
        }
    }

    /// It is flushed to disk: nobody else is to wait for that.
    async fn write_failure(&self, attempt: Attempt, answer: Answer) -> Answered {
        // Who gets none waits for one that hangs, and keeps its record no longer than that.
        if let Ok(permit) = Arc::clone(&self.failures).acquire_owned().await {
            let this = self.clone();
            tokio::task::spawn_blocking(move || {
                this.put(attempt);
                drop(permit);
            });
        }
        answer.await
    }

    async fn write_success(&self, attempt: Attempt, mut answer: Answer) -> Answered {
        {
            let mut waiting = self.waiting();
            waiting.forget_given_up();
            waiting.attempts.push_back(attempt);
        }
        loop {
            self.begin_writer();
            tokio::select! {
                biased;
                answered = &mut answer => return answered,
                () = tokio::time::sleep(SLOW) => {}
            }
        }
    }

    fn begin_writer(&self) {
        let mut waiting = self.waiting();
        if waiting.is_short_of_writers() || waiting.is_held_up() {
            waiting.writers += 1;
            let this = self.clone();
            tokio::task::spawn_blocking(move || this.drain());
        }
    }

    /// Writes what waits, until nothing does.
    fn drain(&self) {
        loop {
            let next = {
                let mut waiting = self.waiting();
                let next = waiting.attempts.pop_front();
                if next.is_none() {
                    waiting.writers -= 1;
                }
                next
            };
            match next {
                Some(attempt) => self.put(attempt),
                None => return,
            }
        }
    }

    /// Writes an attempt, unless nobody waits for it any more, and tells where it is.
    fn put(&self, attempt: Attempt) {
        let Attempt { toolset, message, record, redactor, written, .. } = attempt;
        if written.is_closed() {
            return;
        }
        let writing = || self.write_now(&toolset, message, &record, &redactor);
        // Whatever panics, the thread goes on to the next.
        let outcome = std::panic::catch_unwind(AssertUnwindSafe(writing));
        let outcome = outcome.unwrap_or_else(|_| Err(io::Error::other("writing them panicked")));
        let _gave_up_meanwhile = written.send(outcome);
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Nothing that can panic happens under the lock, so a poisoned one is still whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_now(
        &self,
        toolset: &str,
        message: MessageId,
        record: &Record,
        redactor: &Redactor,
    ) -> io::Result<String> {
        let relative = PathBuf::from("mcp").join(toolset);
        let parent = self.root.join(&relative);
        let time = utc_now().format("%Y%m%dT%H%M%S%.3fZ");
        let mut last = None;
        for number in 1..=MAX_SAME_TIME {
            let name = match number {
                1 => format!("{time}-{message}"),
                more => format!("{time}-{message}-{more}"),
            };
            let (temporary, target) = (parent.join(format!(".tmp-{name}")), parent.join(&name));
            match fill(&temporary, record, redactor).and_then(|()| take(&temporary, &target)) {
                Ok(()) => return Ok(relative.join(name).to_string_lossy().into_owned()),
                Err(error) => {
                    if error.kind() != io::ErrorKind::AlreadyExists {
                        let _ = std::fs::remove_dir_all(&temporary);
                        return Err(error);
                    }
                    last = Some(error);
                }
            }
        }
        Err(last.unwrap_or_else(|| io::ErrorKind::AlreadyExists.into()))
    }
}

impl Waiting {
    /// Whether another thread is to be begun for what waits.
    fn is_short_of_writers(&self) -> bool {
        self.writers < WRITERS && self.attempts.len() > self.writers * MANY
    }

    /// The same, where few wait, and one of them for long: one thread more for each time that is so.
    fn is_held_up(&mut self) -> bool {
        let is_slow = |since: Stopwatch| since.elapsed() >= SLOW;
        let is_held_up = self.writers < WRITERS
            && self.attempts.front().is_some_and(|oldest| is_slow(oldest.since))
            && self.relieved.is_none_or(is_slow);
        if is_held_up {
            self.relieved = Some(Stopwatch::start());
        }
        is_held_up
    }

    /// Lets go of those in front for which nobody waits any more: where all threads hang, nobody else does.
    fn forget_given_up(&mut self) {
        while self.attempts.front().is_some_and(|oldest| oldest.written.is_closed()) {
            self.attempts.pop_front();
        }
    }
}

fn fill(dir: &Path, record: &Record, redactor: &Redactor) -> io::Result<()> {
    match directory(dir, false) {
        // Mostly what it stands in is there.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            directory(dir.parent().unwrap_or(dir), true)?;
            directory(dir, false)?;
        }
        made => made?,
    }
    let files = [
        ("request.json", Some(&record.request)),
        ("response.json", record.response.as_ref()),
        ("summary.json", Some(&record.summary)),
        ("error.json", record.error.as_ref()),
    ];
    for (name, value) in files {
        if let Some(value) = value {
            let mut text = serde_json::to_vec_pretty(&redactor.artifact(value))?;
            text.push(b'\n');
            let mut file = create(&dir.join(name))?;
            file.write_all(&text)?;
            if record.error.is_some() {
                file.sync_all()?;
            }
        }
    }
    Ok(())
}

/// Gives `temporary` its name, unless that is taken: a rename would replace an empty directory.
fn take(temporary: &Path, target: &Path) -> io::Result<()> {
    if target.symlink_metadata().is_ok() {
        std::fs::remove_dir_all(temporary)?;
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    std::fs::rename(temporary, target)
}

/// Makes a directory that its owner alone may enter: results may be confidential.
fn directory(path: &Path, recursive: bool) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(recursive);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use serde_json::json;

    use super::*;

    fn record(number: usize) -> Record {
        let (request, summary) = (json!({"number": number}), json!({"ok": true}));
        Record { request, response: Some(json!([number])), summary, error: None }
    }

    fn attempt(number: usize) -> (Attempt, oneshot::Receiver<io::Result<String>>) {
        let (written, answer) = oneshot::channel();
        let (message, redactor) = (MessageId::new(), Arc::default());
        let (toolset, record) = ("demo".to_owned(), record(number));
        let since = Stopwatch::start();
        (Attempt { toolset, message, record, redactor, written, since }, answer)
    }

    #[tokio::test]
    async fn each_of_many_is_written_whole_and_told_of_its_own() {
        let root = tempfile::tempdir().expect("a directory");
        let capture = Capture::new(root.path());
        let writing = (0..100).map(|number| {
            let mut record = record(number);
            // Some of them are failures.
            record.error = (number % 10 == 0).then(|| json!({"class": "timeout"}));
            let capture = capture.clone();
            let patience = Duration::from_secs(60);
            let (id, redactor) = (MessageId::new(), Arc::default());
            async move { capture.write("demo", id, record, redactor, patience).await }
        });
        for (number, path) in join_all(writing).await.into_iter().enumerate() {
            let dir = root.path().join(path.expect("written"));
            let read = |name| std::fs::read_to_string(dir.join(name)).expect("a file");
            let request: Value = serde_json::from_str(&read("request.json")).expect("JSON");
            assert_eq!(request, json!({"number": number}));
            assert!(!read("response.json").is_empty() && !read("summary.json").is_empty());
            assert_eq!(dir.join("error.json").exists(), number % 10 == 0);
        }
        while capture.waiting().writers > 0 {
            tokio::task::yield_now().await; // the last one is about to see that nothing waits
        }
        // Whoever clears up may take the toolset's directory with all that is in it.
        std::fs::remove_dir_all(root.path().join("mcp")).expect("cleared");
        let (id, redactor) = (MessageId::new(), Arc::default());
        let again = capture.write("demo", id, record(1), redactor, Duration::from_secs(60)).await;
        assert!(root.path().join(again.expect("written")).is_dir());
    }

    #[test]
    fn another_thread_writes_only_where_many_wait_for_each() {
        let mut waiting = Waiting::default();
        let mut began = Vec::new();
        for number in 1..=20 {
            waiting.attempts.push_back(attempt(number).0);
            if waiting.is_short_of_writers() {
                waiting.writers += 1;
                began.push(number);
            }
        }
        assert_eq!(began, [1, 9, 17]);
        waiting.writers = WRITERS;
        waiting.attempts.extend((0..1000).map(|number| attempt(number).0));
        assert!(!waiting.is_short_of_writers(), "there is an end to it");
    }

    async fn write(capture: &Capture, record: Record, patience: Duration) -> Option<String> {
        capture.write("demo", MessageId::new(), record, Arc::default(), patience).await
    }

    #[tokio::test]
    async fn a_write_that_hangs_holds_up_nobody_else() {
        let root = tempfile::tempdir().expect("a directory");
        let capture = Capture::new(root.path());
        capture.waiting().writers = 1; // that never looks for what waits
        let patience = Duration::from_secs(60);
        let writing = (0..MANY).map(|number| write(&capture, record(number), patience));
        assert!(join_all(writing).await.iter().all(Option::is_some));
    }

    #[tokio::test]
    async fn where_every_write_hangs_nothing_is_kept_of_what_is_given_up() {
        let root = tempfile::tempdir().expect("a directory");
        let capture = Capture::new(root.path());
        capture.waiting().writers = WRITERS;
        let all = u32::try_from(FAILURES).expect("few");
        let _hang = capture.failures.acquire_many(all).await.expect("open");
        let failure = Record { error: Some(json!({"class": "timeout"})), ..record(0) };
        for record in [record(1), failure, record(2)] {
            assert_eq!(write(&capture, record, Duration::from_millis(10)).await, None);
            assert_eq!(capture.waiting().attempts.len(), 0);
        }
    }

    #[test]
    fn what_nobody_waits_for_is_not_written_any_more() {
        let root = tempfile::tempdir().expect("a directory");
        let capture = Capture::new(root.path());
        let ((given_up, gone), (awaited, mut answer)) = (attempt(1), attempt(2));
        drop(gone);
        let mut waiting = capture.waiting();
        (waiting.writers, waiting.attempts) = (1, [given_up, awaited].into());
        drop(waiting);
        capture.drain();
        let path = answer.try_recv().expect("answered").expect("written");
        let demo = std::fs::read_dir(root.path().join("mcp/demo")).expect("a directory");
        let names: Vec<_> = demo.map(|entry| entry.expect("an entry").path()).collect();
        assert_eq!(names, [root.path().join(path)]);
    }
}
