//! What a name that is not there may have meant.

use super::Offer;
use crate::config::SEPARATOR;

/// How many are named.
const MOST: usize = 3;
/// The longest name that is compared; the cost grows with its square.
const LONGEST: usize = 160;
/// How many offers are looked at.
const COMPARED: usize = 5_000;
/// How many letters are compared with letters in all, at about a nanosecond each: nobody else is served meanwhile, and
/// machines choose how many tools there are and how long their names.
const CELLS: usize = 4_000_000;

/// The offers whose names are nearest to `<toolset>__<tool>`, the nearest first.
pub(super) fn near<'a>(
    toolset: &str,
    tool: &str,
    offers: impl Iterator<Item = &'a Offer>,
) -> Vec<String> {
    let wanted = format!("{toolset}{SEPARATOR}{tool}");
    if wanted.len() > LONGEST {
        return Vec::new();
    }
    let far = (wanted.len() / 3).max(2);
    let mut cells = CELLS;
    let mut found: Vec<_> = offers
        .take(COMPARED)
        .filter_map(|offer| {
            let name = offer.name();
            // The same tool elsewhere is as near as a slip of the pen.
            let distance = if offer.tool == tool {
                1
            } else {
                let cost =
                    if is_alike(&wanted, &name, far) { wanted.len() * name.len() } else { 0 };
                cells = cells.checked_sub(cost)?;
                distance(&wanted, &name, far)?
            };
            Some((distance, name))
        })
        .collect();
    found.sort();
    found.truncate(MOST);
    found.into_iter().map(|(_, name)| name).collect()
}

/// Whether two names are of about the same length, so that they are worth comparing.
fn is_alike(a: &str, b: &str, most: usize) -> bool {
    a.len().abs_diff(b.len()) <= most && b.len() <= LONGEST
}

/// How many letters must be put in, taken out or replaced to make `a` of `b`, if at most `most`
/// (Levenshtein's distance, a row at a time).
fn distance(a: &str, b: &str, most: usize) -> Option<usize> {
    if !is_alike(a, b, most) {
        return None;
    }
    let (a, b) = (a.to_ascii_lowercase(), b.to_ascii_lowercase());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut before = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = before + usize::from(x != y);
            before = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(before + 1);
        }
    }
    row.last().copied().filter(|distance| *distance <= most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_near_and_another_word_is_not() {
        assert_eq!(distance("demo__echo", "demo__ecoh", 3), Some(2));
        assert_eq!(distance("demo__echo", "demo__Echo", 3), Some(0));
        assert_eq!(distance("demo__echo", "demo__sleep", 3), None);
        assert_eq!(distance("", "ab", 3), Some(2));
    }

    #[test]
    fn many_long_names_take_no_long_time() {
        let long = |n: usize| format!("{n:0>150}");
        let definition = std::sync::Arc::new(serde_json::Value::Null);
        let offers: Vec<_> =
            (0..5_000).map(|n| Offer::new("t", long(n), "", definition.clone())).collect();
        let clock = cogo::clock::Stopwatch::start();
        // The first are compared; the rest is not, whatever it would have given.
        assert_eq!(near("t", &long(3), offers.iter()).len(), MOST);
        assert!(near("t", &"x".repeat(150), offers.iter()).is_empty());
        // Compared in full, this takes seconds where nothing is optimized.
        assert!(clock.elapsed() < std::time::Duration::from_secs(1), "{:?}", clock.elapsed());
    }
}
