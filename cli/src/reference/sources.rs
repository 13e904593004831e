//! What the repository's own text says: files, the comments of constants and variants, literals.

use std::path::{Path, PathBuf};

/// The repository.
pub(super) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").to_owned()
}

/// A file of the repository.
pub(super) fn read(file: &str) -> String {
    let path = root().join(file);
    std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        .replace("\r\n", "\n")
}

/// The Rust files of the program, without its tests and without what writes the reference.
pub(super) fn rust_files() -> Vec<(PathBuf, String)> {
    let workers = std::fs::read_dir(root().join("workers")).expect("workers/");
    let mut dirs: Vec<_> =
        workers.map(|entry| entry.expect("an entry").path().join("src")).collect();
    dirs.extend([root().join("src"), root().join("cli/src")]);
    let mut files = Vec::new();
    while let Some(dir) = dirs.pop() {
        let Ok(entries) = std::fs::read_dir(&dir) else { continue };
        for entry in entries {
            let path = entry.expect("an entry").path();
            let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
            if ["tests", "testing", "reference"].contains(&name) {
                continue;
            }
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let text = std::fs::read_to_string(&path).expect("a file").replace("\r\n", "\n");
                let program =
                    text.split("\n#[cfg(test)]\nmod tests {").next().expect("a beginning");
                files.push((path, program.to_owned()));
            }
        }
    }
    files.sort();
    files
}

/// The doc comments of a Rust file, each with the line that it stands before, attributes left out.
pub(super) fn documented(text: &str) -> Vec<(String, String)> {
    let (mut found, mut comment) = (Vec::new(), String::new());
    for line in text.lines().map(str::trim) {
        if let Some(said) = line.strip_prefix("///") {
            comment.push_str(said.trim());
            comment.push('\n');
        } else if !line.starts_with("#[") && !comment.is_empty() {
            found.push((line.to_owned(), std::mem::take(&mut comment).trim().to_owned()));
        }
    }
    found
}

/// All migrations, one after another.
pub(super) fn migrations() -> String {
    let dir = std::fs::read_dir(root().join("migrations")).expect("migrations/");
    let mut files: Vec<_> = dir.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|ending| ending == "sql"));
    files.sort();
    files.iter().map(|path| std::fs::read_to_string(path).expect("a migration")).collect()
}
