//! The columns of the tables, as the database has them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnection, PgPool};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::error::chain;
use crate::hub::realtime::binding::{Binding, Filter};
use crate::hub::realtime::change::Table;
use crate::hub::realtime::filter::{Condition, Op};
use crate::hub::realtime::queries::{self, Column};

/// How old the catalogue may be: a migration may run beside the hub.
const AGE: Duration = Duration::from_secs(60);

/// The columns of the tables.
#[derive(Debug)]
pub(crate) struct Catalog(HashMap<&'static str, Vec<Column>>);

/// The catalogue, read again when it is old.
#[derive(Debug, Default)]
pub(crate) struct Cache(Mutex<Option<(Instant, Arc<Catalog>)>>);

impl Cache {
    /// Has it read again: what it says did not hold.
    pub(crate) async fn forget(&self) {
        *self.0.lock().await = None;
    }

    pub(crate) async fn get(&self, pool: &PgPool) -> sqlx::Result<Arc<Catalog>> {
        let mut cached = self.0.lock().await;
        if let Some((read, catalog)) = &*cached
            && read.elapsed() < AGE
        {
            return Ok(Arc::clone(catalog));
        }
        let mut tables: HashMap<&'static str, Vec<Column>> = HashMap::new();
        for column in queries::columns(pool).await? {
            if let Some(table) = Table::of_name(&column.table_name) {
                tables.entry(table.name()).or_default().push(column);
            }
        }
        let catalog = Arc::new(Catalog(tables));
        *cached = Some((Instant::now(), Arc::clone(&catalog)));
        Ok(catalog)
    }
}

/// Why a subscription cannot be.
#[derive(Debug)]
pub(crate) enum Unready {
    /// What was asked for cannot be; it says why.
    Refused(String),
    /// The database did not answer.
    Database(String),
}

impl Catalog {
    pub(crate) fn columns(&self, table: Table) -> &[Column] {
        self.0.get(table.name()).map_or(&[], Vec::as_slice)
    }

    /// Checks that what a subscription names is there, and that its values can be read as what they are compared
    /// with.
    pub(crate) async fn check(
        &self,
        db: &mut PgConnection,
        binding: &Binding,
    ) -> Result<(), Unready> {
        for table in binding.tables() {
            let columns: HashMap<&str, &Column> =
                self.columns(table).iter().map(|column| (column.name.as_str(), column)).collect();
            let missing =
                |name: &str| Unready::Refused(format!("{} has no column {name:?}", table.name()));
            for name in binding.select.iter().flat_map(|names| names.iter()) {
                columns.get(name.as_str()).ok_or_else(|| missing(name))?;
            }
            let Some(filter) = &binding.filter else { continue };
            for condition in &filter.conditions {
                let column = columns.get(condition.column.as_str());
                fits(condition, column.ok_or_else(|| missing(&condition.column))?)
                    .map_err(Unready::Refused)?;
            }
            try_values(db, filter, &columns).await?;
        }
        Ok(())
    }
}

fn fits(condition: &Condition, column: &Column) -> Result<(), String> {
    let rule = match &condition.op {
        Op::Pattern(..) if !column.is_text => "patterns are for columns of text",
        Op::In(_) if column.is_array => "`in` is not for columns of arrays",
        Op::Is("true" | "false" | "unknown") if !column.is_bool => {
            "`is` takes null alone but for columns of booleans"
        }
        _ => return Ok(()),
    };
    Err(format!("filter: {rule}, and {:?} is {}", column.name, column.sql_type))
}

async fn try_values(
    db: &mut PgConnection,
    filter: &Filter,
    columns: &HashMap<&str, &Column>,
) -> Result<(), Unready> {
    match queries::try_filter(db, filter, columns).await {
        Ok(()) => Ok(()),
        Err(sqlx::Error::Database(refusal)) if is_of_data(refusal.code().as_deref()) => {
            Err(Unready::Refused(format!("filter: {}", refusal.message())))
        }
        Err(error) => Err(Unready::Database(chain(&error).to_string())),
    }
}

/// Whether Postgres says that the values are wrong, and not that it cannot serve: data exceptions, types that cannot
/// be compared, and whatever takes for ever.
pub(crate) fn is_of_data(state: Option<&str>) -> bool {
    state.is_some_and(|state| {
        state.starts_with("22") || matches!(state, "42846" | "42883" | "42804" | "42725" | "57014")
    })
}
