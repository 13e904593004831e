//! What all attempts come to.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{ATTEMPTS, Query, SUMMARY, list};
use crate::artifact::Usage;

/// What the files of a directory come to.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// How many files.
    pub files: u64,
    /// How large they are together.
    pub bytes: u64,
    /// Of each tenant, as far as files say whose they are.
    pub tenants: BTreeMap<String, Usage>,
    /// Of each toolset.
    pub toolsets: BTreeMap<String, Toolset>,
    /// When the oldest was written.
    pub oldest: Option<DateTime<Utc>>,
    /// When the newest was written.
    pub newest: Option<DateTime<Utc>>,
    /// Whether there are more than were looked at.
    pub truncated: bool,
}

/// What the attempts of a toolset come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Toolset {
    /// How many.
    pub attempts: u64,
    /// How large their files are together.
    pub bytes: u64,
}

impl Summary {
    /// Counts something in.
    pub fn count(&mut self, tenant: Option<&str>, bytes: u64, modified: DateTime<Utc>) {
        self.files += 1;
        self.bytes += bytes;
        if let Some(tenant) = tenant {
            let usage = self.tenants.entry(tenant.to_owned()).or_default();
            usage.count += 1;
            usage.bytes += bytes;
        }
        self.oldest = Some(self.oldest.map_or(modified, |oldest| oldest.min(modified)));
        self.newest = Some(self.newest.map_or(modified, |newest| newest.max(modified)));
    }
}

/// Looks at no more than `looks` files and directories below `root`.
///
/// # Errors
/// When the disk refuses.
pub fn summarise(root: &Path, looks: usize) -> io::Result<Summary> {
    let query = Query { limit: looks, looks, ..Query::default() };
    let (files, next) = list(root, &query)?;
    let mut summary = Summary { truncated: next.is_some(), ..Summary::default() };
    for file in files {
        summary.count(file.tenant.as_deref(), file.bytes, file.modified);
        let mut parts = file.name.split('/');
        if let (Some(ATTEMPTS), Some(toolset), Some(_), Some(name), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        {
            let toolset = summary.toolsets.entry(toolset.to_owned()).or_default();
            toolset.attempts += u64::from(name == SUMMARY);
            toolset.bytes += file.bytes;
        }
    }
    Ok(summary)
}
