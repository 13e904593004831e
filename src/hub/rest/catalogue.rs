//! What there is to call and to read, as the database says: read once, and again when something is missing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use sqlx::postgres::PgPool;
use tokio::sync::Mutex;

use crate::clock::Stopwatch;
use crate::error::chain;
use crate::hub::caller::within;
use crate::hub::rest::Error;

/// The tables that may be read. Who may read which rows, the database decides.
pub(super) const TABLES: [&str; 3] = ["agent_messages", "bus_events", "workers"];
/// How soon it is read again for something that is not in it.
const AGE_MIN: Duration = Duration::from_secs(1);
/// How long reading it may take.
const READ_WITHIN: Duration = Duration::from_secs(5);

/// What can be called and read.
#[derive(Debug)]
pub(super) struct Catalogue {
    tables: BTreeMap<String, Vec<Column>>,
    functions: BTreeMap<String, Vec<Arc<Function>>>,
}

/// A column, of a table or of what a function gives.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Column {
    pub(super) name: String,
    /// The type, as SQL writes it.
    #[serde(rename = "type")]
    pub(super) kind: String,
}

/// One function; a name may have several.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Function {
    pub(super) name: String,
    /// Whether it is stable or immutable.
    pub(super) only_reads: bool,
    /// Whether it gives any number of rows.
    pub(super) is_set: bool,
    is_void: bool,
    /// How many of its first arguments have no default.
    required: usize,
    pub(super) args: Vec<Column>,
    /// The columns of what it gives, unless that is one value.
    pub(super) columns: Option<Vec<Column>>,
}

/// What a function gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gives {
    Nothing,
    Value,
    Values,
    Row,
    Rows,
}

impl Function {
    pub(super) fn gives(&self) -> Gives {
        match (self.is_void, self.columns.is_some(), self.is_set) {
            (true, ..) => Gives::Nothing,
            (_, true, true) => Gives::Rows,
            (_, true, false) => Gives::Row,
            (_, false, true) => Gives::Values,
            (_, false, false) => Gives::Value,
        }
    }

    fn takes(&self, given: &[&str]) -> bool {
        let known = |name: &&str| self.args.iter().any(|arg| arg.name == **name);
        let needed = |arg: &Column| given.contains(&arg.name.as_str());
        given.iter().all(known) && self.args.iter().take(self.required).all(needed)
    }

    /// Its name and arguments, for people.
    fn signature(&self) -> String {
        let arg = |(at, arg): (usize, &Column)| {
            let default = if at < self.required { "" } else { " (optional)" };
            format!("{} {}{default}", arg.name, arg.kind)
        };
        let args: Vec<String> = self.args.iter().enumerate().map(arg).collect();
        format!("public.{}({})", self.name, args.join(", "))
    }
}

impl Catalogue {
    pub(super) fn columns(&self, table: &str) -> Option<&[Column]> {
        self.tables.get(table).map(Vec::as_slice)
    }

    /// All functions of a name.
    pub(super) fn functions(&self, name: &str) -> &[Arc<Function>] {
        self.functions.get(name).map_or(&[], Vec::as_slice)
    }

    /// The function of this name that takes these arguments. Of several the one with the fewest arguments, which
    /// is the one that leaves the fewest to their defaults.
    pub(super) fn function(&self, name: &str, given: &[&str]) -> Result<Arc<Function>, Error> {
        let mut fitting: Vec<&Arc<Function>> =
            self.functions(name).iter().filter(|function| function.takes(given)).collect();
        fitting.sort_by_key(|function| function.args.len());
        match fitting.as_slice() {
            [] => Err(self.no_function(name, given)),
            [one, other, ..] if one.args.len() == other.args.len() => {
                let message = format!(
                    "Could not choose the best candidate function between: {}, {}",
                    one.signature(),
                    other.signature()
                );
                Err(Error::new(300, "PGRST203", message))
            }
            [one, ..] => Ok(Arc::clone(one)),
        }
    }

    fn no_function(&self, name: &str, given: &[&str]) -> Error {
        let with = match given {
            [] => "without parameters".to_owned(),
            [one] => format!("with parameter {one}"),
            several => format!("with parameters {}", several.join(", ")),
        };
        let called = format!("public.{name}({})", given.join(", "));
        let message = format!("Could not find the function {called} in the schema cache");
        let details =
            format!("Searched for the function public.{name} {with}, but no matches were found.");
        let known: Vec<String> =
            self.functions(name).iter().map(|function| function.signature()).collect();
        let error = Error::new(404, "PGRST202", message).with_details(details);
        if !known.is_empty() {
            return error.with_hint(format!("Perhaps you meant to call {}", known.join(" or ")));
        }
        match self.nearest(name) {
            Some(near) => {
                error.with_hint(format!("Perhaps you meant to call the function public.{near}"))
            }
            None => error.with_hint("The hub serves the functions bus_* alone."),
        }
    }

    /// A function whose name differs in few letters.
    fn nearest(&self, name: &str) -> Option<&str> {
        if name.len() > 64 {
            return None;
        }
        let names = self.functions.keys().map(|known| (distance(known, name), known.as_str()));
        names.min().filter(|(distance, _)| *distance <= 3).map(|(_, known)| known)
    }
}

/// How many letters must be changed, added or taken to make `b` of `a`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let changed = corner + usize::from(left != *right);
            corner = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}

/// The catalogue as it was last read.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    last: Mutex<Option<(Stopwatch, Arc<Catalogue>)>>,
}

impl Cache {
    /// What was read last, at whatever time.
    pub(super) async fn get(&self, pool: &PgPool) -> Result<Arc<Catalogue>, Error> {
        self.at_most(None, pool).await
    }

    /// What is there now, or was less than a second ago.
    pub(super) async fn renewed(&self, pool: &PgPool) -> Result<Arc<Catalogue>, Error> {
        self.at_most(Some(AGE_MIN), pool).await
    }

    /// Whoever asks while it is being read waits for that.
    async fn at_most(&self, age: Option<Duration>, pool: &PgPool) -> Result<Arc<Catalogue>, Error> {
        let mut last = self.last.lock().await;
        if let Some((since, catalogue)) = &*last
            && age.is_none_or(|age| since.elapsed() < age)
        {
            return Ok(Arc::clone(catalogue));
        }
        let read = within(READ_WITHIN, read(pool)).await.map_err(|error| {
            tracing::warn!(error = %chain(&error), "Could not read what functions there are");
            let message = "Could not query the database for the schema cache. Retrying.";
            Error::new(503, "PGRST002", message)
                .with_hint("The hub's database does not answer; try again.")
                .with_retry_after(AGE_MIN)
        })?;
        let catalogue = Arc::new(read);
        *last = Some((Stopwatch::start(), Arc::clone(&catalogue)));
        Ok(catalogue)
    }
}

async fn read(pool: &PgPool) -> sqlx::Result<Catalogue> {
    let tables: Vec<(String, String)> = sqlx::query_as(
        "select c.relname::text, json_agg(json_build_object( \
             'name', a.attname, 'type', format_type(a.atttypid, null)) order by a.attnum)::text \
         from pg_class c join pg_attribute a on a.attrelid = c.oid \
         where c.relnamespace = 'public'::regnamespace and c.relname = any($1) \
           and a.attnum > 0 and not a.attisdropped \
         group by c.relname",
    )
    .bind(TABLES)
    .fetch_all(pool)
    .await?;
    // Arguments without a name cannot be given by name; a type that only SQL can make cannot be given at all.
    let functions: Vec<(String,)> = sqlx::query_as(
        "select json_build_object( \
             'name', p.proname, 'only_reads', p.provolatile <> 'v', 'is_set', p.proretset, \
             'is_void', p.prorettype = 'void'::regtype, \
             'required', p.pronargs - p.pronargdefaults, \
             'args', coalesce(a.args, '[]'), 'columns', coalesce(a.columns, r.columns))::text \
         from pg_proc p \
         cross join lateral ( \
             select json_agg(x.one order by x.ord) filter (where coalesce(x.mode, 'i') in ('i', 'b')) as args, \
                 json_agg(x.one order by x.ord) filter (where x.mode in ('o', 'b', 't')) as columns \
             from ( \
                 select u.mode, u.ord, \
                     json_build_object('name', u.name, 'type', format_type(u.type, null)) as one \
                 from unnest(coalesce(p.proallargtypes, p.proargtypes::oid[]), p.proargnames, \
                     p.proargmodes::text[]) with ordinality u(type, name, mode, ord) \
             ) x \
         ) a \
         left join lateral ( \
             select json_agg(json_build_object( \
                 'name', t.attname, 'type', format_type(t.atttypid, null)) order by t.attnum) as columns \
             from pg_type k join pg_attribute t on t.attrelid = k.typrelid \
             where k.oid = p.prorettype and k.typtype = 'c' and t.attnum > 0 and not t.attisdropped \
         ) r on true \
         where p.pronamespace = 'public'::regnamespace and p.prokind = 'f' \
           and p.proname like 'bus\\_%' and p.provariadic = 0 \
           and p.prorettype not in ('trigger'::regtype, 'event_trigger'::regtype) \
           and (p.pronargs = 0 or p.proargnames is not null and not '' = any(p.proargnames))",
    )
    .fetch_all(pool)
    .await?;
    let decode = |error| sqlx::Error::Decode(Box::new(error));
    let tables = tables.into_iter().map(|(name, columns)| {
        serde_json::from_str(&columns).map(|columns| (name, columns)).map_err(decode)
    });
    let mut named: BTreeMap<String, Vec<Arc<Function>>> = BTreeMap::new();
    for (json,) in functions {
        let function: Function = serde_json::from_str(&json).map_err(decode)?;
        named.entry(function.name.clone()).or_default().push(Arc::new(function));
    }
    Ok(Catalogue { tables: tables.collect::<Result<_, _>>()?, functions: named })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(name: &str, required: usize, args: &[&str]) -> Arc<Function> {
        let arg = |name: &&str| Column { name: (*name).to_owned(), kind: "text".to_owned() };
        Arc::new(Function {
            name: name.to_owned(),
            only_reads: false,
            is_set: true,
            is_void: false,
            required,
            args: args.iter().map(arg).collect(),
            columns: None,
        })
    }

    fn catalogue(functions: &[Arc<Function>]) -> Catalogue {
        let mut named: BTreeMap<String, Vec<Arc<Function>>> = BTreeMap::new();
        for function in functions {
            named.entry(function.name.clone()).or_default().push(Arc::clone(function));
        }
        Catalogue { tables: BTreeMap::new(), functions: named }
    }

    #[test]
    fn a_function_is_found_by_its_arguments() {
        let some = catalogue(&[
            function("bus_claim", 2, &["worker", "topics", "max"]),
            function("bus_retain", 0, &["a", "b"]),
            function("bus_retain", 0, &["a", "b", "c"]),
        ]);
        let found = |name, given: &[&str]| some.function(name, given).map(|found| found.args.len());
        assert_eq!(found("bus_claim", &["topics", "worker"]).expect("found"), 3);
        assert_eq!(found("bus_retain", &["a"]).expect("the closest"), 2);
        assert_eq!(found("bus_retain", &["c"]).expect("the only one"), 3);
        for given in [&["worker"][..], &["worker", "topics", "limit"], &[]] {
            let error = found("bus_claim", given).expect_err("not found");
            assert_eq!((error.status().as_u16(), error.code()), (404, "PGRST202"));
            let hint = "Perhaps you meant to call public.bus_claim(worker text, topics text, max text (optional))";
            assert!(format!("{error:?}").contains(hint), "{error:?}");
        }
        let near = format!("{:?}", found("bus_clam", &[]).expect_err("not found"));
        assert!(near.contains("public.bus_claim"), "{near}");
    }

    #[test]
    fn distances_are_counted_in_letters() {
        for (a, b, far) in [
            ("", "", 0),
            ("abc", "abc", 0),
            ("abc", "ab", 1),
            ("kitten", "sitting", 3),
            ("", "ab", 2),
        ] {
            assert_eq!(distance(a, b), far, "{a} {b}");
        }
    }
}
