//! The files of the artifacts directory, in the order of their paths.

use std::collections::BinaryHeap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};

use super::{attempt, is_plain};
use crate::artifact::FOLDER;

/// How deep directories are followed; ours have three levels.
const DEEPEST: usize = 8;
/// Greater than all that a name may begin with: what stands for a directory of which nothing is left.
const LAST: char = char::MAX;

/// What to list.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// What paths begin with.
    pub prefix: String,
    /// Only paths after this one.
    pub after: Option<String>,
    /// Only what says that it is this tenant's.
    pub tenant: Option<String>,
    /// How many files at most.
    pub limit: usize,
    /// How many files and directories are looked at, at most.
    pub looks: usize,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its path below the artifacts directory.
    pub name: String,
    /// Whose it is, if it says so.
    pub tenant: Option<String>,
    /// How large it is.
    pub bytes: u64,
    /// When it was written.
    pub modified: DateTime<Utc>,
}

/// Lists files below `root`, and gives the `after` of the next page, if there may be one. Of a directory of a million
/// only the names that are wanted are held, and no more than `looks` of them are opened: a page may so have fewer files
/// than there are, or none, and yet a next one.
///
/// # Errors
/// When the disk refuses.
pub fn list(root: &Path, query: &Query) -> io::Result<(Vec<Listed>, Option<String>)> {
    let mut walk = Walk {
        root,
        query,
        looks: query.looks,
        files: Vec::new(),
        done: query.after.clone().unwrap_or_default(),
        cut: false,
    };
    walk.directory(root.to_owned(), "", None, 0)?;
    Ok((walk.files, walk.cut.then_some(walk.done)))
}

struct Walk<'a> {
    root: &'a Path,
    query: &'a Query,
    looks: usize,
    files: Vec<Listed>,
    /// All up to here has been seen.
    done: String,
    /// Whether it ended before everything had been seen.
    cut: bool,
}

impl Walk<'_> {
    /// What is below a directory; `base` is its path with a slash, or nothing.
    fn directory(
        &mut self,
        dir: PathBuf,
        base: &str,
        tenant: Option<&str>,
        depth: usize,
    ) -> io::Result<()> {
        for path in self.wanted(&dir, base)? {
            if self.looks == 0 || self.files.len() == self.query.limit {
                self.cut = true;
                return Ok(());
            }
            self.looks -= 1;
            if let Some(name) = path.strip_suffix('/') {
                if depth < DEEPEST {
                    let found = attempt(self.root, &path).and_then(|attempt| attempt.tenant());
                    let tenant = found.as_deref().or(tenant);
                    let others = attempt(self.root, &path).is_some() && !self.is_wanted(tenant);
                    if !others {
                        self.directory(self.root.join(name), &path, tenant, depth + 1)?;
                        if self.cut {
                            return Ok(());
                        }
                    }
                }
                self.done = format!("{path}{LAST}");
                continue;
            }
            // What has just gone is not listed.
            if self.is_wanted(tenant)
                && let Ok(found) = self.root.join(&path).symlink_metadata()
                && found.is_file()
            {
                let modified = found.modified()?.into();
                let (name, tenant) = (path.clone(), tenant.map(str::to_owned));
                self.files.push(Listed { name, tenant, bytes: found.len(), modified });
            }
            self.done = path;
        }
        Ok(())
    }

    fn is_wanted(&self, tenant: Option<&str>) -> bool {
        self.query.tenant.is_none() || self.query.tenant.as_deref() == tenant
    }

    /// The first paths of a directory that may be, or hold, what is wanted; those of directories end with a slash, which
    /// makes the order of entries that of all paths below them.
    fn wanted(&self, dir: &Path, base: &str) -> io::Result<Vec<String>> {
        let most = self.looks + 1;
        let entries = match std::fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut kept = BinaryHeap::new();
        for entry in entries {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if !is_plain(&name) || (base.is_empty() && name == FOLDER) {
                continue;
            }
            // A link is neither.
            let path = match entry.file_type() {
                Ok(kind) if kind.is_dir() => format!("{base}{name}/"),
                Ok(kind) if kind.is_file() => format!("{base}{name}"),
                _ => continue,
            };
            if !self.may_hold(&path) {
                continue;
            }
            kept.push(path);
            if kept.len() > most {
                kept.pop();
            }
        }
        Ok(kept.into_sorted_vec())
    }

    fn may_hold(&self, path: &str) -> bool {
        let (prefix, is_dir) = (&self.query.prefix, path.ends_with('/'));
        let below = path.starts_with(prefix) || (is_dir && prefix.starts_with(path));
        // A directory that holds the last path may hold later ones, unless nothing of it is left.
        let later = self.query.after.as_deref().is_none_or(|after| {
            let rest = after.strip_prefix(path).filter(|_| is_dir);
            path > after || rest.is_some_and(|rest| !rest.starts_with(LAST))
        });
        below && later
    }
}
