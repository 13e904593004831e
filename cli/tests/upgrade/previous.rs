//! Where `cogo` of the release before is.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Once;

/// The newest migration of the release before.
pub(crate) const SCHEMA: i64 = 202_611_210_020;

/// `cogo` of the release before; built first, if it is not yet there.
pub(crate) fn program() -> PathBuf {
    build();
    target().join("upgrade/cogo")
}

/// The files of these tests that are no Rust.
pub(crate) fn files() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/upgrade")
}

fn target() -> PathBuf {
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    tmp.parent().expect("tmp lies in target").to_owned()
}

/// What cannot be built fails the test: skipping would hide that nothing was tested.
fn build() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Other test processes may be at it.
        let lock = File::create(target().join("upgrade.lock")).expect("target/ is writable");
        lock.lock().expect("the file system has locks");
        let mut script = Command::new(files().join("install.sh"));
        let script = script.env("CARGO_TARGET_DIR", target()).stdin(Stdio::null());
        let output = script.output().expect("the script starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "tests/upgrade/install.sh failed:\n{said}");
    });
}
