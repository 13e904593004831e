//! The durable ways: hub and worker in one process, and each in its own.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::process::{Process, Way, echo, free_port};

/// `cogo up`: Postgres below it, hub and worker in one process.
pub(crate) const UP: &str = "cogo up";
/// A hub whose worker is another process, on the same database.
pub(crate) const APART: &str = "cogo hub, worker apart";
/// The program that `COGO_BENCH_OTHER` names, as `cogo up`: to tell what a change gives.
pub(crate) const OTHER: &str = "other cogo up";
/// All of them.
pub(crate) const NAMES: [&str; 3] = [UP, APART, OTHER];

const TOKEN: &str = "the-admin-token-of-the-benchmark-0123456789";

pub(crate) fn start(name: &'static str, dir: &Path) -> Result<Way> {
    let port = free_port()?;
    let home = dir.join(port.to_string());
    let (data, configs) = (home.join("data"), home.join("configs"));
    std::fs::create_dir_all(&configs)?;
    open_to_the_server(&[dir, &home])?;
    let mcp = json!({"toolsets": {"bench": {
        "command": echo()?, "args": ["echo"], "max_in_flight": 64}}});
    std::fs::write(configs.join("mcp.json"), mcp.to_string())?;
    std::fs::write(configs.join("worker.json"), json!({"concurrency": 64}).to_string())?;
    let program = match name {
        OTHER => other().context("COGO_BENCH_OTHER: names no program")?,
        _ => env!("CARGO_BIN_EXE_cogo").into(),
    };
    let cogo = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command.args(arguments).current_dir(&home).env_remove("DATABASE_URL");
        command.env("COGO_DATA_DIR", &data).env("COGO_CONFIG_DIR", &configs);
        command.env("COGO_ADMIN_TOKEN", TOKEN);
        command
    };
    let listen = format!("127.0.0.1:{port}");
    let mut processes = Vec::new();
    if name == APART {
        // Its worker has the same toolset, and serves nothing here.
        std::fs::create_dir_all(home.join("none"))?;
        std::fs::write(home.join("none/mcp.json"), "{}")?;
        let mut hub = cogo(&["up", "--listen", &listen]);
        hub.env("COGO_CONFIG_DIR", home.join("none"));
        let mut hub = Process::start(hub, home.join("hub.log"))?;
        wait(&mut hub, &data)?;
        let worker = cogo(&["worker", "mcp-gateway", "--concurrency", "64"]);
        processes = vec![hub, Process::start(worker, home.join("worker.log"))?];
    } else {
        let mut up = Process::start(cogo(&["up", "--listen", &listen]), home.join("up.log"))?;
        wait(&mut up, &data)?;
        processes.push(up);
    }
    let url = format!("http://{listen}/mcp");
    // The tool is there once its worker has shown itself.
    std::thread::sleep(std::time::Duration::from_secs(3));
    let (token, tool) = (Some(TOKEN.to_owned()), "bench__echo".to_owned());
    Ok(Way { name, url, token, tool, processes })
}

/// What [`OTHER`] is, if it is asked for.
pub(crate) fn other() -> Option<std::ffi::OsString> {
    std::env::var_os("COGO_BENCH_OTHER").filter(|program| !program.is_empty())
}

fn wait(process: &mut Process, data: &Path) -> Result<()> {
    process.until("a hub that is up", || data.join("up.json").is_file())
}

/// A server that runs as another user, since we are root, must get to its files.
fn open_to_the_server(dirs: &[&Path]) -> Result<()> {
    for dir in dirs {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o711);
        std::fs::set_permissions(dir, mode).with_context(|| dir.display().to_string())?;
    }
    Ok(())
}
