//! Columns, and what lies within JSON: `payload->a->>b`.

use crate::hub::rest::scan::{Bad, Scan};

/// How deep a path may go.
const PATH_MAX: usize = 16;

/// A column, or something within it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) column: String,
    pub(super) path: Vec<Step>,
}

/// One step into JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) key: Key,
    /// `->>` and not `->`: as text, and the last.
    pub(super) as_text: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    Name(String),
    Index(i32),
}

impl Field {
    /// Reads `column->a->0->>b`.
    pub(super) fn read(scan: &mut Scan<'_>) -> Result<Self, Bad> {
        let column = scan.name()?;
        let mut path: Vec<Step> = Vec::new();
        while scan.eat("->") {
            let as_text = scan.eat(">");
            if path.last().is_some_and(|step| step.as_text) {
                return Err(scan.bad("nothing follows what `->>` gave"));
            }
            if path.len() == PATH_MAX {
                return Err(scan.bad(format!("a path has at most {PATH_MAX} steps")));
            }
            path.push(Step { key: key(scan)?, as_text });
        }
        Ok(Self { column, path })
    }

    /// What an answer calls it where it is given no other name: the last key of its path.
    pub(super) fn own_name(&self) -> &str {
        let names = self.path.iter().rev().filter_map(|step| match &step.key {
            Key::Name(name) => Some(name.as_str()),
            Key::Index(_) => None,
        });
        names.chain([self.column.as_str()]).next().unwrap_or_default()
    }

    /// Whether what it gives is text, whatever the column is.
    pub(super) fn is_text(&self) -> bool {
        self.path.last().is_some_and(|step| step.as_text)
    }
}

fn key(scan: &mut Scan<'_>) -> Result<Key, Bad> {
    let mut ahead = scan.clone();
    let minus = ahead.eat("-");
    let digits = ahead.take_while(|c| c.is_ascii_digit());
    // `->1a` is a name that begins with a digit.
    let ends = ahead.peek().is_none_or(|c| !(c.is_alphanumeric() || matches!(c, '_' | '$')));
    if !digits.is_empty() && ends {
        let number = digits.parse::<i32>().map_err(|_| scan.bad("the index is too large"))?;
        *scan = ahead;
        return Ok(Key::Index(if minus { -number } else { number }));
    }
    Ok(Key::Name(scan.name()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_read_step_by_step() {
        let read = |text| {
            let mut scan = Scan::new(text);
            Field::read(&mut scan).map(|field| (field, scan.rest().to_owned()))
        };
        let (field, rest) = read("payload->a->-1->>\"b c\".eq.1").expect("a field");
        assert_eq!(rest, ".eq.1");
        assert_eq!(
            (field.column.as_str(), field.own_name(), field.is_text()),
            ("payload", "b c", true)
        );
        assert_eq!(field.path[1], Step { key: Key::Index(-1), as_text: false });
        let (field, _) = read("payload->0").expect("a field");
        assert_eq!((field.own_name(), field.is_text()), ("payload", false));
        let (field, _) = read("payload->1a").expect("a field");
        assert_eq!(field.own_name(), "1a");
        for bad in ["", "->a", "a->", "a->>b->c", "a->99999999999", "a->>", "\"", "\"\"", "a->\"\""]
        {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert!(read(&format!("a{}", "->b".repeat(PATH_MAX + 1))).is_err());
    }
}
