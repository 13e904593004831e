//! The pool, with an end to waiting: whoever asks the database is told in time that it does not answer.
//!
//! A connection can die without a word, as when a router on the way loses its table: what was asked is never
//! answered, and no error comes. Whoever waited for it would wait for ever, and so would whoever waits for him.

use std::io;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _, TryFutureExt as _};
use futures_util::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgPool, PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{Describe, Either, Error, Execute, Executor, Postgres, SqlStr};

/// How long an answer is waited for. A call takes milliseconds, on a busy database some hundred; four tries
/// of a request must end before the hub's own limit of thirty seconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// The same for what may take its time: letting thousands of messages go, moving rows to their partition.
const CHORE_WITHIN: Duration = Duration::from_secs(60);

/// The database, asked over a pool.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patient<'a> {
    pool: &'a PgPool,
    within: Duration,
}

impl<'a> Patient<'a> {
    /// For calls that somebody waits for.
    pub(crate) fn new(pool: &'a PgPool) -> Self {
        Self { pool, within: ANSWER_WITHIN }
    }

    /// For calls that nobody waits for.
    pub(crate) fn for_chores(pool: &'a PgPool) -> Self {
        Self { pool, within: CHORE_WITHIN }
    }
}

/// A connection on which an answer is awaited. If it does not come, or nobody waits for it any more, the
/// connection is closed: the pool would ask it for a sign of life first, and wait for that in turn.
struct Asked {
    connection: PoolConnection<Postgres>,
    answered: bool,
}

impl Drop for Asked {
    fn drop(&mut self) {
        if !self.answered {
            self.connection.close_on_drop();
        }
    }
}

/// Asks on a connection of `$patient`'s pool, and gives the answer if it comes in time.
macro_rules! ask {
    ($patient:expr, |$connection:ident| $question:expr) => {{
        let Patient { pool, within } = $patient;
        let pool = pool.clone();
        async move {
            let mut asked = Asked { connection: pool.acquire().await?, answered: false };
            let $connection = &mut *asked.connection;
            let answer = tokio::time::timeout(within, $question).await;
            asked.answered = answer.is_ok();
            answer.unwrap_or_else(|_| Err(Error::Io(io::ErrorKind::TimedOut.into())))
        }
    }};
}

impl<'p> Executor<'p> for Patient<'_> {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let all = ask!(self, |connection| connection.fetch_many(query).try_collect::<Vec<_>>());
        all.map_ok(|all| stream::iter(all.into_iter().map(Ok))).try_flatten_stream().boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        ask!(self, |connection| connection.fetch_optional(query)).boxed()
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, Error>>
    where
        'p: 'e,
    {
        ask!(self, |connection| connection.prepare_with(sql, parameters)).boxed()
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>, Error>>
    where
        'p: 'e,
    {
        ask!(self, |connection| connection.describe(sql)).boxed()
    }
}

#[cfg(all(test, feature = "test-util"))]
mod tests {
    use sqlx::postgres::PgPoolOptions;

    use super::*;
    use crate::testing::TestDb;

    #[tokio::test]
    async fn what_is_never_answered_gives_its_connection_back() {
        let db = TestDb::new().await;
        let pool = PgPoolOptions::new().max_connections(1);
        let pool = pool.connect_lazy_with(db.connect_options());
        let soon = Patient { pool: &pool, within: Duration::from_millis(50) };
        let asleep = sqlx::query("select pg_sleep(3600)").execute(soon).await;
        assert!(matches!(&asleep, Err(Error::Io(e)) if e.kind() == io::ErrorKind::TimedOut));
        // The one that nobody waits for any more, too.
        let later = Patient { pool: &pool, within: Duration::from_secs(3600) };
        let asking = sqlx::query("select pg_sleep(3600)").execute(later);
        assert!(tokio::time::timeout(Duration::from_millis(50), asking).await.is_err());
        let answer: i32 = sqlx::query_scalar("select 1").fetch_one(later).await.expect("answered");
        assert_eq!(answer, 1);
        let all: Vec<i32> = sqlx::query_scalar("select generate_series(1, 3)")
            .fetch_all(later)
            .await
            .expect("answered");
        assert_eq!(all, [1, 2, 3]);
    }
}
