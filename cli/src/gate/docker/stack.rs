//! What was brought up, and that it goes.

use std::time::Duration;

use cogo::clock::Stopwatch;
use cogo::gate::Failure;

use super::compose::{Compose, DOWN_WITHIN};
use crate::output::note;

/// How often a project is taken down that was dropped: what the engine had begun to make when its command was killed
/// may appear after the first time.
const TRIES: usize = 3;
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A project that is taken down when this is dropped, unless that was done or it is to be kept.
#[derive(Debug)]
pub(super) struct Stack {
    compose: Compose,
    down: std::sync::atomic::AtomicBool,
}

impl Stack {
    pub(super) fn new(compose: Compose, keep: bool) -> Self {
        Self { compose, down: keep.into() }
    }

    pub(super) fn compose(&self) -> &Compose {
        &self.compose
    }

    /// Keeps what the containers said, and how they stand.
    pub(super) async fn collect(&self) {
        self.compose.keep("ps.txt", &["ps", "--all"]).await;
        let logs = ["logs", "--no-color", "--timestamps"];
        self.compose.keep("logs.txt", &logs).await;
    }

    /// Takes everything down, and looks whether nothing is left.
    pub(super) async fn down(&self) -> Result<(), Failure> {
        self.compose.log("down", &Compose::down_args(), DOWN_WITHIN).await?;
        let compose = self.compose.clone();
        let left = tokio::task::spawn_blocking(move || left(&compose)).await?;
        match left {
            0 => {
                self.down.store(true, std::sync::atomic::Ordering::Relaxed);
                Ok(())
            }
            left => Err(Failure::new(format!("{left} containers are left after `compose down`"))
                .remedy(format!("`{}`", self.compose.down_line()))),
        }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if *self.down.get_mut() {
            return;
        }
        note(&format!("Taking the containers of {} down", self.compose.project()));
        for _ in 0..TRIES {
            let down = self.compose.blocking_compose(&Compose::down_args());
            if within(down, DOWN_WITHIN) && left(&self.compose) == 0 {
                return;
            }
        }
        note(&format!("Something may be left; `{}`", self.compose.down_line()));
    }
}

/// How many containers the project has; one more than there can be where the engine does not say.
fn left(compose: &Compose) -> usize {
    let args = compose.containers_args();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut command = compose.blocking(&args);
    match command.stdout(std::process::Stdio::piped()).output() {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).split_whitespace().count()
        }
        _ => usize::MAX,
    }
}

/// Whether the command ended well in time; else it is killed.
fn within(mut command: std::process::Command, at_most: Duration) -> bool {
    let Ok(mut child) = command.spawn() else { return false };
    let watch = Stopwatch::start();
    while watch.elapsed() < at_most {
        match child.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) => std::thread::sleep(LOOK_EVERY),
            Err(_) => break,
        }
    }
    let _it_may_have_ended = child.kill().and_then(|()| child.wait().map(drop));
    false
}
