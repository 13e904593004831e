//! Clocks that go wrong: libfaketime shifts the wall clock of a process, and leaves the monotonic one alone.

use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;

/// Where Debian and others put the library; `MT` is the one for programs with threads.
const PLACES: &[&str] = &[
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
];

static LIBRARY: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
    let found = PLACES.iter().map(PathBuf::from).find(|path| path.is_file())?;
    // Seen to work, not only to be there.
    let seconds = |shift: i64| -> Option<i64> {
        let output =
            Command::new("date").arg("+%s").envs(variables(&found, shift)).output().ok()?;
        String::from_utf8(output.stdout).ok()?.trim().parse().ok()
    };
    let ahead = seconds(86_400)? - seconds(0)?;
    (86_395..=86_405).contains(&ahead).then_some(found)
});

/// What must be in the environment of a process whose clock is `ahead` by so many seconds; nothing where
/// clocks cannot be shifted.
pub(crate) fn environment(ahead: i64) -> Vec<(String, String)> {
    match (&*LIBRARY, ahead) {
        (Some(library), 1.. | ..=-1) => variables(library, ahead),
        _ => Vec::new(),
    }
}

/// Removes what libfaketime leaves behind of a process that was killed.
pub(crate) fn clear_up(pid: u32) {
    for name in [format!("faketime_shm_{pid}"), format!("sem.faketime_sem_{pid}")] {
        let _there_is_none = std::fs::remove_file(std::path::Path::new("/dev/shm").join(name));
    }
}

/// How clocks are shifted, for the report.
pub(crate) fn how() -> &'static str {
    match *LIBRARY {
        Some(_) => "libfaketime (wall clock only)",
        None => "not at all: libfaketime is not installed",
    }
}

fn variables(library: &std::path::Path, ahead: i64) -> Vec<(String, String)> {
    [
        ("LD_PRELOAD", library.display().to_string()),
        ("FAKETIME", format!("{ahead:+}s")),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}
