//! The ways that store nothing: the server itself, and the proxies of others, installed when first needed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::process::{Process, Way, echo, free_port};
use crate::say;

/// The server itself, over streamable HTTP.
pub(crate) const DIRECT: &str = "direct";
/// npm's `mcp-proxy`.
pub(crate) const NPM: &str = "mcp-proxy (npm)";
/// The crate `mcp-proxy`.
pub(crate) const CRATE: &str = "mcp-proxy (crate)";
/// All of them.
pub(crate) const NAMES: [&str; 4] = [DIRECT, NPM, CRATE, "supergateway (npm)"];

/// The crate's version; those of npm stand in `package-lock.json`.
const CRATE_VERSION: &str = "0.6.0";

pub(crate) fn start(name: &'static str, dir: &Path) -> Result<Way> {
    let (port, echo) = (free_port()?, echo()?);
    let (command, path, tool) = match name {
        DIRECT => {
            let mut command = Command::new(&echo);
            command.arg("echo").arg(format!("127.0.0.1:{port}"));
            (command, "/mcp", "echo")
        }
        NPM => {
            let mut command = Command::new("node");
            command.arg(npm()?.join("mcp-proxy/dist/bin/mcp-proxy.mjs"));
            command.args([
                "--host",
                "127.0.0.1",
                "--port",
                &port.to_string(),
                "--server",
                "stream",
            ]);
            command.args(["--", &echo, "echo"]);
            (command, "/mcp", "echo")
        }
        CRATE => {
            let file = dir.join("mcp-proxy.toml");
            let text = format!(
                "[proxy]\nname = \"bench\"\n[proxy.listen]\nhost = \"127.0.0.1\"\nport = {port}\n\
                 [[backends]]\nname = \"bench\"\ntransport = \"stdio\"\ncommand = {echo:?}\nargs = [\"echo\"]\n"
            );
            std::fs::write(&file, text)?;
            let mut command = Command::new(installed_crate()?);
            command.arg("--config").arg(file).env("RUST_LOG", "warn");
            (command, "/", "bench/echo")
        }
        _ => {
            let mut command = Command::new("node");
            command.arg(npm()?.join("supergateway/dist/index.js"));
            command.args(["--stdio", &format!("'{echo}' echo"), "--outputTransport"]);
            command.args(["streamableHttp", "--stateful", "--logLevel", "none"]);
            command.args(["--port", &port.to_string(), "--streamableHttpPath", "/mcp"]);
            (command, "/mcp", "echo")
        }
    };
    let mut process = Process::start(command, dir.join(format!("{port}.log")))?;
    process.until_it_listens(port)?;
    let url = format!("http://127.0.0.1:{port}{path}");
    Ok(Way { name, url, token: None, tool: tool.to_owned(), processes: vec![process] })
}

/// Where things are installed, kept from run to run.
fn home() -> Result<PathBuf> {
    let usual = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bench-mcp");
    let home = std::env::var_os("COGO_BENCH_DIR").map_or_else(|| usual.into(), PathBuf::from);
    std::fs::create_dir_all(&home).with_context(|| home.display().to_string())?;
    home.canonicalize().with_context(|| home.display().to_string())
}

/// The packages of `package-lock.json`.
fn npm() -> Result<PathBuf> {
    let (home, modules) = (home()?, home()?.join("node_modules"));
    let lock = include_str!("package-lock.json");
    let (manifest, locked) = (home.join("package.json"), home.join("package-lock.json"));
    if std::fs::read_to_string(&locked).is_ok_and(|text| text == lock) && modules.is_dir() {
        return Ok(modules);
    }
    say("Installing what package-lock.json names");
    std::fs::write(manifest, include_str!("package.json"))?;
    let mut install = Command::new("npm");
    install.args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"]).current_dir(&home);
    let lock_first = std::fs::write(&locked, lock);
    lock_first?;
    if let Err(error) = complete(install) {
        let _half = std::fs::remove_dir_all(&modules);
        return Err(error.context("npm and Node.js 20 or newer are needed"));
    }
    Ok(modules)
}

fn installed_crate() -> Result<PathBuf> {
    let root = home()?.join(format!("mcp-proxy-{CRATE_VERSION}"));
    let program = root.join("bin/mcp-proxy");
    if !program.is_file() {
        say("Installing the crate mcp-proxy, which takes some minutes");
        let mut install = Command::new("cargo");
        install.args(["install", "mcp-proxy", "--version", CRATE_VERSION, "--locked", "--quiet"]);
        // No telemetry and no discovery: what would only make it slower.
        install.args(["--no-default-features", "--features", "websocket", "--root"]).arg(&root);
        install.env("CARGO_TARGET_DIR", home()?.join("build"));
        complete(install)?;
        ensure!(program.is_file(), "cargo install gave no {}", program.display());
    }
    Ok(program)
}

fn complete(mut command: Command) -> Result<()> {
    let program = command.get_program().display().to_string();
    let status = command.status().with_context(|| format!("running {program}"))?;
    if !status.success() {
        bail!("{program} failed ({status})");
    }
    Ok(())
}
