//! `select=` and `order=`: which columns, under which names, in which order.

use crate::hub::rest::Error;
use crate::hub::rest::field::Field;
use crate::hub::rest::scan::{Bad, Scan};

/// How many columns may be asked for; the widest table has thirty.
const ITEMS_MAX: usize = 100;
/// How many columns may be ordered by.
const ORDERS_MAX: usize = 16;
/// Postgres cuts longer names off.
const ALIAS_MAX: usize = 63;
/// What a column may be cast to, and how SQL calls it. A list, since a type may run code of its own.
const CASTS: [(&str, &str); 20] = [
    ("text", "text"),
    ("varchar", "varchar"),
    ("smallint", "smallint"),
    ("int2", "smallint"),
    ("int", "integer"),
    ("integer", "integer"),
    ("int4", "integer"),
    ("bigint", "bigint"),
    ("int8", "bigint"),
    ("numeric", "numeric"),
    ("real", "real"),
    ("float4", "real"),
    ("float8", "double precision"),
    ("bool", "boolean"),
    ("boolean", "boolean"),
    ("json", "json"),
    ("jsonb", "jsonb"),
    ("uuid", "uuid"),
    ("timestamptz", "timestamptz"),
    ("date", "date"),
];

/// One thing that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    /// `*`
    All,
    /// `name:column->path::type`
    One { field: Field, name: String, cast: Option<&'static str> },
}

/// One thing that is ordered by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) field: Field,
    pub(super) descends: bool,
    pub(super) nulls_first: Option<bool>,
}

/// Reads `select=`, of the relation `from`.
pub(super) fn select(text: &str, from: &str) -> Result<Vec<Item>, Error> {
    let mut scan = Scan::new(text);
    let mut items = Vec::new();
    if text.is_empty() {
        return Ok(vec![Item::All]);
    }
    loop {
        match item(&mut scan) {
            Ok(Read::Item(item)) if is_repeated(&items, &item) => {
                let bad = scan.bad("the same is given at most three times");
                return Err(bad.told("select parameter", text));
            }
            Ok(Read::Item(item)) => items.push(item),
            Ok(Read::Embedded(name)) => return Err(embedded(from, &name)),
            Err(bad) => return Err(bad.told("select parameter", text)),
        }
        let bad = match scan.peek() {
            None => return Ok(items),
            Some(',') if items.len() == ITEMS_MAX => {
                scan.bad(format!("at most {ITEMS_MAX} columns are given"))
            }
            Some(',') => {
                scan.eat(",");
                continue;
            }
            Some(_) => scan.bad("`,` or the end must stand here"),
        };
        return Err(bad.told("select parameter", text));
    }
}

/// Whether something is asked for again and again: a payload of megabytes would become an answer of hundreds.
fn is_repeated(items: &[Item], item: &Item) -> bool {
    let same = |other: &&Item| match (item, other) {
        (Item::All, Item::All) => true,
        (Item::One { field, .. }, Item::One { field: other, .. }) => field == other,
        _ => false,
    };
    items.iter().filter(same).count() == 3
}

enum Read {
    Item(Item),
    /// Another table's rows.
    Embedded(String),
}

fn item(scan: &mut Scan<'_>) -> Result<Read, Bad> {
    scan.spaces();
    if scan.eat("*") {
        scan.spaces();
        return Ok(Read::Item(Item::All));
    }
    if scan.eat("...") {
        return Ok(Read::Embedded(scan.name()?));
    }
    let alias = alias(scan)?;
    let field = Field::read(scan)?;
    if matches!(scan.peek(), Some('(' | '!')) {
        return Ok(Read::Embedded(field.column));
    }
    let cast = if scan.eat("::") { Some(cast(scan)?) } else { None };
    scan.spaces();
    let name = alias.unwrap_or_else(|| field.own_name().to_owned());
    Ok(Read::Item(Item::One { field, name, cast }))
}

fn alias(scan: &mut Scan<'_>) -> Result<Option<String>, Bad> {
    let mut ahead = scan.clone();
    let Ok(name) = ahead.name() else { return Ok(None) };
    if ahead.rest().starts_with("::") || !ahead.eat(":") {
        return Ok(None);
    }
    if name.len() > ALIAS_MAX || name.chars().any(char::is_control) {
        return Err(
            scan.bad(format!("a name has at most {ALIAS_MAX} bytes and no control characters"))
        );
    }
    *scan = ahead;
    Ok(Some(name))
}

fn cast(scan: &mut Scan<'_>) -> Result<&'static str, Bad> {
    let bad = || {
        let names: Vec<&str> = CASTS.iter().map(|(name, _)| *name).collect();
        scan.bad(format!("a cast is to one of {}", names.join(", ")))
    };
    let (bad, name) = (bad(), scan.take_while(|c| c.is_ascii_alphanumeric() || c == '_'));
    CASTS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, sql)| *sql).ok_or(bad)
}

fn embedded(from: &str, name: &str) -> Error {
    let message =
        format!("Could not find a relationship between '{from}' and '{name}' in the schema cache");
    let details = format!(
        "Searched for a foreign key relationship between '{from}' and '{name}' in the schema \
         'public', but no matches were found."
    );
    Error::new(400, "PGRST200", message)
        .with_details(details)
        .with_hint("The hub gives one table at a time; ask for the other by itself.")
}

/// Reads `order=`.
pub(super) fn order(text: &str) -> Result<Vec<Order>, Error> {
    let mut scan = Scan::new(text);
    let mut orders = Vec::new();
    loop {
        let read = one_order(&mut scan).and_then(|order| {
            orders.push(order);
            match scan.peek() {
                None => Ok(true),
                Some(',') if orders.len() == ORDERS_MAX => {
                    Err(scan.bad(format!("at most {ORDERS_MAX} columns are ordered by")))
                }
                Some(',') => {
                    scan.eat(",");
                    Ok(false)
                }
                Some(_) => Err(scan.bad("`,` or the end must stand here")),
            }
        });
        match read {
            Ok(true) => return Ok(orders),
            Ok(false) => {}
            Err(bad) => return Err(bad.told("order", text)),
        }
    }
}

fn one_order(scan: &mut Scan<'_>) -> Result<Order, Bad> {
    scan.spaces();
    let field = Field::read(scan)?;
    let (mut direction, mut nulls_first) = (None, None);
    while scan.eat(".") {
        let bad = scan.bad("must be `asc`, `desc`, `nullsfirst` or `nullslast`, each once");
        let word = scan.take_while(|c| c.is_ascii_alphabetic());
        match word {
            "asc" | "desc" if direction.is_none() && nulls_first.is_none() => {
                direction = Some(word == "desc");
            }
            "nullsfirst" | "nullslast" if nulls_first.is_none() => {
                nulls_first = Some(word == "nullsfirst");
            }
            _ => return Err(bad),
        }
    }
    scan.spaces();
    Ok(Order { field, descends: direction.unwrap_or(false), nulls_first })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_casts_and_paths_are_read() {
        let names = |text: &str| {
            select(text, "t").map(|items| {
                let name = |item: &Item| match item {
                    Item::All => "*".to_owned(),
                    Item::One { name, cast, .. } => format!("{name}/{}", cast.unwrap_or("-")),
                };
                items.iter().map(name).collect::<Vec<_>>().join(" ")
            })
        };
        assert_eq!(names("*").expect("all"), "*");
        assert_eq!(names("").expect("all"), "*");
        let given =
            names("id, alias:payload->a->>b::int ,id::TEXT,*,\"odd:name\":id").expect("some");
        assert_eq!(given, "id/- alias/integer id/text * odd:name/-");
        for bad in [
            ",",
            "id,",
            "id,,id",
            "id::",
            "id::regclass",
            "id::text::int",
            ":id",
            "a:",
            "id;drop",
            "id.x",
            "a:*",
            "\"",
            "id-",
            "count()x",
        ] {
            let error = names(bad).expect_err(bad);
            assert!(matches!(error.code(), "PGRST100" | "PGRST200"), "{bad}: {error:?}");
        }
        for embedded in ["rel(id)", "id,rel!inner(id)", "a:rel(*)", "...rel(x)"] {
            assert_eq!(names(embedded).expect_err(embedded).code(), "PGRST200");
        }
        assert!(names(&"a,".repeat(200)).is_err());
        assert!(names("a,b:a").is_ok() && names("a,b:a,c:a,d:a::text").is_err());
        assert!(names("*,*,*,*").is_err() && names("p->a,p->b,p->c").is_ok());
        assert!(names(&format!("{}:id", "a".repeat(64))).is_err());
    }

    #[test]
    fn orders_are_read() {
        let read = order("priority.desc.nullslast,id.asc,payload->>k").expect("orders");
        let seen: Vec<_> = read.iter().map(|order| (order.descends, order.nulls_first)).collect();
        assert_eq!(seen, [(true, Some(false)), (false, None), (false, None)]);
        for bad in
            ["", "id.", "id.up", "id.nullsfirst.asc", "id.asc.desc", "id,", "rel(id)", "id asc"]
        {
            assert_eq!(order(bad).expect_err(bad).code(), "PGRST100");
        }
    }
}
