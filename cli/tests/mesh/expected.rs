//! What `docs/conformance.md` says that the suite says.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// How a scenario ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Every check of it went well, without a warning.
    Pass,
    /// Nothing failed, but something that should be so is not.
    Warns,
    /// Something failed.
    Fails,
    /// The suite tested nothing.
    Skipped,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pass => "pass",
            Self::Warns => "warns",
            Self::Fails => "not offered",
            Self::Skipped => "skipped",
        })
    }
}

/// A scenario in one of the revisions.
pub(crate) type Case = (String, String);

/// The table below the heading that begins with `heading`: a row for each scenario, a column for each revision, and a
/// last one that must say why where not everything passes.
pub(crate) fn read(heading: &str) -> BTreeMap<Case, End> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/conformance.md");
    let text = std::fs::read_to_string(&path).expect("docs/conformance.md");
    let lines = text.lines().skip_while(|line| !line.starts_with(heading)).skip(1);
    let mut rows =
        lines.take_while(|line| !line.starts_with('#')).filter(|line| line.starts_with('|'));
    let names = cells(rows.next().unwrap_or_else(|| panic!("no table below {heading:?}")));
    let mut expected = BTreeMap::new();
    for row in rows.skip(1) {
        let cells = cells(row);
        assert_eq!(cells.len(), names.len(), "a row of another length: {row}");
        let (why, ends) = cells[1..].split_last().expect("a last column");
        for (revision, cell) in names[1..].iter().zip(ends) {
            let end = match cell.as_str() {
                "–" => continue,
                "pass" => End::Pass,
                "warns" => End::Warns,
                "not offered" => End::Fails,
                "skipped" => End::Skipped,
                other => panic!("{other:?} is no end of a scenario: {row}"),
            };
            assert!(end == End::Pass || !why.is_empty(), "the reason is missing: {row}");
            let scenario = cells[0].trim_matches('`').to_owned();
            let before = expected.insert((scenario, revision.clone()), end);
            assert!(before.is_none(), "told twice: {row}");
        }
    }
    expected
}

fn cells(row: &str) -> Vec<String> {
    let inner = row.trim().trim_start_matches('|').trim_end_matches('|');
    inner.split('|').map(|cell| cell.trim().to_owned()).collect()
}
