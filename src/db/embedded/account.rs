//! Whom the server runs as, and the directories that must be that user's.
//!
//! Postgres refuses to run as root. As root we run it as `postgres`, else `nobody`; as anyone else it
//! runs as ourselves.

use std::fs::{self, DirBuilder};
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use super::error::Error;

/// Whom the server runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RunAs(Option<Account>);

/// A user to change to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Account {
    name: String,
    uid: u32,
    gid: u32,
}

impl RunAs {
    /// Chooses for a server whose files are, or will be, in `root`.
    pub(crate) fn choose(root: &Path) -> Result<Self, Error> {
        if !is_root() {
            return Ok(Self(None));
        }
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        // Files that are there decide: `postgres` may have been installed since.
        let account = match owner(root) {
            Some((uid, gid)) if uid != 0 => {
                Some(find_account(&users, |account| account.uid == uid).unwrap_or(Account {
                    name: uid.to_string(),
                    uid,
                    gid,
                }))
            }
            _ => ["postgres", "nobody"]
                .iter()
                .find_map(|name| find_account(&users, |account| account.name == *name)),
        };
        account.map(|account| Self(Some(account))).ok_or(Error::NoAccount)
    }

    /// Makes `command` run as that user, with no supplementary groups and nothing that would reach
    /// the server by the environment.
    pub(crate) fn apply(&self, command: &mut Command) {
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"PG") {
                command.env_remove(name);
            }
        }
        command.env("LC_ALL", "C").stdin(Stdio::null());
        #[cfg(unix)]
        if let Some(account) = &self.0 {
            use std::os::unix::process::CommandExt;
            // Changing the user as root also clears the supplementary groups.
            command.uid(account.uid).gid(account.gid).env("USER", &account.name);
        }
    }

    /// Creates `dir`, or checks what is there: it must be that user's and closed to everyone else.
    pub(crate) fn create_private_dir(&self, dir: &Path) -> Result<(), Error> {
        match private(&mut DirBuilder::new()).create(dir) {
            Ok(()) => self.own(dir),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // We may have been killed between creating it and giving it away.
                if self.0.is_some() && owner(dir).is_some_and(|(uid, _)| uid == 0) {
                    self.own(dir)?;
                }
                self.check_private_dir(dir)
            }
            Err(source) => {
                Err(Error::Io { action: "create the directory", path: dir.to_owned(), source })
            }
        }
    }

    #[cfg(unix)]
    fn check_private_dir(&self, dir: &Path) -> Result<(), Error> {
        use std::os::unix::fs::MetadataExt;
        let wrong = |problem| Err(Error::Directory { dir: dir.to_owned(), problem });
        let found = fs::symlink_metadata(dir).map_err(Error::io("inspect", dir))?;
        let uid = self.0.as_ref().map_or_else(effective_uid, |account| account.uid);
        if !found.is_dir() {
            wrong("is not a directory")
        } else if found.uid() != uid {
            wrong("does not belong to the user that runs Postgres")
        } else if found.mode() & 0o077 != 0 {
            wrong("is open to other users; `chmod 700` it")
        } else {
            Ok(())
        }
    }

    #[cfg(not(unix))]
    fn check_private_dir(&self, _dir: &Path) -> Result<(), Error> {
        Ok(()) // the user's application data, which the system keeps private
    }

    /// Gives `path` itself, never what it links to, to that user.
    pub(crate) fn own(&self, path: &Path) -> Result<(), Error> {
        #[cfg(unix)]
        if let Some(account) = &self.0 {
            std::os::unix::fs::lchown(path, Some(account.uid), Some(account.gid))
                .map_err(Error::io("change the owner of", path))?;
        }
        let _ = path;
        Ok(())
    }

    /// Gives an open file to that user, who may start the next server without us.
    pub(crate) fn own_file(&self, file: &fs::File) -> io::Result<()> {
        #[cfg(unix)]
        if let Some(account) = &self.0 {
            std::os::unix::fs::fchown(file, Some(account.uid), Some(account.gid))?;
        }
        let _ = file;
        Ok(())
    }

    /// Checks that the user can run `program` and enter `dir`, by doing so: modes alone would not
    /// show access lists, mount options or security modules.
    pub(crate) fn check_reach(&self, program: &Path, dir: &Path) -> Result<(), Error> {
        let Some(account) = &self.0 else {
            return Ok(());
        };
        let user = account.name.clone();
        let run_in = |dir: &Path, program: &Path, arguments: &[&str]| {
            let mut command = Command::new(program);
            self.apply(&mut command);
            command.args(arguments).current_dir(dir).stdout(Stdio::null()).stderr(Stdio::null());
            command.status()
        };
        let mut way: Vec<&Path> = dir.ancestors().collect();
        way.reverse();
        for step in way {
            match run_in(step, Path::new("/bin/sh"), &["-c", ":"]) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    return Err(Error::Unreachable { dir: step.to_owned(), user });
                }
                Err(source) => {
                    return Err(Error::Io { action: "enter", path: step.to_owned(), source });
                }
            }
        }
        run_in(Path::new("/"), program, &["--version"])
            .map(drop)
            .map_err(|source| Error::NotExecutable { program: program.to_owned(), user, source })
    }
}

/// Creates the data directory and what is missing above it. As root these can be
/// passed through by the server's user, but not listed.
pub(crate) fn create_data_dir(dir: &Path) -> Result<(), Error> {
    let failed =
        |source| Error::Io { action: "create the directory", path: dir.to_owned(), source };
    let missing = |parent: &&Path| !parent.as_os_str().is_empty() && !parent.exists();
    if let Some(parent) = dir.parent().filter(missing) {
        create_data_dir(parent)?;
    }
    match private(&mut DirBuilder::new()).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(failed(error)),
        #[cfg(unix)]
        Ok(()) if is_root() => {
            // Not by the mode at creation, from which the umask takes away.
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o711);
            fs::set_permissions(dir, mode).map_err(failed)
        }
        Ok(()) => Ok(()),
    }
}

/// Whether we are root.
pub(crate) fn is_root() -> bool {
    cfg!(unix) && effective_uid() == 0
}

#[cfg(unix)]
fn effective_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(not(unix))]
fn effective_uid() -> u32 {
    u32::MAX
}

#[cfg(unix)]
fn owner(path: &Path) -> Option<(u32, u32)> {
    use std::os::unix::fs::MetadataExt;
    fs::symlink_metadata(path).ok().map(|found| (found.uid(), found.gid()))
}

#[cfg(not(unix))]
fn owner(_path: &Path) -> Option<(u32, u32)> {
    None
}

fn private(builder: &mut DirBuilder) -> &mut DirBuilder {
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(builder, 0o700);
    builder
}

/// Looks an account up in the text of `/etc/passwd`, where the system's own accounts are even on
/// machines whose people come from a directory service.
fn find_account(passwd: &str, wanted: impl Fn(&Account) -> bool) -> Option<Account> {
    // macOS gives `nobody` the id -2.
    let id =
        |text: &str| text.parse::<u32>().ok().or(text.parse::<i32>().ok().map(i32::cast_unsigned));
    passwd
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?.to_owned();
            let (uid, gid) = (id(fields.nth(1)?)?, id(fields.next()?)?);
            Some(Account { name, uid, gid })
        })
        .find(|account| account.uid != 0 && wanted(account))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_found_and_never_are_root() {
        let passwd = "root:x:0:0::/:/bin/sh\n# a comment\nnobody:*:-2:-2:Nobody:/:/bin/false\n\
                      postgres:x:101:104::/var/lib/postgresql:/bin/bash\n";
        let named = |name: &str| find_account(passwd, |account| account.name == name);
        assert_eq!(named("postgres").map(|found| (found.uid, found.gid)), Some((101, 104)));
        assert_eq!(named("nobody").map(|found| found.uid), Some(u32::MAX - 1));
        assert_eq!(named("root"), None);
    }
}
