//! The secrets that sign and verify tokens: given, or made once and kept.

use std::ffi::OsString;
use std::path::Path;

use anyhow::{Context as _, Result};
use cogo::identity::{self, Keys};

use crate::exit::Failed;
use crate::private_file;
use crate::token::Lies;

/// The variable that may hold them: one, or several with commas between them. The first signs, all verify.
pub(crate) const VARIABLE: &str = "COGO_JWT_SECRET";
/// The file within the data directory that holds them otherwise, one a line.
pub(crate) const FILE: &str = "jwt-secret";

/// The secrets of the environment, else of the data directory, where one is made if there is none: for hubs,
/// which need one.
#[allow(dead_code)] // until hubs verify tokens
pub(crate) fn load(data_dir: &Path) -> Result<(Keys, Lies)> {
    load_or_make(std::env::var_os(VARIABLE), data_dir)
}

fn load_or_make(variable: Option<OsString>, data_dir: &Path) -> Result<(Keys, Lies)> {
    if let Some(found) = pick(variable, data_dir)? {
        return Ok(found);
    }
    let line = format!("{}\n", identity::generate_secret());
    // Whoever was first, made it: what counts is what lies there now.
    private_file::create(&data_dir.join(FILE), &line)?;
    pick(None, data_dir)?.context("the file with the secret of tokens went away")
}

/// The secrets of the environment, else of the data directory, if there are any: for whoever must not make
/// one, since no hub would know it.
pub(crate) fn find(data_dir: &Path) -> Result<Option<(Keys, Lies)>> {
    pick(std::env::var_os(VARIABLE), data_dir)
}

fn pick(variable: Option<OsString>, data_dir: &Path) -> Result<Option<(Keys, Lies)>> {
    if let Some(list) = variable.filter(|list| !list.is_empty()) {
        let keys = Keys::parse(&list.into_string().unwrap_or_default())
            .map_err(|error| Failed::usage(format!("{VARIABLE}: {error}")))?;
        return Ok(Some((keys, Lies::InEnvironment)));
    }
    let path = data_dir.join(FILE);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(error)
                .with_context(|| format!("reading the secret of tokens from {}", path.display()));
        }
    };
    let keys = Keys::parse(&text).map_err(|error| {
        Failed::usage(format!("{}: {error}", path.display()))
            .hint("Delete the file to have a new one made; tokens of the old one end with it.")
    })?;
    Ok(Some((keys, Lies::InFile(path))))
}

#[cfg(test)]
mod tests {
    use cogo::identity::{Claims, Role};

    use super::*;

    /// Whether two are the same, without looking at them.
    fn same(a: &Keys, b: &Keys) -> bool {
        b.signer(&a.mint(&Claims::new(Role::Anon, 0))).is_ok()
    }

    #[test]
    fn a_hub_makes_a_secret_once_and_keeps_it_to_its_owner() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(pick(None, dir.path()).expect("read").is_none());
        let (made, lies) = load_or_make(None, dir.path()).expect("made");
        let path = dir.path().join(FILE);
        assert_eq!(lies, Lies::InFile(path.clone()));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::metadata(&path).expect("a file").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        for (again, _) in [
            load_or_make(None, dir.path()).expect("kept"),
            load_or_make(Some(OsString::new()), dir.path()).expect("kept"),
            pick(None, dir.path()).expect("read").expect("there"),
        ] {
            assert!(same(&made, &again), "another secret");
        }
        let given = Some(OsString::from("0123456789abcdef0123456789abcdef"));
        let (other, lies) = load_or_make(given, dir.path()).expect("given");
        assert!(lies == Lies::InEnvironment && !same(&made, &other));
        assert!(
            same(&made, &load_or_make(None, dir.path()).expect("kept").0),
            "it was written over"
        );
    }

    #[test]
    fn secrets_that_are_none_are_refused_by_place_and_not_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        for bad in ["", "hunter2\n"] {
            std::fs::write(dir.path().join(FILE), bad).expect("a file");
            let error = format!("{:#}", load_or_make(None, dir.path()).expect_err("refused"));
            assert!(error.contains(FILE) && !error.contains("hunter2"), "{error}");
            assert_eq!(std::fs::read_to_string(dir.path().join(FILE)).expect("kept"), bad);
        }
        let error =
            load_or_make(Some("hunter2".into()), dir.path()).expect_err("refused").to_string();
        assert!(error.contains(VARIABLE) && !error.contains("hunter2"), "{error}");
    }
}
