//! A disk that is full: a tmpfs of a few kilobytes, or, where nobody may mount, a limit on the size of files.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// What a handful of artifacts fills.
const SIZE: &str = "24k";

/// Whether we may mount.
static MOUNTS: LazyLock<bool> =
    LazyLock::new(|| tempfile::tempdir().is_ok_and(|dir| FullDisk::mount(dir.path()).is_some()));

/// A small disk, unmounted when dropped.
#[derive(Debug)]
pub(crate) struct FullDisk(PathBuf);

impl FullDisk {
    /// Mounts a small disk on `dir`; `None` where that is not allowed.
    pub(crate) fn mount(dir: &Path) -> Option<Self> {
        let options = format!("size={SIZE},mode=0755");
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &options, "cogo-chaos"]).arg(dir);
        let output = command.output().ok()?;
        output.status.success().then(|| Self(dir.to_owned()))
    }
}

impl Drop for FullDisk {
    fn drop(&mut self) {
        // Lazily, since a killed process may still be on its way out.
        let _best_effort = Command::new("umount").arg("--lazy").arg(&self.0).output();
    }
}

/// The program and the arguments that run `program` so that no file of it grows, without a mount: writing
/// past the limit fails (EFBIG), since the signal for it (SIGXFSZ) is ignored.
pub(crate) fn limited(program: &Path, args: &[String]) -> (PathBuf, Vec<String>) {
    let script = "trap '' XFSZ; ulimit -f 0; exec \"$0\" \"$@\"";
    let mut all = vec!["-c".to_owned(), script.to_owned(), program.display().to_string()];
    all.extend_from_slice(args);
    (PathBuf::from("/bin/sh"), all)
}

/// How disks are filled, for the report.
pub(crate) fn how() -> &'static str {
    if *MOUNTS { "a tmpfs of 24 KB" } else { "RLIMIT_FSIZE, since mounting is not allowed" }
}

/// Whether a full disk is one that is mounted.
pub(crate) fn mounts() -> bool {
    *MOUNTS
}

#[test]
fn a_limited_process_goes_on_when_its_file_cannot_grow() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("file");
    let write = format!("echo text > {} ; echo went on", file.display());
    let (program, args) = limited(Path::new("/bin/sh"), &["-c".to_owned(), write]);
    let output = Command::new(program).args(args).output().expect("sh runs");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "went on");
    assert_eq!(std::fs::read(file).expect("made").len(), 0);
}
