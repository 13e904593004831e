//! The migrated database that every test's own is a copy of.

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection, Executor};

use super::Error;
use crate::db::MIGRATOR;
use crate::db::embedded::fnv1a;

/// `pg_advisory_lock` key under which one process makes the template ("cogotmpl").
const LOCK: i64 = 0x636f_676f_746d_706c;

/// Creates the database `name` as a copy of the template, which is made when it is missing.
pub(super) async fn clone(admin: &PgConnectOptions, name: &str) -> Result<(), Error> {
    let template = template_name();
    // Copying files is several times faster than writing the copy through the log.
    let statement = format!("create database {name} template {template} strategy file_copy");
    let mut connection =
        admin.connect().await.map_err(Error::query("connect to the server for tests"))?;
    if let Err(error) = execute(&mut connection, &statement).await {
        let missing =
            error.as_database_error().is_some_and(|error| error.code().as_deref() == Some("3D000"));
        if !missing {
            return Err(Error::Query { action: "copy the template", source: error });
        }
        make(admin, &mut connection, &template).await?;
        execute(&mut connection, &statement).await.map_err(Error::query("copy the template"))?;
    }
    connection.close().await.map_err(Error::query("end a session"))
}

/// A name that changes with the migrations, for servers that outlive a run.
fn template_name() -> String {
    let mut bytes = Vec::new();
    for migration in MIGRATOR.iter() {
        bytes.extend_from_slice(&migration.version.to_be_bytes());
        bytes.extend_from_slice(&migration.checksum);
    }
    format!("cogo_template_{:016x}", fnv1a(&bytes))
}

/// Makes the template under another name and renames it, so that nobody copies half of it.
async fn make(
    admin: &PgConnectOptions,
    connection: &mut PgConnection,
    template: &str,
) -> Result<(), Error> {
    let failed = || Error::query("create the template");
    // Held until the session ends, at the latest with its process.
    sqlx::query("select pg_advisory_lock($1)")
        .bind(LOCK)
        .execute(&mut *connection)
        .await
        .map_err(failed())?;
    let exists: bool =
        sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
            .bind(template)
            .fetch_one(&mut *connection)
            .await
            .map_err(failed())?;
    if !exists {
        let unfinished = format!("{template}_new");
        for statement in [
            format!("drop database if exists {unfinished} with (force)"),
            format!("create database {unfinished} template template0 encoding 'UTF8'"),
        ] {
            execute(connection, &statement).await.map_err(failed())?;
        }
        let mut inside = admin.clone().database(&unfinished).connect().await.map_err(failed())?;
        MIGRATOR.run(&mut inside).await.map_err(Error::Migrate)?;
        inside.close().await.map_err(failed())?;
        execute(connection, &format!("alter database {unfinished} rename to {template}"))
            .await
            .map_err(failed())?;
    }
    sqlx::query("select pg_advisory_unlock($1)")
        .bind(LOCK)
        .execute(connection)
        .await
        .map_err(failed())?;
    Ok(())
}

async fn execute(connection: &mut PgConnection, statement: &str) -> Result<(), sqlx::Error> {
    connection.execute(sqlx::AssertSqlSafe(statement.to_owned())).await.map(drop)
}
