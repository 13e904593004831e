//! The pages of docs/reference, which tests write from the code: `just reference`, or `COGO_REGENERATE=1`. Else they hold
//! the pages to the code.
//!
//! They are here and no tests beside the binary, since its commands and exit codes are known nowhere else.

mod cli;
mod configuration;
mod environment;
mod errors;
mod events;
mod functions;
mod metrics;
mod sources;

use std::path::{Path, PathBuf};

use sources::root;

/// What follows the title of each page.
const WRITTEN: &str = "<!-- Written by `just reference`: change the code, not this page. -->";

/// Writes a page, or holds it to what it should be.
fn page(name: &str, title: &str, text: &str) {
    let path: PathBuf = root().join("docs/reference").join(name);
    let wanted = format!("# {title}\n\n{WRITTEN}\n\n{}\n", text.trim());
    if std::env::var_os("COGO_REGENERATE").is_some() {
        std::fs::write(&path, &wanted).expect("a page can be written");
    }
    same(&path, &wanted);
}

fn same(path: &Path, wanted: &str) {
    let found = std::fs::read_to_string(path).unwrap_or_default().replace("\r\n", "\n");
    let differs = found.lines().zip(wanted.lines()).position(|(found, wanted)| found != wanted);
    let line = differs.unwrap_or_else(|| found.lines().count().min(wanted.lines().count()));
    let (was, is) = (found.lines().nth(line), wanted.lines().nth(line));
    let place = format!("{}:{}", path.display(), line + 1);
    // Not assert_eq, which would print both pages.
    assert!(found == wanted, "{place} is stale: {was:?} should be {is:?}. Run `just reference`");
}

/// Text of a comment or of help as Markdown: names and flags become code, all else stays as it is written.
fn prose(text: &str) -> String {
    // Links of comments lead to other comments.
    let text = text.replace("[`", "`").replace("`]", "`");
    let pieces = text.split('`').enumerate();
    let told = pieces.map(|(nth, piece)| match nth % 2 {
        1 => format!("`{piece}`"),
        _ => piece.split_inclusive([' ', '\n']).map(word).collect(),
    });
    told.collect()
}

/// One word of prose, with what follows it.
fn word(word: &str) -> String {
    const MARKS: [char; 7] = ['.', ',', ';', ':', ')', '(', '"'];
    let bare = word.trim();
    let name = bare.trim_end_matches(['.', ',', ';', ':', ')', '"']).trim_start_matches(MARKS);
    let is_file = name.contains('/')
        && [".json", ".md", ".sql", ".rs"].iter().any(|ending| name.ends_with(ending));
    let is_code = name.contains("://")
        || name.contains('_')
        || name.len() > 2 && name.starts_with("--")
        || name.len() > 1 && name.starts_with('/')
        || is_file;
    if is_code && !name.contains('<') {
        return word.replacen(name, &format!("`{name}`"), 1);
    }
    let mut out = String::new();
    for character in word.chars() {
        if matches!(character, '<' | '*' | '[' | ']' | '_' | '\\') {
            out.push('\\');
        }
        out.push(character);
    }
    out
}

/// With a full stop, if it has no end yet.
fn sentence(text: &str) -> String {
    let text = text.trim_end();
    if text.is_empty() || text.ends_with(['.', '!', '?', ':']) {
        text.to_owned()
    } else {
        format!("{text}.")
    }
}

/// Markdown as it may stand in a cell of a table.
fn cell(markdown: &str) -> String {
    let words: Vec<_> = markdown.split_whitespace().collect();
    words.join(" ").replace('|', "\\|")
}

/// A table, if it has rows, without the columns that say nothing.
fn table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let rows: Vec<[String; N]> = rows.into_iter().map(|row| row.map(|text| cell(&text))).collect();
    if rows.is_empty() {
        return String::new();
    }
    let told: Vec<_> = (0..N).filter(|n| rows.iter().any(|row| !row[*n].is_empty())).collect();
    let line = |row: [&str; N]| {
        format!("| {} |\n", told.iter().map(|n| row[*n]).collect::<Vec<_>>().join(" | "))
    };
    let rows = rows.iter().map(|row| line(row.each_ref().map(String::as_str)));
    format!("{}|{}\n{}\n", line(head), "---|".repeat(told.len()), rows.collect::<String>())
}

#[test]
fn what_is_no_code_stays_as_it_is_written() {
    assert_eq!(prose("<a> `<b|c>` * [`D`]"), "\\<a> `<b|c>` \\* `D`");
    assert_eq!(prose("(see --wait,\nd_e) - or"), "(see `--wait`,\n`d_e`) - or");
    let rows = [["a", ""], ["b", ""]].map(|row| row.map(str::to_owned));
    assert_eq!(table(["x", "y"], rows), "| x |\n|---|\n| a |\n| b |\n\n");
    assert_eq!(table(["x"], [["`a|b`\nc".to_owned()]]), "| x |\n|---|\n| `a\\|b` c |\n\n");
}
