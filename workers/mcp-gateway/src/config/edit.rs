//! Changes of `configs/mcp.json`, by a command or by the API: one at a time, checked first, and as a whole.
//!
//! What the file says beside the change stays as it is, in its order; it is written anew as pretty JSON. Whoever reads
//! it meanwhile sees the old file or the new one. A person's editor holds no lock, so the file is looked at once more
//! before it is replaced.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cogo::clock::Stopwatch;
use serde_json::{Map, Value, json};

use super::{Config, FILE, Toolset};

/// Where the file's schema lies, for one that is made anew.
const SCHEMA: &str = "schema/mcp.schema.json";
/// The file that says that somebody is at it.
const LOCK: &str = ".mcp.json.lock";
/// How long another editor is waited for; none takes longer than a moment.
const LOCK_WITHIN: Duration = Duration::from_secs(5);
const LOCK_AGAIN: Duration = Duration::from_millis(20);

/// Why the file was not changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EditError {
    /// Somebody else is at it.
    #[error("somebody else is changing {}; try again", .0.display())]
    Busy(PathBuf),
    /// It was changed by somebody who holds no lock.
    #[error("{} was changed meanwhile; nothing was written, try again", .0.display())]
    Changed(PathBuf),
    /// The toolset is there already.
    #[error("there is a toolset {0:?} already")]
    Exists(String),
    /// There is no such toolset.
    #[error("there is no toolset {name:?}; there are: {known}")]
    Missing {
        /// What was named.
        name: String,
        /// What there is.
        known: String,
    },
    /// What would be written is no good configuration, or what is there is none.
    #[error("{}", .path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: super::Error,
    },
    /// The disk refused.
    #[error("cannot write {}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// One change of the file. The lock goes with it.
#[derive(Debug)]
pub struct Edit {
    path: PathBuf,
    /// What it said when it was read; nothing where it is not there.
    before: Option<String>,
    document: Map<String, Value>,
    config: Config,
    _lock: File,
}

impl Edit {
    /// Begins to change `mcp.json` of `dir`, which is made if it is not there.
    ///
    /// # Errors
    /// When somebody else is at it, or what is there cannot be read.
    pub fn begin(dir: &Path) -> Result<Self, EditError> {
        let path = dir.join(FILE);
        let io = |source| EditError::Io { path: path.clone(), source };
        std::fs::create_dir_all(dir).map_err(io)?;
        let lock = lock(&dir.join(LOCK)).map_err(io)?;
        let Some(lock) = lock else { return Err(EditError::Busy(path)) };
        let before = read(&path).map_err(io)?;
        let text = before.clone().unwrap_or_else(|| json!({"$schema": SCHEMA}).to_string());
        let config = parsed(&path, &text)?;
        // It has just been read as an object.
        let document = serde_json::from_str(&text).unwrap_or_default();
        Ok(Self { path, before, document, config, _lock: lock })
    }

    /// What the file says.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a toolset, or puts it in place of the one that is there if `replace` says so. What is as it would be
    /// anyway is not written.
    ///
    /// # Errors
    /// [`EditError::Exists`].
    pub fn put(&mut self, name: &str, toolset: &Toolset, replace: bool) -> Result<(), EditError> {
        let toolsets = self.toolsets();
        if toolsets.contains_key(name) && !replace {
            return Err(EditError::Exists(name.to_owned()));
        }
        toolsets.insert(name.to_owned(), brief(toolset));
        Ok(())
    }

    /// Takes a toolset out.
    ///
    /// # Errors
    /// [`EditError::Missing`].
    pub fn remove(&mut self, name: &str) -> Result<(), EditError> {
        match self.toolsets().shift_remove(name) {
            Some(_) => Ok(()),
            None => Err(self.missing(name)),
        }
    }

    /// Enables or disables a toolset; whether it was not so already.
    ///
    /// # Errors
    /// [`EditError::Missing`].
    pub fn enable(&mut self, name: &str, enabled: bool) -> Result<bool, EditError> {
        let Some(was) = self.config.toolsets.get(name).map(|toolset| toolset.enabled) else {
            return Err(self.missing(name));
        };
        if let Some(toolset) = self.toolsets().get_mut(name).and_then(Value::as_object_mut) {
            if enabled {
                toolset.shift_remove("enabled");
            } else {
                toolset.insert("enabled".to_owned(), json!(false));
            }
        }
        Ok(was != enabled)
    }

    /// Checks the whole and writes it.
    ///
    /// # Errors
    /// When it would be no good configuration, was changed meanwhile, or the disk refuses. The file is as it was.
    pub fn save(self) -> Result<Config, EditError> {
        let io = |source| EditError::Io { path: self.path.clone(), source };
        let mut text = serde_json::to_string_pretty(&self.document)
            .map_err(|error| io(io::Error::from(error)))?;
        text.push('\n');
        let config = parsed(&self.path, &text)?;
        if read(&self.path).map_err(io)? != self.before {
            return Err(EditError::Changed(self.path.clone()));
        }
        replace(&self.path, &text).map_err(io)?;
        Ok(config)
    }

    fn toolsets(&mut self) -> &mut Map<String, Value> {
        let toolsets = self.document.entry("toolsets").or_insert_with(|| json!({}));
        toolsets.as_object_mut().expect("it was read as such, or has just been made")
    }

    fn missing(&self, name: &str) -> EditError {
        let known: Vec<_> = self.config.toolsets.keys().map(String::as_str).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        EditError::Missing { name: name.to_owned(), known }
    }
}

fn parsed(path: &Path, text: &str) -> Result<Config, EditError> {
    Config::parse(FILE, text).map_err(|source| EditError::Config { path: path.to_owned(), source })
}

fn read(path: &Path) -> io::Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A toolset as a person would write it.
fn brief(toolset: &Toolset) -> Value {
    let fields = |toolset: &Toolset| match serde_json::to_value(toolset) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    let defaults = fields(&Toolset::default());
    let mut fields = fields(toolset);
    fields.retain(|name, value| defaults.get(name) != Some(value));
    Value::Object(fields)
}

/// The lock, unless somebody holds it for too long.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true);
    let file = options.open(path)?;
    let waited = Stopwatch::start();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) if waited.elapsed() >= LOCK_WITHIN => return Ok(None),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_AGAIN),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// Puts `text` in the file's place. Where that is a link, what it leads to is replaced, and the link stays.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let temporary = target.with_file_name(format!(".tmp-{}-{FILE}", std::process::id()));
    let written = (|| {
        let mut file = File::create(&temporary)?;
        if let Ok(was) = target.metadata() {
            file.set_permissions(was.permissions())?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, &target)
    })();
    if written.is_err() {
        let _never_made = std::fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVEN: &str = "{\n  \"toolsets\": {\n    \"b\": {\"url\": \"ws://localhost:1\", \"enabled\": true},\n    \
                         \"a\": {\"command\": \"x\", \"fallback\": \"b\"}\n  },\n  \"mesh\": {\"grace_s\": 7},\n  \
                         \"$schema\": \"elsewhere.json\"\n}";

    fn given(text: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join(FILE), text).expect("written");
        dir
    }

    fn text(dir: &tempfile::TempDir) -> String {
        std::fs::read_to_string(dir.path().join(FILE)).expect("read")
    }

    #[test]
    fn a_change_leaves_everything_else_as_it_was_and_in_its_order() {
        let dir = given(GIVEN);
        let mut edit = Edit::begin(dir.path()).expect("begun");
        let timed = Toolset { max_in_flight: 3, ..Toolset::at("https://x.example/mcp") };
        edit.put("c", &timed, false).expect("added");
        edit.save().expect("saved");
        let expected = r#"{
  "toolsets": {
    "b": {
      "url": "ws://localhost:1",
      "enabled": true
    },
    "a": {
      "command": "x",
      "fallback": "b"
    },
    "c": {
      "url": "https://x.example/mcp",
      "max_in_flight": 3
    }
  },
  "mesh": {
    "grace_s": 7
  },
  "$schema": "elsewhere.json"
}
"#;
        assert_eq!(text(&dir), expected);
        let mut edit = Edit::begin(dir.path()).expect("begun");
        assert!(edit.enable("c", false).expect("there"));
        edit.save().expect("saved");
        assert!(text(&dir).contains("\"enabled\": false"));
        let mut edit = Edit::begin(dir.path()).expect("begun");
        assert!(edit.enable("c", true).expect("there"));
        assert!(!edit.enable("b", true).expect("there"), "it is enabled");
        edit.remove("c").expect("there");
        edit.save().expect("saved");
        assert!(!text(&dir).contains("x.example"));
    }

    #[test]
    fn what_would_be_no_good_configuration_is_not_written() {
        let dir = given(GIVEN);
        let mut edit = Edit::begin(dir.path()).expect("begun");
        edit.remove("b").expect("there");
        let refused = edit.save().expect_err("a's fallback is gone");
        let told = cogo::error::chain(&refused).to_string();
        assert!(told.contains("toolsets.a.fallback: must name an enabled toolset"), "{told}");
        assert_eq!(text(&dir), GIVEN);
        let mut edit = Edit::begin(dir.path()).expect("begun");
        assert!(matches!(edit.put("a", &Toolset::at("ws://x"), false), Err(EditError::Exists(_))));
        let missing = edit.remove("zzz").expect_err("not there").to_string();
        assert_eq!(missing, "there is no toolset \"zzz\"; there are: a, b");
        let bad = given("{\"toolsets\": [}");
        assert!(matches!(Edit::begin(bad.path()), Err(EditError::Config { .. })));
    }

    #[test]
    fn a_file_that_is_not_there_is_made_and_one_that_changed_meanwhile_is_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let inside = dir.path().join("configs");
        let mut edit = Edit::begin(&inside).expect("begun");
        edit.put("a", &Toolset::command("x", ["y"]), false).expect("added");
        edit.save().expect("saved");
        let config = Config::load(&inside).expect("good");
        assert_eq!(config.schema.as_deref(), Some(SCHEMA));
        let mut edit = Edit::begin(&inside).expect("begun");
        edit.remove("a").expect("there");
        std::fs::write(inside.join(FILE), "{}").expect("by hand");
        assert!(matches!(edit.save(), Err(EditError::Changed(_))));
        let left: Vec<_> = std::fs::read_dir(&inside).expect("read").flatten().collect();
        assert!(left.iter().all(|file| !file.file_name().to_string_lossy().starts_with(".tmp")));
    }

    #[test]
    fn of_many_editors_at_once_none_undoes_another() {
        let dir = given("{}");
        std::thread::scope(|scope| {
            for number in 0..12 {
                let dir = dir.path();
                scope.spawn(move || {
                    let mut edit = Edit::begin(dir).expect("begun");
                    let url = format!("ws://localhost:{}", 4000 + number);
                    edit.put(&format!("t{number}"), &Toolset::at(url), false).expect("added");
                    edit.save().expect("saved");
                });
            }
        });
        assert_eq!(Config::load(dir.path()).expect("good").toolsets.len(), 12);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_a_link_and_permissions_stay() {
        use std::os::unix::fs::PermissionsExt as _;
        let (dir, real) = (tempfile::tempdir().expect("a directory"), given("{}"));
        let (link, target) = (dir.path().join(FILE), real.path().join(FILE));
        std::fs::set_permissions(&target, PermissionsExt::from_mode(0o640)).expect("set");
        std::os::unix::fs::symlink(&target, &link).expect("linked");
        let mut edit = Edit::begin(dir.path()).expect("begun");
        edit.put("a", &Toolset::at("ws://localhost:1"), false).expect("added");
        edit.save().expect("saved");
        assert!(link.symlink_metadata().expect("there").is_symlink());
        assert!(text(&real).contains("localhost:1"));
        let mode = target.metadata().expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
    }
}
