//! Time in SQL, in the hands of a test.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection, Executor};

use super::Error;

/// Replaces `cogo.now()`, the one place where the schema reads the time. Everyone may read the table, so
/// that no test depends on who calls.
const INSTALL: &str = "
create schema if not exists cogo_test;
create table if not exists cogo_test.clock (
    only_row boolean primary key default true check (only_row),
    frozen_at timestamptz,
    ahead interval not null default '0'
);
insert into cogo_test.clock default values on conflict do nothing;
grant usage on schema cogo_test to public;
grant select on cogo_test.clock to public;
create or replace function cogo.now() returns timestamptz language sql stable as $$
    select coalesce(frozen_at, statement_timestamp()) + ahead from cogo_test.clock
$$;
";

/// Stops the time where it is.
pub(super) async fn freeze(connect: &PgConnectOptions) -> Result<(), Error> {
    let failed = Error::query("freeze the time");
    let result = async {
        let mut connection = installed(connect).await?;
        connection
            .execute(
                "update cogo_test.clock set frozen_at = statement_timestamp() \
                 where frozen_at is null",
            )
            .await?;
        connection.close().await
    };
    result.await.map_err(failed)
}

/// Puts the time forward.
pub(super) async fn advance(connect: &PgConnectOptions, by: Duration) -> Result<(), Error> {
    let failed = Error::query("put the time forward");
    let result = async {
        let mut connection = installed(connect).await?;
        sqlx::query("update cogo_test.clock set ahead = ahead + make_interval(secs => $1)")
            .bind(by.as_secs_f64())
            .execute(&mut connection)
            .await?;
        connection.close().await
    };
    result.await.map_err(failed)
}

/// A connection of its own, so that a test that has used up its pool can still move the time.
async fn installed(connect: &PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
    let mut connection = connect.connect().await?;
    let installed: bool = sqlx::query_scalar("select to_regclass('cogo_test.clock') is not null")
        .fetch_one(&mut connection)
        .await?;
    if !installed {
        // One simple query is one transaction.
        connection.execute(sqlx::raw_sql(INSTALL)).await?;
    }
    Ok(connection)
}
