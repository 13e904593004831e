//! How a command ends: an exit code that scripts may rely on, and what is said about a failure.

use std::fmt;
use std::io;

use cogo::error::Code;

/// The exit codes, for `--help`.
pub(crate) const HELP: &str = "\
Exit codes:
  0    done
  1    failed: of the command itself, of the message that it waited for, or of what it checked
  2    wrong usage, a bad argument or a bad configuration file
  3    what was named does not exist
  4    a server that is needed does not answer, or may not be used
  5    the state does not allow it, such as a message that is not in the dead-letter queue, or a
       queue that is full
  6    not finished within --wait or --timeout; the work goes on
  130  interrupted";

/// See [`HELP`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    NotFound = 3,
    Unavailable = 4,
    Refused = 5,
    Unfinished = 6,
    Interrupted = 130,
}

impl Exit {
    pub(crate) fn of(code: Code) -> Self {
        match code {
            Code::InvalidArgument | Code::PayloadTooLarge => Self::Usage,
            Code::NotFound => Self::NotFound,
            Code::Unavailable | Code::Unauthorized | Code::Forbidden => Self::Unavailable,
            Code::Conflict | Code::RateLimited => Self::Refused,
            Code::Timeout => Self::Unfinished,
            _ => Self::Failed,
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A failure that knows its exit code, and may know what to do about it.
#[derive(Debug)]
pub(crate) struct Failed {
    exit: Exit,
    text: String,
    hint: Option<String>,
}

impl Failed {
    pub(crate) fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self { exit, text: text.into(), hint: None }
    }

    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::new(Exit::Usage, text)
    }

    pub(crate) fn unavailable(text: impl Into<String>) -> Self {
        Self::new(Exit::Unavailable, text)
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failed {}

/// What to exit with and what to print for `error`; nothing is printed when whoever read our output has
/// gone away, as `head` does.
pub(crate) fn judge(error: &anyhow::Error) -> (Exit, Option<String>) {
    for cause in error.chain() {
        if cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
        {
            return (Exit::Done, None);
        }
    }
    let mut exit = Exit::Failed;
    let mut hint = None;
    for cause in error.chain() {
        if let Some(failed) = cause.downcast_ref::<Failed>() {
            exit = failed.exit;
            hint.clone_from(&failed.hint);
            break;
        }
        if let Some(error) = cause.downcast_ref::<cogo::bus::Error>() {
            exit = Exit::of(error.code());
            if let cogo::bus::Error::Full { retry_after, .. } = error {
                let seconds = retry_after.as_millis().div_ceil(1000).max(1);
                hint = Some(format!(
                    "Nothing was enqueued. Try again in {seconds} s; `cogo limits` shows what is full."
                ));
            }
            break;
        }
        if cause.is::<cogo::config::Error>() || cause.is::<cogo::message::InvalidName>() {
            exit = Exit::Usage;
            break;
        }
    }
    let text = match hint {
        Some(hint) => format!("{error:#}\n{hint}"),
        None => format!("{error:#}"),
    };
    (exit, Some(text))
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn a_reader_that_went_away_is_no_failure() {
        let error = anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(judge(&error.context("printing")), (Exit::Done, None));
    }

    #[test]
    fn a_queue_that_is_full_says_when_to_try_again() {
        let retry_after = std::time::Duration::from_millis(1200);
        let full = cogo::bus::Error::Full { message: "tenant a: 9 wait".to_owned(), retry_after };
        let (exit, text) = judge(&full.into());
        assert_eq!(exit, Exit::Refused);
        let text = text.expect("something is said");
        assert!(text.starts_with("tenant a: 9 wait\n") && text.contains("in 2 s"), "{text}");
    }

    #[test]
    fn the_innermost_judgement_survives_its_context() {
        let error = Err::<(), _>(Failed::new(Exit::NotFound, "no such thing").hint("look again"))
            .context("reading")
            .expect_err("a failure");
        let (exit, text) = judge(&error);
        assert_eq!(exit, Exit::NotFound);
        assert_eq!(text.as_deref(), Some("reading: no such thing\nlook again"));
    }
}
