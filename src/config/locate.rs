//! On which line of a file a field stands.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

/// The line, from 1, of the field at `path` in a JSON text; of the nearest field around it if it does not
/// stand there itself, as one that comes from a shorter key of a policy.
pub(super) fn line_of(text: &str, path: &str) -> usize {
    let (mut value, mut left) = (text, path);
    while let Some((inner, rest)) = step(value, left) {
        (value, left) = (inner, rest);
    }
    // `value` is a part of `text`, never a copy of it.
    let before = (value.as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
    1 + text.bytes().take(before).filter(|byte| *byte == b'\n').count()
}

/// One step down: the value of the field with which `path` begins, and what is left of the path. Keys may
/// hold dots themselves, so that the longest that fits is taken.
fn step<'a, 'p>(value: &'a str, path: &'p str) -> Option<(&'a str, &'p str)> {
    if let Ok(fields) = serde_json::from_str::<BTreeMap<String, &RawValue>>(value) {
        let rest = |key: &str| {
            let rest = path.strip_prefix(key)?;
            (rest.is_empty() || rest.starts_with(['.', '['])).then_some(rest)
        };
        let fitting = fields.iter().filter_map(|(key, value)| Some((key, value.get(), rest(key)?)));
        let (_, value, rest) = fitting.max_by_key(|(key, ..)| key.len())?;
        return Some((value, rest.strip_prefix('.').unwrap_or(rest)));
    }
    let items: Vec<&RawValue> = serde_json::from_str(value).ok()?;
    let (number, rest) = path.strip_prefix('[')?.split_once(']')?;
    let item = items.get(number.parse::<usize>().ok()?)?;
    Some((item.get(), rest.strip_prefix('.').unwrap_or(rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_among_keys_with_dots() {
        let text = "{\n\"a\": {\n\"b\": {\"x\": 1},\n\"b.c\": {\n\"x\": [\n1,\n{\"y\": 2}]}}}";
        for (path, line) in [
            ("", 1),
            ("a", 2),
            ("a.b.x", 3),
            ("a.b.c", 4),
            ("a.b.c.x", 5),
            ("a.b.c.x[0]", 6),
            ("a.b.c.x[1].y", 7),
            // Not there: the nearest around it.
            ("a.b.c.z", 4),
            ("a.b.c.x[2]", 5),
            ("z", 1),
        ] {
            assert_eq!(line_of(text, path), line, "{path}");
        }
        assert_eq!(line_of("no JSON", "a"), 1);
    }
}
