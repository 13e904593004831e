//! Where the Postgres programs are.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::error::Error;
use super::layout::Layout;
use super::version::{MINIMUM, Version};

/// Directories in which packages put the programs without linking them into `PATH`. One `*` each.
const PLACES: &[&str] = if cfg!(windows) {
    &[r"C:\Program Files\PostgreSQL\*\bin"]
} else {
    &[
        "/usr/lib/postgresql/*/bin",          // Debian, Ubuntu
        "/usr/pgsql-*/bin",                   // the PGDG packages for RPM systems
        "/opt/homebrew/opt/postgresql@*/bin", // Homebrew on Apple silicon
        "/usr/local/opt/postgresql@*/bin",    // Homebrew on Intel
        "/Applications/Postgres.app/Contents/Versions/*/bin",
        "/usr/local/pgsql/bin", // built from source
    ]
};

/// The programs of one Postgres.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Binaries {
    dir: PathBuf,
    version: Version,
}

impl Binaries {
    /// Tries the programs in `dir`.
    pub(crate) fn probe(dir: &Path) -> io::Result<Self> {
        let unusable = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let program = |name| dir.join(name).with_extension(env::consts::EXE_EXTENSION);
        if !program("initdb").is_file() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "there is no `initdb`"));
        }
        let output =
            Command::new(program("postgres")).arg("--version").stdin(Stdio::null()).output()?;
        let version = Version::parse(&String::from_utf8_lossy(&output.stdout))
            .ok_or_else(|| unusable("`postgres --version` gives no version"))?;
        Ok(Self { dir: dir.to_owned(), version })
    }

    /// Finds the programs for a new cluster in `root`.
    #[cfg(feature = "test-util")]
    pub(crate) fn find(root: &Path) -> Result<Self, Error> {
        binaries(&Layout::of(root), None, None)
    }

    pub(crate) fn version(&self) -> Version {
        self.version
    }

    /// The path of `name`.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name).with_extension(env::consts::EXE_EXTENSION)
    }
}

/// Finds the programs: of `major`, if the data need that, else the newest.
pub(crate) fn binaries(
    layout: &Layout,
    pg_bin: Option<&Path>,
    major: Option<u32>,
) -> Result<Binaries, Error> {
    let from_environment = env::var_os("COGO_PG_BIN").filter(|dir| !dir.is_empty());
    let explicit = pg_bin
        .map(|dir| ("the directory of the Postgres programs", dir.to_owned()))
        .or_else(|| from_environment.map(|dir| ("COGO_PG_BIN", PathBuf::from(dir))));
    if let Some((origin, dir)) = explicit {
        return at(origin, dir, layout, major);
    }
    let mut search = Search::default();
    search.pattern(&layout.downloads().join("*").join("bin"));
    search.path(env::var_os("PATH"));
    search.pg_config();
    for place in PLACES {
        search.pattern(Path::new(place));
    }
    search.choose(layout, major)
}

/// The programs in a directory that was named, which must be right.
fn at(
    origin: &'static str,
    dir: PathBuf,
    layout: &Layout,
    major: Option<u32>,
) -> Result<Binaries, Error> {
    // Naming the installation instead of its `bin` is as clear.
    let found = match Binaries::probe(&dir) {
        Err(_) if dir.join("bin").is_dir() => Binaries::probe(&dir.join("bin")),
        found => found,
    };
    match found {
        Err(source) => Err(Error::WrongBin { origin, dir, source: Some(source) }),
        Ok(found) if found.version.major < MINIMUM => {
            Err(Error::TooOld { origin, dir, version: found.version })
        }
        Ok(found) => match major {
            Some(data) if data != found.version.major => {
                Err(Error::OtherMajor { dir: layout.cluster(), data, found: vec![found.version] })
            }
            _ => Ok(found),
        },
    }
}

/// What was searched, and what was found there.
#[derive(Debug, Default)]
struct Search {
    searched: Vec<String>,
    found: Vec<Binaries>,
}

impl Search {
    fn pattern(&mut self, pattern: &Path) {
        self.searched.push(pattern.display().to_string());
        for dir in expand(pattern) {
            self.dir(&dir);
        }
    }

    fn path(&mut self, path: Option<OsString>) {
        self.searched.push("PATH".to_owned());
        for dir in path.iter().flat_map(env::split_paths).filter(|dir| dir.is_absolute()) {
            self.dir(&dir);
        }
    }

    fn pg_config(&mut self) {
        self.searched.push("`pg_config --bindir`".to_owned());
        let output = Command::new("pg_config").arg("--bindir").stdin(Stdio::null()).output();
        if let Ok(output) = output {
            self.dir(Path::new(String::from_utf8_lossy(&output.stdout).trim()));
        }
    }

    fn dir(&mut self, dir: &Path) {
        // What does not run here (another architecture, half an installation) is not there.
        if let Ok(found) = Binaries::probe(dir)
            && !self.found.contains(&found)
        {
            self.found.push(found);
        }
    }

    fn choose(self, layout: &Layout, major: Option<u32>) -> Result<Binaries, Error> {
        let fits = |found: &&Binaries| match major {
            Some(major) => found.version.major == major,
            None => found.version.major >= MINIMUM,
        };
        // The first of equals: what the user put into PATH goes before the usual places.
        let best = self.found.iter().filter(fits).rev().max_by_key(|found| found.version).cloned();
        match (best, major) {
            (Some(best), _) => Ok(best),
            (None, Some(data)) if !self.found.is_empty() => Err(Error::OtherMajor {
                dir: layout.cluster(),
                data,
                found: self.found.iter().map(Binaries::version).collect(),
            }),
            (None, _) => Err(Error::NotFound { searched: self.searched, major }),
        }
    }
}

/// The existing directories that match `pattern`, in which one component may hold one `*`.
fn expand(pattern: &Path) -> Vec<PathBuf> {
    let mut matches = vec![PathBuf::new()];
    for component in pattern.components() {
        let Some((start, end)) =
            component.as_os_str().to_str().and_then(|text| text.split_once('*'))
        else {
            matches.iter_mut().for_each(|path| path.push(component));
            continue;
        };
        matches = matches
            .iter()
            .filter_map(|parent| fs::read_dir(parent).ok())
            .flatten()
            .filter_map(Result::ok)
            .filter(|entry| {
                let name = entry.file_name();
                name.to_str().is_some_and(|name| name.starts_with(start) && name.ends_with(end))
            })
            .map(|entry| entry.path())
            .collect();
    }
    matches.retain(|path| path.is_dir());
    matches
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// An installation whose `postgres` only knows its version.
    fn install(bin: &Path, version: &str) -> anyhow::Result<()> {
        fs::create_dir_all(bin)?;
        for name in ["postgres", "initdb"] {
            let program = bin.join(name);
            fs::write(&program, format!("#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n"))?;
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        }
        Ok(())
    }

    fn search(dir: &Path) -> Search {
        let mut search = Search::default();
        search.pattern(&dir.join("lib/*/bin"));
        search
    }

    #[test]
    fn the_newest_is_chosen_but_existing_data_need_their_own_major() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let layout = Layout::create(&dir.path().join("data"))?;
        for version in ["9.6.1", "15.4", "15.10", "17.0"] {
            install(&dir.path().join("lib").join(version).join("bin"), version)?;
        }
        let chosen = |major| {
            search(dir.path()).choose(&layout, major).map(|found| found.version.to_string())
        };
        assert_eq!(chosen(None)?, "17.0");
        assert_eq!(chosen(Some(15))?, "15.10");

        let refused = chosen(Some(16)).expect_err("there is no 16").to_string();
        assert!(refused.contains("data of Postgres 16"), "{refused}");
        assert!(refused.contains("Postgres 17.0") && refused.contains("COGO_PG_BIN"), "{refused}");
        Ok(())
    }

    #[test]
    fn when_nothing_is_found_every_place_and_the_remedy_are_named() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let layout = Layout::create(&dir.path().join("data"))?;
        install(&dir.path().join("lib/old/bin"), "14.9")?;
        let refused = search(dir.path()).choose(&layout, None).expect_err("14 is too old");
        let refused = refused.to_string();
        for part in ["lib/*/bin", "15 or later", "apt install", "brew install", "COGO_PG_BIN"] {
            assert!(refused.contains(part), "{refused}");
        }
        Ok(())
    }

    #[test]
    fn a_named_directory_that_is_too_old_is_refused() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let layout = Layout::create(&dir.path().join("data"))?;
        let old = dir.path().join("old");
        install(&old.join("bin"), "14.9")?;
        let refused = at("COGO_PG_BIN", old, &layout, None).expect_err("14 is too old").to_string();
        assert!(refused.starts_with("COGO_PG_BIN is "), "{refused}");
        assert!(refused.contains("Postgres 14.9"), "{refused}");
        Ok(())
    }
}
