//! Filters: `column=not.eq.value`, `column=in.(a,"b,c")`, `or=(a.eq.1,and(b.gt.2,c.is.null))`.

use crate::hub::rest::Error;
use crate::hub::rest::field::Field;
use crate::hub::rest::scan::{Bad, Scan};

/// How many filters one request may have.
const FILTERS_MAX: usize = 100;
/// How many values a list may have.
const LIST_MAX: usize = 1000;
/// How deep `and` and `or` may stand within each other.
const DEPTH_MAX: usize = 10;
/// What there is in PostgREST and not here.
const NOT_SERVED: [&str; 9] = ["fts", "plfts", "phfts", "wfts", "sl", "sr", "nxr", "nxl", "adj"];

/// A condition, or several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    Test { field: Field, negated: bool, test: Test },
    Group { negated: bool, all: bool, nodes: Vec<Node> },
}

/// What a field is compared with, as text; the database reads it as the field's type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Test {
    /// With a value.
    Compare(Operator, String),
    /// With any, or with all, of an array as Postgres writes it.
    Each(Operator, Quantifier, String),
    /// With one of several values.
    In(Vec<String>),
    /// With what SQL has a word for.
    Is(&'static str),
}

/// A comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Operator {
    /// The operator of SQL.
    pub(super) sql: &'static str,
    /// What stands on its other side.
    pub(super) with: With,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum With {
    /// A value of the field's own type.
    Own,
    /// A pattern in which `*` stands for `%`.
    Pattern,
    /// A text.
    Text,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quantifier {
    Any,
    All,
}

const OPERATORS: [(&str, &str, With); 14] = [
    ("eq", "=", With::Own),
    ("neq", "<>", With::Own),
    ("gt", ">", With::Own),
    ("gte", ">=", With::Own),
    ("lt", "<", With::Own),
    ("lte", "<=", With::Own),
    ("like", "like", With::Pattern),
    ("ilike", "ilike", With::Pattern),
    ("match", "~", With::Text),
    ("imatch", "~*", With::Text),
    ("cs", "@>", With::Own),
    ("cd", "<@", With::Own),
    ("ov", "&&", With::Own),
    ("isdistinct", "is distinct from", With::Own),
];

/// Those that PostgREST lets `(any)` and `(all)` follow.
const QUANTIFIED: [&str; 9] = ["eq", "gt", "gte", "lt", "lte", "like", "ilike", "match", "imatch"];

/// The filters of one request, counted.
#[derive(Debug, Default)]
pub(super) struct Filters {
    nodes: Vec<Node>,
    count: usize,
}

impl Filters {
    pub(super) fn into_nodes(self) -> Vec<Node> {
        self.nodes
    }

    /// Reads one parameter of the query.
    pub(super) fn add(&mut self, key: &str, value: &str) -> Result<(), Error> {
        let group = match key {
            "and" => Some((false, true)),
            "or" => Some((false, false)),
            "not.and" => Some((true, true)),
            "not.or" => Some((true, false)),
            _ => None,
        };
        let node = match group {
            Some((negated, all)) => {
                let mut scan = Scan::new(value);
                let nodes = scan.expect("(").and_then(|()| self.nodes_of(&mut scan, 1));
                let nodes = nodes.and_then(|nodes| scan.end().map(|()| nodes));
                let nodes = nodes.map_err(|bad| bad.told("logic tree", value))?;
                Node::Group { negated, all, nodes }
            }
            None => self.one(key, value)?,
        };
        self.nodes.push(node);
        Ok(())
    }

    fn one(&mut self, key: &str, value: &str) -> Result<Node, Error> {
        let mut scan = Scan::new(key);
        let field = Field::read(&mut scan).map_err(|bad| bad.told("filter", key))?;
        if scan.peek() == Some('.') {
            let message = format!("'{}' is not an embedded resource in this request", field.column);
            return Err(Error::new(400, "PGRST108", message)
                .with_hint("The hub gives one table at a time."));
        }
        scan.end().map_err(|bad| bad.told("filter", key))?;
        let mut scan = Scan::new(value);
        self.counted(&scan)
            .and_then(|()| test(&mut scan, Place::Whole))
            .and_then(|(negated, test)| scan.end().map(|()| Node::Test { field, negated, test }))
            .map_err(|bad| bad.told("filter", value))
    }

    fn counted(&mut self, scan: &Scan<'_>) -> Result<(), Bad> {
        self.count += 1;
        if self.count <= FILTERS_MAX {
            return Ok(());
        }
        Err(scan.bad(format!("at most {FILTERS_MAX} filters are taken")))
    }

    /// What stands in `and(…)` and `or(…)`, with the bracket that closes it.
    fn nodes_of(&mut self, scan: &mut Scan<'_>, depth: usize) -> Result<Vec<Node>, Bad> {
        if depth > DEPTH_MAX {
            return Err(scan.bad(format!("`and` and `or` go at most {DEPTH_MAX} deep")));
        }
        let mut nodes = Vec::new();
        loop {
            scan.spaces();
            nodes.push(self.node(scan, depth)?);
            scan.spaces();
            if scan.eat(")") {
                return Ok(nodes);
            }
            scan.expect(",")?;
        }
    }

    fn node(&mut self, scan: &mut Scan<'_>, depth: usize) -> Result<Node, Bad> {
        for (word, negated, all) in [
            ("and(", false, true),
            ("or(", false, false),
            ("not.and(", true, true),
            ("not.or(", true, false),
        ] {
            if scan.eat(word) {
                let nodes = self.nodes_of(scan, depth + 1)?;
                return Ok(Node::Group { negated, all, nodes });
            }
        }
        self.counted(scan)?;
        let field = Field::read(scan)?;
        scan.expect(".")?;
        let (negated, test) = test(scan, Place::Tree)?;
        Ok(Node::Test { field, negated, test })
    }
}

/// Where a value stands, which says where it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It is all that is left.
    Whole,
    /// In `and(…)` or `or(…)`.
    Tree,
}

fn test(scan: &mut Scan<'_>, place: Place) -> Result<(bool, Test), Bad> {
    let negated = scan.eat("not.");
    let start = scan.clone();
    let word = scan.take_while(|c| c.is_ascii_alphabetic());
    let quantifier = if scan.eat("(any)") {
        Some(Quantifier::Any)
    } else if scan.eat("(all)") {
        Some(Quantifier::All)
    } else {
        None
    };
    if NOT_SERVED.contains(&word) {
        return Err(start.bad("full-text search and ranges are not served by this hub"));
    }
    let known = OPERATORS.into_iter().find(|(name, ..)| *name == word);
    let names_none = known.is_none() && !matches!(word, "in" | "is");
    if names_none || !scan.eat(".") || quantifier.is_some() && !QUANTIFIED.contains(&word) {
        return Err(start.bad("\"not\" or an operator (eq, gt, ...) and `.` must stand here"));
    }
    let test = match (known, word) {
        (Some((_, sql, with)), _) => {
            let (operator, value) = (Operator { sql, with }, value(scan, place));
            match quantifier {
                Some(quantifier) => Test::Each(operator, quantifier, value),
                None => Test::Compare(operator, value),
            }
        }
        (None, "in") => Test::In(list(scan, place)?),
        (None, _) => {
            let start = scan.clone();
            let word = value(scan, place).to_ascii_lowercase();
            let known = ["null", "not_null", "true", "false", "unknown"];
            let Some(word) = known.into_iter().find(|known| *known == word) else {
                return Err(start.bad("`is` is followed by null, not_null, true, false or unknown"));
            };
            Test::Is(if word == "not_null" { "not null" } else { word })
        }
    };
    Ok((negated, test))
}

fn value(scan: &mut Scan<'_>, place: Place) -> String {
    if place == Place::Whole {
        return scan.take_rest().to_owned();
    }
    if let Some(text) = scan.quoted(|rest| rest.starts_with([',', ')'])) {
        return text;
    }
    if let Some(text) = braced(scan) {
        return text;
    }
    scan.take_while(|c| !matches!(c, ',' | ')')).to_owned()
}

/// Takes an array or an object, which may hold what would otherwise end the value.
fn braced(scan: &mut Scan<'_>) -> Option<String> {
    let text = scan.rest();
    let (mut depth, mut is_quoted, mut is_escaped) = (0usize, false, false);
    if !text.starts_with(['{', '[']) {
        return None;
    }
    for (at, c) in text.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            '{' | '[' if !is_quoted => depth += 1,
            '}' | ']' if !is_quoted => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    let all = &text[..=at];
                    scan.eat(all);
                    return Some(all.to_owned());
                }
            }
            _ => {}
        }
    }
    None
}

/// Reads `(a,"b,c")`. The Python client writes a quote within quotes as `\"`, the JavaScript client as it is;
/// so the quote that ends a value is one that a comma or the end of the list follows.
fn list(scan: &mut Scan<'_>, place: Place) -> Result<Vec<String>, Bad> {
    let ends = |rest: &str| {
        rest.starts_with(',')
            || if place == Place::Whole { rest == ")" } else { rest.starts_with(')') }
    };
    scan.expect("(")?;
    let mut values = Vec::new();
    if scan.eat(")") {
        return Ok(values);
    }
    loop {
        let quoted = scan.quoted(ends);
        let value =
            quoted.unwrap_or_else(|| scan.take_while(|c| !matches!(c, ',' | ')')).to_owned());
        if values.len() == LIST_MAX {
            return Err(scan.bad(format!("a list has at most {LIST_MAX} values")));
        }
        values.push(value);
        if scan.eat(")") {
            return Ok(values);
        }
        scan.expect(",")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(key: &str, value: &str) -> Result<Node, Error> {
        let mut filters = Filters::default();
        filters.add(key, value)?;
        Ok(filters.into_nodes().remove(0))
    }

    fn values(value: &str) -> Result<Vec<String>, Error> {
        match filter("a", value)? {
            Node::Test { test: Test::In(values), .. } => Ok(values),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn lists_are_read_as_either_client_quotes_them() {
        assert_eq!(values("in.()").expect("none"), Vec::<String>::new());
        assert_eq!(values("in.(p,\"q,r\",s\"t,3)").expect("js"), ["p", "q,r", "s\"t", "3"]);
        assert_eq!(values("in.(p,\"q,r\",\"s\\\"t\",3)").expect("py"), ["p", "q,r", "s\"t", "3"]);
        assert_eq!(values("in.(\"a\"b,c\")").expect("js, unescaped"), ["a\"b,c"]);
        assert_eq!(values("in.(\"a)b\",\"c(d\")").expect("brackets"), ["a)b", "c(d"]);
        assert_eq!(values("in.(\"x,y)").expect("an open quote"), ["\"x", "y"]);
        assert_eq!(values("in.(,)").expect("empty ones"), ["", ""]);
        for bad in ["in.a", "in.(a", "in.(a)b", "in", "in.", "in.(a))", "in(any).(a)"] {
            assert_eq!(values(bad).expect_err(bad).code(), "PGRST100");
        }
        assert!(values(&format!("in.({})", "1,".repeat(LIST_MAX))).is_err());
    }

    #[test]
    fn trees_are_read() {
        let tree = "(r.eq.1,not.and(s.gt.2,t.not.is.null),u.in.(1,\"2,3\"),v.cs.{a,{\"b,)\":1}},w.eq.\"x,)\")";
        let Node::Group { all: false, negated: false, nodes } = filter("or", tree).expect(tree)
        else {
            panic!("no group");
        };
        assert_eq!(nodes.len(), 5);
        assert!(
            matches!(&nodes[1], Node::Group { negated: true, all: true, nodes } if nodes.len() == 2)
        );
        let value = |node: &Node| match node {
            Node::Test { test: Test::Compare(_, value), .. } => value.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(
            (value(&nodes[3]), value(&nodes[4])),
            ("{a,{\"b,)\":1}}".to_owned(), "x,)".to_owned())
        );
        for bad in [
            "",
            "()",
            "(a)",
            "(a.eq.1",
            "(a.eq.1)x",
            "(a.eq.1,)",
            "a.eq.1",
            "(a.foo.1)",
            "(and())",
            "(.eq.1)",
        ] {
            assert_eq!(filter("or", bad).expect_err(bad).code(), "PGRST100");
        }
        let deep =
            format!("{}a.eq.1{}", "(and".repeat(20).replacen("(and", "", 1) + "(", ")".repeat(20));
        assert!(filter("and", &deep).is_err());
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for (key, value) in [
            ("a", ""),
            ("a", "1"),
            ("a", "foo.1"),
            ("a", "eq"),
            ("a", "wfts(english).x"),
            ("a", "is.maybe"),
            ("a", "not.not.eq.1"),
            ("a", "cs(any).{1}"),
            ("a b", "eq.1"),
            ("", "eq.1"),
            ("a\"", "eq.1"),
        ] {
            assert_eq!(filter(key, value).expect_err(value).code(), "PGRST100", "{key}={value}");
        }
        assert_eq!(filter("rel.a", "eq.1").expect_err("embedded").code(), "PGRST108");
        let mut filters = Filters::default();
        let refused = (0..=FILTERS_MAX).find_map(|_| filters.add("a", "eq.1").err());
        assert_eq!(refused.expect("too many").code(), "PGRST100");
    }
}
