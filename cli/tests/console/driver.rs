//! The scripts that drive the browser, and what they need.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Once;

/// Debian's package `chromium`.
const CHROMIUM: &str = "/usr/bin/chromium";

/// A script of `tests/console`, run by Node.
pub(crate) fn script(name: &str) -> Command {
    install();
    assert!(
        Path::new(CHROMIUM).exists(),
        "{CHROMIUM} is missing; `apt-get install chromium` brings it"
    );
    let mut command = Command::new("node");
    command.arg(scripts().join(name)).env("DRIVER", target().join("console/driver"));
    command.env("SHOTS", target().join("console/screenshots"));
    // No proxy of this machine's stands between the browser and the hub.
    for (name, _) in std::env::vars_os() {
        let lower = name.to_string_lossy().to_lowercase();
        if lower.ends_with("_proxy") || lower.starts_with("npm_") || lower.starts_with("node_") {
            command.env_remove(&name);
        }
    }
    command
}

/// The languages, compared; without a browser.
pub(crate) fn catalogues() {
    let console = Path::new(env!("CARGO_MANIFEST_DIR")).join("../src/hub/console");
    let output = Command::new("node")
        .arg(scripts().join("catalogues.mjs"))
        .arg(console)
        .output()
        .expect("node starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Where the scripts lie, and the MCP server whose tools fail.
pub(crate) fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/console")
}

fn target() -> PathBuf {
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    tmp.parent().expect("tmp lies in target").to_owned()
}

/// What cannot be installed fails the test: skipping would hide that nothing was tested.
fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Other test processes may be at it.
        let lock = File::create(target().join("console.lock")).expect("target/ is writable");
        lock.lock().expect("the file system has locks");
        let mut script = Command::new(scripts().join("install.sh"));
        let script = script.env("CARGO_TARGET_DIR", target()).stdin(Stdio::null());
        let output = script.output().expect("the script starts");
        let said = String::from_utf8_lossy(&output.stderr);
        let success = output.status.success();
        assert!(success, "tests/console/install.sh failed; it needs npm and its registry:\n{said}");
    });
}
