//! Installs the pinned servers of `tests/mcp-servers` below `target/`, once, whichever test process
//! comes first. What cannot be installed fails the test: skipping would hide that nothing was tested.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn pins() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/mcp-servers")
}

/// The script of `@modelcontextprotocol/server-everything`, for `node`.
pub(crate) fn everything() -> PathBuf {
    node_modules().join("@modelcontextprotocol/server-everything/dist/index.js")
}

/// The script of `supergateway`, for `node`.
pub(crate) fn supergateway() -> PathBuf {
    node_modules().join("supergateway/dist/index.js")
}

fn node_modules() -> PathBuf {
    let home = once("node", &["package.json", "package-lock.json"], |home| {
        for file in ["package.json", "package-lock.json"] {
            fs::copy(pins().join(file), home.join(file)).expect("the pins are readable");
        }
        let npm = if cfg!(windows) { "npm.cmd" } else { "npm" };
        run(Command::new(npm).args(["ci", "--no-audit", "--no-fund"]).current_dir(home));
    });
    home.join("node_modules")
}

/// A Python with the SDK's WebSocket server, and the script to run with it.
pub(crate) fn python() -> (PathBuf, PathBuf) {
    let home = once("python", &["requirements.txt"], |home| {
        let system = if cfg!(windows) { "python" } else { "python3" };
        run(Command::new(system).args(["-m", "venv", "."]).current_dir(home));
        let requirements = pins().join("requirements.txt");
        let mut pip = Command::new(interpreter(home));
        run(pip.args(["-m", "pip", "install", "--require-hashes", "-r"]).arg(requirements));
    });
    (interpreter(&home), pins().join("python_ws.py"))
}

fn interpreter(home: &Path) -> PathBuf {
    home.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" })
}

/// A directory that `fill` fills, unless that was done for these very pins.
fn once(name: &str, files: &[&str], fill: impl FnOnce(&Path)) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    for file in files {
        fs::read(pins().join(file)).expect("the pins are readable").hash(&mut hasher);
    }
    let base = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mcp-servers");
    fs::create_dir_all(&base).expect("target/ is writable");
    let home = base.join(format!("{name}-{:016x}", hasher.finish()));
    let lock = File::create(base.join(format!("{name}.lock"))).expect("target/ is writable");
    lock.lock().expect("the file system has locks");
    let done = home.join(".installed");
    if !done.exists() {
        let _half_installed = fs::remove_dir_all(&home);
        fs::create_dir(&home).expect("target/ is writable");
        fill(&home);
        File::create(done).expect("target/ is writable");
    }
    home
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?} failed ({}):\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
