//! What must stand in no file that the scenario leaves behind.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use cogo::gate::Failure;
use cogo::hub::AdminToken;
use cogo::identity;

/// What stands where a secret stood.
const HIDDEN: &str = "[redacted]";
/// Shorter ones would be found in the middle of innocent text.
const MIN_LEN: usize = 8;

/// The secrets of one run, all made for it, by what they are.
#[derive(Debug, Clone, Default)]
pub(super) struct Secrets(Arc<Mutex<Vec<(&'static str, String)>>>);

impl Secrets {
    /// The hub's admin token.
    pub(super) fn admin_token(&self) -> String {
        self.know("the admin token", AdminToken::generate().expose().to_owned())
    }

    /// A secret such as signs tokens; `what` it is.
    pub(super) fn make(&self, what: &'static str) -> String {
        self.know(what, identity::generate_secret())
    }

    /// Also looks for this one from now on. Gives it back.
    pub(super) fn know(&self, what: &'static str, value: String) -> String {
        if value.len() >= MIN_LEN {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push((what, value.clone()));
        }
        value
    }

    /// The text without them.
    pub(super) fn hide(&self, text: &str) -> String {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().fold(text.to_owned(), |text, (_, secret)| text.replace(secret, HIDDEN))
    }

    /// Which of them the text holds.
    fn held_by(&self, text: &str) -> Option<&'static str> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().find(|(_, secret)| text.contains(secret)).map(|(what, _)| *what)
    }

    /// Reads all files below a directory; how many there are.
    ///
    /// # Errors
    /// The first file that holds one, and what it is.
    pub(super) fn are_not_in(&self, dir: &Path) -> Result<usize, Failure> {
        let files = files(dir)?;
        for file in &files {
            let text = std::fs::read(file)?;
            if let Some(what) = self.held_by(&String::from_utf8_lossy(&text)) {
                return Err(Failure::new(format!("{} holds {what}", file.display()))
                    .remedy("Whatever wrote it must hide it; do not publish that file."));
            }
        }
        Ok(files.len())
    }
}

/// All files below a directory, in order; none where it is not there.
pub(super) fn files(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        if !dir.exists() {
            continue;
        }
        for entry in std::fs::read_dir(&dir)? {
            let (entry, path) = entry.map(|entry| (entry.file_type(), entry.path()))?;
            if entry?.is_dir() { left.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_in_a_file_is_found_and_named_but_not_told() {
        let dir = tempfile::tempdir().expect("a directory");
        let secrets = Secrets::default();
        let value = secrets.make("the password");
        std::fs::create_dir(dir.path().join("logs")).expect("a directory");
        std::fs::write(dir.path().join("logs/a.log"), "nothing").expect("a file");
        assert_eq!(secrets.are_not_in(dir.path()).expect("none"), 1);
        std::fs::write(dir.path().join("logs/b.log"), format!("x={value};")).expect("a file");
        let failure = secrets.are_not_in(dir.path()).expect_err("found");
        assert!(failure.reason().ends_with("b.log holds the password"), "{failure}");
        assert_eq!(secrets.hide(&format!("{value}!")), "[redacted]!");
    }
}
