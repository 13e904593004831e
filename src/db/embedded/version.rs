//! Postgres versions: of programs, and of the data they wrote.

use std::fmt;
use std::io;
use std::path::Path;

use super::error::Error;

/// The oldest major version that the schema works with.
pub(crate) const MINIMUM: u32 = 15;

/// A version of Postgres. Data are bound to the major one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Such as 15; changes the format of the data.
    pub major: u32,
    /// Such as 4; 0 for a version that is not yet released.
    pub minor: u32,
}

impl Version {
    /// Reads the answer to `postgres --version`, such as `postgres (PostgreSQL) 15.4 (Debian …)`.
    pub(crate) fn parse(output: &str) -> Option<Self> {
        let number = output
            .split_whitespace()
            .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
        let mut parts = number.split('.');
        let major = leading_digits(parts.next()?)?; // `19devel`, `18beta1`
        let minor = parts.next().and_then(leading_digits).unwrap_or(0);
        Some(Self { major, minor })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

fn leading_digits(text: &str) -> Option<u32> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().ok()
}

/// The major version of the data in `cluster`; `None` when there are none yet.
pub(crate) fn of_cluster(cluster: &Path) -> Result<Option<u32>, Error> {
    let path = cluster.join("PG_VERSION");
    match std::fs::read_to_string(&path) {
        Ok(text) => leading_digits(text.trim())
            .map(Some)
            .ok_or(Error::Directory { dir: path, problem: "does not hold a Postgres version" }),
        // A cluster appears by one rename, whole or not at all.
        Err(error) if error.kind() == io::ErrorKind::NotFound && !cluster.exists() => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::Directory {
            dir: cluster.to_owned(),
            problem: "exists, but is not a Postgres cluster; move it away or choose another --data-dir",
        }),
        Err(source) => Err(Error::Io { action: "read", path, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_every_form_of_answer() {
        let parse = |text| Version::parse(text).map(|version| (version.major, version.minor));
        assert_eq!(parse("postgres (PostgreSQL) 15.19 (Debian 15.19-0+deb12u1)"), Some((15, 19)));
        assert_eq!(parse("postgres (PostgreSQL) 18beta1"), Some((18, 0)));
        assert_eq!(parse("postgres (PostgreSQL) 19devel"), Some((19, 0)));
        assert_eq!(parse("bash: no such file"), None);
    }
}
