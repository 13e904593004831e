//! Where everything is.

use std::env;
use std::path::{Path, PathBuf};

use super::account::{self, RunAs};
use super::error::Error;

/// The paths below one data directory; all absolute.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    data_dir: PathBuf,
}

impl Layout {
    /// The layout of `data_dir`, which is created when it is missing.
    pub(crate) fn create(data_dir: &Path) -> Result<Self, Error> {
        account::create_data_dir(data_dir)?;
        let data_dir =
            data_dir.canonicalize().map_err(Error::io("find the data directory", data_dir))?;
        Ok(Self { data_dir })
    }

    /// The layout of `data_dir` if that exists.
    pub(crate) fn existing(data_dir: &Path) -> Option<Self> {
        data_dir.canonicalize().ok().map(|data_dir| Self { data_dir })
    }

    /// The layout of a directory that need not exist.
    #[cfg(feature = "test-util")]
    pub(crate) fn of(data_dir: &Path) -> Self {
        Self { data_dir: data_dir.to_owned() }
    }

    /// Creates the directories that the server's user owns, and says who that is.
    pub(crate) fn prepare(&self) -> Result<RunAs, Error> {
        let run_as = RunAs::choose(&self.root())?;
        run_as.create_private_dir(&self.root())?;
        run_as.create_private_dir(&self.socket_dir())?;
        Ok(run_as)
    }

    pub(crate) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.data_dir.join("postgres.lock")
    }

    pub(crate) fn downloads(&self) -> PathBuf {
        self.data_dir.join("postgres-bin")
    }

    /// What belongs to the server's user.
    pub(crate) fn root(&self) -> PathBuf {
        self.data_dir.join("postgres")
    }

    pub(crate) fn cluster(&self) -> PathBuf {
        self.root().join("data")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.root().join("server.log")
    }

    /// The password of the superuser, where the transport needs one.
    pub(crate) fn password(&self) -> PathBuf {
        self.root().join("password")
    }

    /// The directory of the socket: below the data directory if that leaves room for the name.
    pub(crate) fn socket_dir(&self) -> PathBuf {
        let below = self.root().join("run");
        if fits(&below) {
            return below;
        }
        let name = format!("cogo-{:016x}", fnv1a(self.data_dir.as_os_str().as_encoded_bytes()));
        let temporary = env::temp_dir().join(&name);
        if fits(&temporary) { temporary } else { Path::new("/tmp").join(name) }
    }
}

/// Whether a socket in `dir` has a path that `sockaddr_un` can hold: 104 bytes with the final NUL on
/// macOS and the BSDs, 108 on Linux.
fn fits(dir: &Path) -> bool {
    dir.join(".s.PGSQL.5432").as_os_str().len() <= 103
}

/// FNV-1a, because the name must be the same in every build of ours.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Where data go when nothing else is said: as root `/var/lib/cogo`, else the platform's directory
/// for a user's application data.
///
/// # Errors
/// When the environment names no home directory.
pub fn default_data_dir() -> Result<PathBuf, Error> {
    if account::is_root() {
        return Ok(PathBuf::from("/var/lib/cogo"));
    }
    // The XDG specification wants relative paths to be ignored.
    let dir = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    if cfg!(windows) {
        dir("LOCALAPPDATA").map(|base| base.join("cogo"))
    } else if cfg!(target_os = "macos") {
        dir("HOME").map(|home| home.join("Library/Application Support/cogo"))
    } else {
        dir("XDG_DATA_HOME")
            .or_else(|| dir("HOME").map(|home| home.join(".local/share")))
            .map(|base| base.join("cogo"))
    }
    .ok_or(Error::NoHome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_path_is_short_however_long_the_data_directory_is() {
        let short = Layout { data_dir: PathBuf::from("/var/lib/cogo") };
        assert_eq!(short.socket_dir(), Path::new("/var/lib/cogo/postgres/run"));

        let long = Layout { data_dir: Path::new("/").join("d".repeat(200)) };
        let other = Layout { data_dir: Path::new("/").join("e".repeat(200)) };
        assert!(fits(&long.socket_dir()), "{}", long.socket_dir().display());
        assert_ne!(long.socket_dir(), other.socket_dir());
    }
}
