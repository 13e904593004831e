//! Filters of subscriptions: `role=eq.planner,priority=gt.0`, where commas mean *and*.

/// The longest filter.
const TEXT_MAX: usize = 16 * 1024;
/// The most conditions of one.
const CONDITIONS_MAX: usize = 20;
/// The most values of `in`; Realtime's own limit.
const VALUES_MAX: usize = 100;

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Condition {
    pub(crate) column: String,
    pub(crate) negated: bool,
    pub(crate) op: Op,
}

/// How a column is compared, and with what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Op {
    /// `=`, `<>`, `<`, `<=`, `>`, `>=`, `is distinct from`, as SQL has them.
    Compare(&'static str, String),
    /// `like`, `ilike`, `~`, `~*`: of text alone.
    Pattern(&'static str, String),
    In(Vec<String>),
    /// `null`, `true`, `false`, `unknown`.
    Is(&'static str),
}

/// Reads a filter; says what is wrong with it.
pub(crate) fn parse(text: &str) -> Result<Vec<Condition>, String> {
    if text.len() > TEXT_MAX {
        return Err(format!("filter: at most {TEXT_MAX} bytes"));
    }
    let mut conditions = Vec::new();
    let mut rest = text;
    loop {
        let (condition, after) = condition(rest)?;
        conditions.push(condition);
        if conditions.len() > CONDITIONS_MAX {
            return Err(format!("filter: at most {CONDITIONS_MAX} conditions"));
        }
        match after.strip_prefix(',') {
            Some(more) => rest = more,
            None if after.is_empty() => return Ok(conditions),
            None => return Err("filter: a comma must follow a quoted value or a list".to_owned()),
        }
    }
}

fn condition(text: &str) -> Result<(Condition, &str), String> {
    const SHAPE: &str = "filter: must be of the form column=operator.value, with commas between several; a value \
                         that has a comma stands in double quotes";
    let (column, rest) = text.split_once('=').ok_or(SHAPE)?;
    let column = column.trim();
    if column.is_empty() || column.len() > 63 || column.contains(['"', ',']) {
        return Err(SHAPE.to_owned());
    }
    let (negated, rest) = match rest.strip_prefix("not.") {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let (name, rest) = rest.split_once('.').ok_or(SHAPE)?;
    let compare = |sql| value(rest).map(|(value, rest)| (Op::Compare(sql, value), rest));
    let pattern = |sql| value(rest).map(|(value, rest)| (Op::Pattern(sql, value), rest));
    let (op, rest) = match name {
        "eq" => compare("=")?,
        "neq" => compare("<>")?,
        "lt" => compare("<")?,
        "lte" => compare("<=")?,
        "gt" => compare(">")?,
        "gte" => compare(">=")?,
        "isdistinct" => compare("is distinct from")?,
        "like" => pattern("like")?,
        "ilike" => pattern("ilike")?,
        "match" => pattern("~")?,
        "imatch" => pattern("~*")?,
        "in" => list(rest).map(|(values, rest)| (Op::In(values), rest))?,
        "is" => {
            let (what, rest) = value(rest)?;
            let words = ["null", "true", "false", "unknown"];
            let word = words.into_iter().find(|word| word.eq_ignore_ascii_case(&what));
            (Op::Is(word.ok_or("filter: is.<value> takes null, true, false or unknown")?), rest)
        }
        _ => {
            return Err(format!(
                "filter: there is no operator {name:?}; there are eq, neq, lt, lte, gt, gte, in, like, ilike, \
                 is, match, imatch and isdistinct, each also after `not.`"
            ));
        }
    };
    // Without these the time that a pattern takes grows with the text; with them it may double with each letter,
    // and all who subscribed wait for it.
    if let Op::Pattern("~" | "~*", pattern) = &op
        && pattern.as_bytes().windows(2).any(|two| two[0] == b'\\' && matches!(two[1], b'1'..=b'9'))
    {
        return Err("filter: a pattern must not refer back, as `\\1` does".to_owned());
    }
    Ok((Condition { column: column.to_owned(), negated, op }, rest))
}

/// A value up to the next comma, or in double quotes.
fn value(text: &str) -> Result<(String, &str), String> {
    if text.starts_with('"') {
        return quoted(text);
    }
    let end = text.find(',').unwrap_or(text.len());
    Ok((text[..end].to_owned(), &text[end..]))
}

fn quoted(text: &str) -> Result<(String, &str), String> {
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => value.extend(chars.next().map(|(_, char)| char)),
            char => value.push(char),
        }
    }
    Err("filter: a quoted value has no end".to_owned())
}

fn list(text: &str) -> Result<(Vec<String>, &str), String> {
    const SHAPE: &str = "filter: in takes a list, as in.(a,b)";
    let mut rest = text.strip_prefix('(').ok_or(SHAPE)?;
    let mut values = Vec::new();
    loop {
        let (value, after) = if rest.starts_with('"') {
            quoted(rest)?
        } else {
            let end = rest.find([',', ')']).ok_or(SHAPE)?;
            (rest[..end].to_owned(), &rest[end..])
        };
        values.push(value);
        if values.len() > VALUES_MAX {
            return Err(format!("filter: at most {VALUES_MAX} values after in"));
        }
        if let Some(after) = after.strip_prefix(')') {
            return Ok((values, after));
        }
        rest = after.strip_prefix(',').ok_or(SHAPE)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Condition {
        let mut conditions = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(conditions.len(), 1, "{text}");
        conditions.remove(0)
    }

    #[test]
    fn every_operator_is_read() {
        let compare = |sql| Op::Compare(sql, "1".to_owned());
        for (name, op) in [
            ("eq", compare("=")),
            ("neq", compare("<>")),
            ("lt", compare("<")),
            ("lte", compare("<=")),
            ("gt", compare(">")),
            ("gte", compare(">=")),
            ("isdistinct", compare("is distinct from")),
            ("like", Op::Pattern("like", "1".to_owned())),
            ("ilike", Op::Pattern("ilike", "1".to_owned())),
            ("match", Op::Pattern("~", "1".to_owned())),
            ("imatch", Op::Pattern("~*", "1".to_owned())),
        ] {
            assert_eq!(one(&format!("a={name}.1")).op, op);
            assert!(one(&format!("a=not.{name}.1")).negated);
        }
        assert_eq!(one("a=is.NULL").op, Op::Is("null"));
        assert_eq!(one("a=eq.").op, Op::Compare("=", String::new()));
        assert_eq!(one("a=eq.x.y=z").op, Op::Compare("=", "x.y=z".to_owned()));
    }

    #[test]
    fn lists_quotes_and_several_conditions_are_read() {
        assert_eq!(one("a=in.(x,\"y,)\",)").op, Op::In(vec!["x".into(), "y,)".into(), "".into()]));
        assert_eq!(one(r#"a=eq."b\",c\\""#).op, Op::Compare("=", "b\",c\\".to_owned()));
        let several = parse("a=eq.1,b=not.in.(2,3),c=is.true").expect("three");
        let columns: Vec<_> = several.iter().map(|condition| condition.column.as_str()).collect();
        assert_eq!(columns, ["a", "b", "c"]);
        assert!(several[1].negated);
    }

    #[test]
    fn what_is_no_filter_is_refused_with_its_reason() {
        for bad in [
            "",
            "a",
            "a=",
            "a=1",
            "a=eq",
            "=eq.1",
            "a=eq.1,",
            "a=eq.1,b",
            "a=eq.x,y",
            "a=in.x",
            "a=in.(x",
            "a=eq.\"x",
            "a=eq.\"x\"y",
            "a=is.1",
            "a=is.(",
            "a=nope.1",
            "a=not.eq",
            "a\"=eq.1",
            r"a=match.^(x*)*\1$",
            r"a=not.imatch.(x)\9",
        ] {
            let error = parse(bad).expect_err(bad);
            assert!(error.starts_with("filter: "), "{bad}: {error}");
        }
        assert!(parse(&format!("a=in.({})", ["1"; 101].join(","))).is_err());
        assert!(parse(&format!("a=in.({})", ["1"; 100].join(","))).is_ok());
        assert!(parse(&["a=eq.1"; 21].join(",")).is_err());
        assert!(parse(&format!("a=eq.{}", "x".repeat(TEXT_MAX))).is_err());
    }
}
