//! What the drivers need and a machine lacks, below `target/bench-peers`, at the versions of the lock files.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use tokio::process::Command;

use crate::drive::PGMQ_SQL;
use crate::participant::{Participant, Runtime};
use crate::process::Driver;

/// The Node.js that graphile-worker and pg-boss ask for.
const NODE: (u32, u32) = (22, 18);

/// This directory, of the sources.
fn sources() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The repository.
pub(crate) fn root() -> PathBuf {
    sources().ancestors().nth(2).expect("benches/peers lies two below").to_owned()
}

fn installed() -> PathBuf {
    root().join("target/bench-peers")
}

/// How to start the driver of `participant`, once what it needs is there.
pub(crate) async fn driver(participant: &Participant) -> Result<Driver> {
    match participant.runtime {
        Runtime::Rust => {
            let mut environment = Vec::new();
            if participant.name == "pgmq" {
                environment.push((PGMQ_SQL.to_owned(), pgmq_sql().await?.display().to_string()));
            }
            Ok(Driver {
                program: std::env::current_exe()?,
                arguments: vec!["drive".to_owned(), participant.name.to_owned()],
                environment,
            })
        }
        Runtime::Node(script) => {
            let (node, drivers) = npm().await?;
            let script = drivers.join(script).display().to_string();
            Ok(Driver { program: node, arguments: vec![script], environment: Vec::new() })
        }
        Runtime::Python(script) => {
            let script = sources().join("drivers").join(script).display().to_string();
            let environment = vec![("PYTHONDONTWRITEBYTECODE".to_owned(), "1".to_owned())];
            Ok(Driver { program: python().await?, arguments: vec![script], environment })
        }
    }
}

/// The SQL that pgmq is: in the sources of its crate, which Cargo has fetched and checked against the lock file.
async fn pgmq_sql() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let manifest = sources().join("Cargo.toml");
    let arguments = ["metadata", "--locked", "--format-version", "1", "--manifest-path"];
    let output =
        Command::new(cargo).args(arguments).arg(manifest).stderr(Stdio::inherit()).output().await?;
    if !output.status.success() {
        bail!("cargo metadata ended with {}", output.status);
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
    let manifest = packages
        .iter()
        .find(|package| package["name"] == "pgmq")
        .and_then(|package| package["manifest_path"].as_str())
        .context("the crate pgmq is not in Cargo.lock")?;
    let sql = Path::new(manifest).with_file_name("src").join("install/embedded/sql/pgmq.sql");
    if !sql.is_file() {
        bail!("the crate pgmq has no {}", sql.display());
    }
    Ok(sql)
}

/// Node.js, and the directory of the drivers beside the packages that they import.
async fn npm() -> Result<(PathBuf, PathBuf)> {
    let home = installed().join("npm");
    let drivers = home.join("drivers");
    std::fs::create_dir_all(&drivers)?;
    for name in ["package.json", "package-lock.json"] {
        std::fs::copy(sources().join(name), home.join(name))?;
    }
    // Node.js looks for packages above the file that imports them, wherever it is started.
    for file in std::fs::read_dir(sources().join("drivers"))? {
        let file = file?;
        if file.path().extension().is_some_and(|extension| extension == "mjs") {
            std::fs::copy(file.path(), drivers.join(file.file_name()))?;
        }
    }
    once(&home, &sources().join("package-lock.json"), async || {
        let arguments = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"];
        succeed(Command::new("npm").args(arguments).current_dir(&home)).await
    })
    .await?;
    for arch in ["x64", "arm64"] {
        let node = home.join(format!("node_modules/node-linux-{arch}/bin/node"));
        if node.is_file() {
            return Ok((node, drivers));
        }
    }
    let output =
        Command::new("node").arg("--version").output().await.context("there is no Node.js")?;
    let version = String::from_utf8_lossy(&output.stdout);
    let mut parts =
        version.trim().trim_start_matches('v').split('.').map_while(|part| part.parse().ok());
    match (parts.next(), parts.next()) {
        (Some(major), Some(minor)) if (major, minor) >= NODE => Ok(("node".into(), drivers)),
        _ => bail!("Node.js is {} and has to be {}.{}", version.trim(), NODE.0, NODE.1),
    }
}

/// The Python of a virtual environment of its own.
async fn python() -> Result<PathBuf> {
    let home = installed().join("venv");
    let python = home.join("bin/python");
    let requirements = sources().join("requirements.txt");
    once(&home, &requirements, async || {
        succeed(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&home)).await?;
        let arguments = [
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--require-hashes",
            "-r",
        ];
        succeed(Command::new(&python).args(arguments).arg(&requirements)).await
    })
    .await?;
    Ok(python)
}

/// Installs into `home` unless that was done for this very lock file.
async fn once(home: &Path, lock: &Path, install: impl AsyncFnOnce() -> Result<()>) -> Result<()> {
    let done = home.join(".installed");
    let wanted = std::fs::read(lock)?;
    if std::fs::read(&done).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    install().await?;
    Ok(std::fs::write(done, wanted)?)
}

async fn succeed(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().await;
    let program = command.as_std().get_program().display().to_string();
    let output = output.with_context(|| format!("there is no {program}"))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = words.lines().collect();
        bail!(
            "{program} ended with {}: {}",
            output.status,
            lines[lines.len().saturating_sub(6)..].join("\n")
        );
    }
    Ok(())
}
