//! From a query to SQL. What a client wrote becomes a parameter, or a name that the catalogue knows; nothing
//! else of it is in the statement.

use std::fmt::Write as _;

use sqlx::postgres::PgArguments;
use sqlx::query::Query as Statement;
use sqlx::{AssertSqlSafe, Postgres};

use crate::hub::rest::Error;
use crate::hub::rest::catalogue::{Column, Function};
use crate::hub::rest::field::{Field, Key};
use crate::hub::rest::filter::{Node, Operator, Quantifier, Test, With};
use crate::hub::rest::query::Query;
use crate::hub::rest::select::{Item, Order};

/// What the statement selects from, in the answer's own words.
const FROM: &str = "source";

/// A statement and its parameters.
#[derive(Debug, Default)]
pub(super) struct Sql {
    text: String,
    binds: Vec<Bind>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Bind {
    Text(String),
    List(Vec<String>),
    Number(i64),
}

/// What is read, and under which name messages call it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) name: &'a str,
    pub(super) columns: &'a [Column],
}

/// In which form rows are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Each as a JSON object.
    Json,
    /// Each as an array of texts.
    Texts,
    /// None; only how many there are.
    Number,
}

/// How a statement gives how many rows there are in all, as its last row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Total {
    Untold,
    /// All of them.
    Exact,
    /// As many as so many.
    UpTo(u32),
}

/// What surrounds the query: the most rows, their form and their number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) rows_max: Option<u32>,
    pub(super) form: Form,
    pub(super) total: Total,
    /// The largest row that is given; of a larger one a -1 in the number's place.
    pub(super) bytes_max: usize,
}

impl Sql {
    /// Rows of a table.
    pub(super) fn of_table(source: Source<'_>, query: &Query, shape: Shape) -> Result<Self, Error> {
        let mut sql = Self::default();
        let from = format!("public.{} as {FROM}", ident(source.name));
        sql.paged(&from, source, query, shape)?;
        Ok(sql)
    }

    /// What a function gives that gives rows; its arguments are an object in `args`.
    pub(super) fn of_rows(
        function: &Function,
        given: &[&str],
        args: String,
        query: &Query,
        shape: Shape,
    ) -> Result<Self, Error> {
        let mut sql = Self::default();
        let call = sql.call(function, given, args);
        let name = function.name.as_str();
        let source = Source { name, columns: function.columns.as_deref().unwrap_or_default() };
        if query.is_plain() && shape.form == Form::Json && shape.total == Total::Untold {
            // What workers call, over and over: one text for each function, so that it stays prepared.
            sql.text = format!(
                "select row_to_json(page)::text, null::bigint from (select {FROM}.* from {call}) page"
            );
            return Ok(sql);
        }
        // A function is called once, whatever is then done with its rows.
        sql.text = format!("with called as materialized (select {FROM}.* from {call}) ");
        sql.paged(&format!("called as {FROM}"), source, query, shape)?;
        Ok(sql)
    }

    /// What a function gives that gives values.
    pub(super) fn of_values(function: &Function, given: &[&str], args: String) -> Self {
        let mut sql = Self::default();
        let call = sql.call(function, given, args);
        sql.text =
            format!("select to_json({FROM}.value)::text, null::bigint from {}", call.values());
        sql
    }

    /// A function that gives nothing.
    pub(super) fn of_nothing(function: &Function, given: &[&str], args: String) -> Self {
        let mut sql = Self::default();
        let call = sql.call(function, given, args);
        sql.text = format!("select null::text, null::bigint from {}", call.values());
        sql
    }

    /// Whether the same text comes again and again.
    pub(super) fn is_persistent(&self) -> bool {
        !self.text.starts_with("with")
    }

    /// The statement, to be carried out.
    pub(super) fn statement(&self) -> Statement<'static, Postgres, PgArguments> {
        let mut statement = sqlx::query(AssertSqlSafe(self.text.clone()));
        for bind in self.binds.iter().cloned() {
            statement = match bind {
                Bind::Text(text) => statement.bind(text),
                Bind::List(texts) => statement.bind(texts),
                Bind::Number(number) => statement.bind(number),
            };
        }
        statement.persistent(self.is_persistent())
    }

    fn bind(&mut self, bind: Bind) -> String {
        self.binds.push(bind);
        format!("${}", self.binds.len())
    }

    fn text(&mut self, text: &str) -> String {
        self.bind(Bind::Text(text.to_owned()))
    }

    /// `from` that calls the function with the arguments that were given, which Postgres itself reads from JSON.
    fn call(&mut self, function: &Function, given: &[&str], args: String) -> Call {
        let args_of = || function.args.iter().filter(|arg| given.contains(&arg.name.as_str()));
        let called = ident(&function.name);
        if args_of().next().is_none() {
            return Call { args: String::new(), call: format!("public.{called}()") };
        }
        let args = self.bind(Bind::Text(args));
        let typed: Vec<String> =
            args_of().map(|arg| format!("{} {}", ident(&arg.name), arg.kind)).collect();
        let named: Vec<String> =
            args_of().map(|arg| format!("{0} => args.{0}", ident(&arg.name))).collect();
        Call {
            args: format!("json_to_record({args}::json) as args({}), lateral ", typed.join(", ")),
            call: format!("public.{called}({})", named.join(", ")),
        }
    }

    /// `with page as (…) select <rows> union all select <number>`.
    fn paged(
        &mut self,
        from: &str,
        source: Source<'_>,
        query: &Query,
        shape: Shape,
    ) -> Result<(), Error> {
        let (items, names) = self.items(source, &query.items)?;
        let condition = self.condition(source, &query.filters)?;
        let order = self.orders(source, &query.orders)?;
        let limit = match (query.limit, shape.rows_max) {
            (Some(limit), Some(max)) => Some(limit.min(max)),
            (limit, max) => limit.or(max),
        };
        let also = if self.text.is_empty() { "with" } else { "," };
        let _infallible =
            write!(self.text, "{also} page as (select {items} from {from}{condition}{order}");
        if let Some(limit) = limit {
            let limit = self.bind(Bind::Number(limit.into()));
            let _infallible = write!(self.text, " limit {limit}");
        }
        if query.offset > 0 {
            let offset = self.bind(Bind::Number(query.offset.into()));
            let _infallible = write!(self.text, " offset {offset}");
        }
        self.text.push_str(") ");
        match shape.form {
            Form::Json => self.bounded("row_to_json(page)::text", shape.bytes_max),
            Form::Texts => {
                let texts: Vec<String> =
                    names.iter().map(|name| format!("page.{}::text", ident(name))).collect();
                self.bounded(&format!("array[{}]::text[]", texts.join(", ")), shape.bytes_max);
            }
            Form::Number => self.text.push_str("select null::text, count(*) from page"),
        }
        let null = if shape.form == Form::Texts { "null::text[]" } else { "null::text" };
        let most = match shape.total {
            Total::Untold => return Ok(()),
            Total::Exact => String::new(),
            Total::UpTo(most) => format!(" limit {most}"),
        };
        let _infallible = write!(
            self.text,
            " union all select {null}, count(*) from (select from {from}{condition}{most}) counted"
        );
        Ok(())
    }

    /// `select <each row>, null`: one that is too large does not leave the database.
    fn bounded(&mut self, row: &str, bytes_max: usize) {
        // Behind an offset, or each use of `it` would write the row anew.
        let _infallible = write!(
            self.text,
            "select case when fits then it end, case when not fits then -1::bigint end from (\
             select it, octet_length(it::text) <= {bytes_max} as fits from (\
             select {row} as it from page offset 0) written offset 0) measured"
        );
    }

    /// What is selected, and the names that it has.
    fn items(
        &mut self,
        source: Source<'_>,
        items: &[Item],
    ) -> Result<(String, Vec<String>), Error> {
        let (mut selected, mut names) = (Vec::new(), Vec::new());
        for item in items {
            match item {
                Item::All => {
                    selected.push(format!("{FROM}.*"));
                    names.extend(source.columns.iter().map(|column| column.name.clone()));
                }
                Item::One { field, name, cast } => {
                    let (field, _) = self.field(source, field)?;
                    let cast = cast.map(|cast| format!("::{cast}")).unwrap_or_default();
                    selected.push(format!("({field}){cast} as {}", ident(name)));
                    names.push(name.clone());
                }
            }
        }
        Ok((selected.join(", "), names))
    }

    fn orders(&mut self, source: Source<'_>, orders: &[Order]) -> Result<String, Error> {
        let mut texts = Vec::new();
        for Order { field, descends, nulls_first } in orders {
            let (field, _) = self.field(source, field)?;
            let nulls = match nulls_first {
                Some(true) => " nulls first",
                Some(false) => " nulls last",
                None => "",
            };
            // In brackets, or a bare parameter would be a place in the list of columns.
            texts.push(format!("({field}) {}{nulls}", if *descends { "desc" } else { "asc" }));
        }
        let order = texts.join(", ");
        Ok(if order.is_empty() { order } else { format!(" order by {order}") })
    }

    fn condition(&mut self, source: Source<'_>, nodes: &[Node]) -> Result<String, Error> {
        if nodes.is_empty() {
            return Ok(String::new());
        }
        Ok(format!(" where {}", self.joined(source, nodes, " and ")?))
    }

    fn joined(&mut self, source: Source<'_>, nodes: &[Node], by: &str) -> Result<String, Error> {
        let texts: Result<Vec<String>, Error> =
            nodes.iter().map(|node| self.node(source, node)).collect();
        Ok(texts?.join(by))
    }

    fn node(&mut self, source: Source<'_>, node: &Node) -> Result<String, Error> {
        let (negated, text) = match node {
            Node::Group { negated, all, nodes } => {
                (negated, self.joined(source, nodes, if *all { " and " } else { " or " })?)
            }
            Node::Test { field, negated, test } => {
                let (field, kind) = self.field(source, field)?;
                (negated, self.test(&field, &kind, test))
            }
        };
        Ok(format!("{}({text})", if *negated { "not " } else { "" }))
    }

    fn test(&mut self, field: &str, kind: &str, test: &Test) -> String {
        match test {
            Test::Is(word) => format!("{field} is {word}"),
            Test::In(values) => {
                let values = self.bind(Bind::List(values.clone()));
                format!("{field} = any({values}::{kind}[])")
            }
            Test::Compare(Operator { sql, with }, value) => {
                let value = self.value(*with, kind, value);
                format!("{field} {sql} {value}")
            }
            Test::Each(Operator { sql, with }, quantifier, array) => {
                let kind = if *with == With::Own { kind } else { "text" };
                let array = match with {
                    With::Pattern => self.text(&array.replace('*', "%")),
                    With::Own | With::Text => self.text(array),
                };
                let each = if *quantifier == Quantifier::Any { "any" } else { "all" };
                format!("{field} {sql} {each}({array}::{kind}[])")
            }
        }
    }

    fn value(&mut self, with: With, kind: &str, value: &str) -> String {
        match with {
            With::Own => format!("{}::{kind}", self.text(value)),
            With::Pattern => format!("{}::text", self.text(&value.replace('*', "%"))),
            With::Text => format!("{}::text", self.text(value)),
        }
    }

    /// A field as SQL, and its type.
    fn field(&mut self, source: Source<'_>, field: &Field) -> Result<(String, String), Error> {
        let Some(column) = source.columns.iter().find(|column| column.name == field.column) else {
            let message = format!("column {}.{} does not exist", source.name, field.column);
            let names: Vec<&str> =
                source.columns.iter().map(|column| column.name.as_str()).collect();
            return Err(Error::new(400, "42703", message)
                .with_hint(format!("There are {}", names.join(", "))));
        };
        let mut text = format!("{FROM}.{}", ident(&column.name));
        if field.path.is_empty() {
            return Ok((text, column.kind.clone()));
        }
        if !matches!(column.kind.as_str(), "json" | "jsonb") {
            text = format!("to_jsonb({text})");
        }
        for step in &field.path {
            let arrow = if step.as_text { "->>" } else { "->" };
            let key = match &step.key {
                Key::Name(name) => format!("{}::text", self.text(name)),
                Key::Index(index) => format!("({index})"),
            };
            text = format!("{text} {arrow} {key}");
        }
        let kind = if field.is_text() { "text" } else { "jsonb" };
        Ok((format!("({text})"), kind.to_owned()))
    }
}

/// A call of a function, in `from`.
struct Call {
    args: String,
    call: String,
}

impl Call {
    /// As one column `value`, whatever the function calls it.
    fn values(&self) -> String {
        format!("{}{} as {FROM}(value)", self.args, self.call)
    }
}

impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{} as {FROM}", self.args, self.call)
    }
}

/// A name as SQL, whatever is in it.
fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
