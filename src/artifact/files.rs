//! The files that runs leave: those of each attempt of a tool call, `mcp/<toolset>/<time>-<message id>/…`, and whatever
//! else lies in the artifacts directory but for the store's folder.
//!
//! Such a file is named by its path. Whose it is stands in the attempt's `summary.json`, not in the path: paths are in
//! the log, and must lead there for as long as the log lasts.

mod summary;
mod sweep;
mod walk;

use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};

pub use summary::{Summary, Toolset, summarise};
pub use sweep::{Swept, sweep};
pub use walk::{Listed, Query, list};

/// Below which the attempts of tool calls lie.
const ATTEMPTS: &str = "mcp";
/// The file of an attempt that says whose it is.
const SUMMARY: &str = "summary.json";
/// The largest summary that is read for that.
const SUMMARY_MAX: u64 = 64 << 10;

/// Whether a part of a path is a name and nothing else, on every system: not empty, not hidden, no
/// separator, no drive or stream.
#[must_use]
pub fn is_plain(part: &str) -> bool {
    !part.is_empty()
        && !part.starts_with('.')
        && !part.contains(|c: char| matches!(c, '/' | '\\' | ':') || c.is_control())
}

/// Whether a text can begin the path of a file: parts that are plain, of which the last may be unfinished.
#[must_use]
pub fn is_prefix(prefix: &str) -> bool {
    let Some((parts, last)) = prefix.rsplit_once('/') else {
        return prefix.is_empty() || is_plain(prefix);
    };
    parts.split('/').all(is_plain) && (last.is_empty() || is_plain(last))
}

/// The type of a file by the end of its name. What could be a page, or could act, is just bytes.
#[must_use]
pub fn mime_of(name: &str) -> &'static str {
    let end = name.rsplit_once('.').map(|(_, end)| end.to_ascii_lowercase()).unwrap_or_default();
    match end.as_str() {
        "json" => "application/json",
        "txt" | "log" | "md" => "text/plain; charset=utf-8",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "avif" => "image/avif",
        _ => super::OCTETS,
    }
}

/// The directory of one attempt.
#[derive(Debug, Clone)]
struct Attempt {
    path: PathBuf,
}

impl Attempt {
    /// Whose it is, as far as it says.
    fn tenant(&self) -> Option<String> {
        #[derive(serde::Deserialize)]
        struct Whose {
            tenant: String,
        }
        let path = self.path.join(SUMMARY);
        // Opening a pipe would wait for its writer, and a link may lead to one.
        path.symlink_metadata().ok().filter(std::fs::Metadata::is_file)?;
        let file = std::fs::File::open(path).ok()?;
        let whose: Whose = serde_json::from_reader(std::io::BufReader::new(std::io::Read::take(
            file,
            SUMMARY_MAX,
        )))
        .ok()?;
        Some(whose.tenant).filter(|tenant| crate::message::valid_name(tenant))
    }
}

/// The attempt whose directory this path, `mcp/<toolset>/<name>/`, is.
fn attempt(root: &Path, path: &str) -> Option<Attempt> {
    let mut parts = path.strip_suffix('/')?.split('/');
    let is_one = parts.next() == Some(ATTEMPTS) && parts.clone().count() == 2;
    is_one.then(|| Attempt { path: root.join(path.trim_end_matches('/')) })
}

/// When an attempt was written, as the name of its directory says: `20261121T093000.123Z-…`.
fn written(name: &str) -> Option<DateTime<Utc>> {
    let time = name.split_once('-')?.0;
    let time = chrono::NaiveDateTime::parse_from_str(time, "%Y%m%dT%H%M%S%.3fZ").ok()?;
    Some(time.and_utc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_leads_nowhere_but_down() {
        for good in ["", "mcp", "mcp/", "mcp/demo/2026", "blobs/acme/ab", "a b/c"] {
            assert!(is_prefix(good), "{good:?}");
        }
        for bad in [
            "/", "..", "../", "mcp/..", "mcp/../x", "mcp//x", ".", "mcp/.tmp", "a\0", "a\\b", "c:",
            "a\nb",
        ] {
            assert!(!is_prefix(bad), "{bad:?}");
        }
    }

    #[test]
    fn the_name_of_an_attempt_says_when_it_was() {
        let at =
            written("20261121T093000.123Z-0190a1b2-0000-7000-8000-000000000000").expect("a time");
        assert_eq!(at.to_rfc3339(), "2026-11-21T09:30:00.123+00:00");
        for bad in ["", "today", "20261121T093000.123Z", "20261321T093000.123Z-x"] {
            assert_eq!(written(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn no_type_is_that_of_a_page() {
        for name in ["a.html", "a.svg", "a.xhtml", "a.xml", "a.js", "a.css", "a.pdf", "html", "a."]
        {
            assert_eq!(mime_of(name), super::super::OCTETS, "{name}");
        }
        assert_eq!(mime_of("a.JPG"), "image/jpeg");
    }
}
