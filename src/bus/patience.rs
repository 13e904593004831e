//! The pool, with an end to waiting: whoever asks the database is told in time that it does not answer.
//!
//! A connection can die without a word, as when a router on the way loses its table: what was asked is never
//! answered, and no error comes. Whoever waited for it would wait for ever, and so would whoever waits for him.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _, TryFutureExt as _};
use futures_util::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use sqlx::postgres::{PgConnection, PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{Describe, Either, Error, Execute, Executor, Postgres, SqlStr};

use crate::bus::at_hand::{AtHand, Kept};

/// How long an answer is waited for. A call takes milliseconds, on a busy database some hundred; four tries
/// of a request must end before the hub's own limit of thirty seconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// The same for what may take its time: letting thousands of messages go, moving rows to their partition.
const CHORE_WITHIN: Duration = Duration::from_secs(60);

/// The database, asked over a pool.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patient<'a> {
    connections: &'a Arc<AtHand>,
    within: Duration,
}

impl<'a> Patient<'a> {
    /// For calls that somebody waits for.
    pub(crate) fn new(connections: &'a Arc<AtHand>) -> Self {
        Self { connections, within: ANSWER_WITHIN }
    }

    /// For calls that nobody waits for.
    pub(crate) fn for_chores(connections: &'a Arc<AtHand>) -> Self {
        Self { connections, within: CHORE_WITHIN }
    }
}

/// A connection on which an answer is awaited. If it does not come, or nobody waits for it any more, the
/// connection is closed: the pool would ask it for a sign of life first, and wait for that in turn.
struct Asked {
    connections: Arc<AtHand>,
    connection: Option<Kept>,
    end: End,
}

/// How asking ended.
enum End {
    Answered,
    /// The connection may be of no more use: the pool looks at it.
    Doubtful,
    /// Or with an answer after which the connection is of no use for certain.
    Unanswered,
}

impl Drop for Asked {
    fn drop(&mut self) {
        let Some(mut kept) = self.connection.take() else { return };
        match self.end {
            End::Answered => self.connections.keep(kept),
            End::Doubtful => {}
            End::Unanswered => kept.connection.close_on_drop(),
        }
    }
}

impl Asked {
    async fn on(connections: Arc<AtHand>) -> sqlx::Result<Self> {
        let connection = Some(connections.take().await?);
        Ok(Self { connections, connection, end: End::Unanswered })
    }

    fn connection(&mut self) -> sqlx::Result<&mut PgConnection> {
        // It is there until the drop.
        self.connection.as_mut().map(|kept| &mut *kept.connection).ok_or(Error::PoolClosed)
    }
}

/// Asks on a connection of `$patient`'s pool, and gives the answer if it comes in time.
macro_rules! ask {
    ($patient:expr, |$connection:ident| $question:expr) => {{
        let Patient { connections, within } = $patient;
        let connections = Arc::clone(connections);
        async move {
            let mut asked = Asked::on(connections).await?;
            let $connection = asked.connection()?;
            let answer = tokio::time::timeout(within, $question).await;
            asked.end = match &answer {
                Ok(Ok(_)) => End::Answered,
                Ok(Err(error)) if is_outdated(error) => End::Unanswered,
                Ok(Err(error)) if !ends_connection(error) => End::Answered,
                Ok(Err(_)) => End::Doubtful,
                Err(_) => End::Unanswered,
            };
            answer.unwrap_or_else(|_| Err(Error::Io(io::ErrorKind::TimedOut.into())))
        }
    }};
}

/// Whether the connection's statements are those of a schema that has changed (0A000, "cached plan must not change result
/// type"): it would refuse them for as long as it lives.
fn is_outdated(error: &Error) -> bool {
    error.as_database_error().is_some_and(|error| error.code().is_some_and(|code| code == "0A000"))
}

/// Whether the connection may be of no more use after this: all that is not the answer to a statement, and what a server says
/// that goes down (class 57P) or has lost the way (class 08), or a pooler that has lost its server (class XX).
fn ends_connection(error: &Error) -> bool {
    let Some(error) = error.as_database_error() else { return true };
    error.code().is_none_or(|code| ["57P", "08", "XX"].iter().any(|class| code.starts_with(class)))
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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// A server that lets everybody in and then says nothing, ever; gives the connections made to it.
    async fn silent(listener: TcpListener) -> Vec<TcpStream> {
        let mut made = Vec::new();
        while made.len() < 3 {
            let (mut socket, _) = listener.accept().await.expect("a connection");
            let length = socket.read_u32().await.expect("a startup message");
            let mut startup = vec![0; length as usize - 4];
            socket.read_exact(&mut startup).await.expect("all of it");
            // AuthenticationOk and ReadyForQuery.
            socket.write_all(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I").await.expect("it listens");
            made.push(socket);
        }
        made
    }

    #[tokio::test]
    async fn what_is_never_answered_gives_its_place_in_the_pool_back() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let connect = PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(listener.local_addr().expect("an address").port())
            .username("nobody")
            .ssl_mode(PgSslMode::Disable);
        // One place: who does not give it back keeps the next one out.
        let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(connect);
        let asking = async {
            let connections = &AtHand::of(&pool);
            let soon = Patient { connections, within: Duration::from_millis(20) };
            let later = Patient { connections, within: Duration::from_secs(3600) };
            let refused = |asked: Result<_, Error>| match asked {
                Err(Error::Io(error)) => assert_eq!(error.kind(), io::ErrorKind::TimedOut),
                other => panic!("{other:?}"),
            };
            refused(sqlx::query("select 1").execute(soon).await);
            // One that nobody waits for any more.
            let given_up = sqlx::query("select 1").execute(later);
            assert!(tokio::time::timeout(Duration::from_millis(20), given_up).await.is_err());
            refused(sqlx::query("select 1").execute(soon).await);
        };
        let (made, ()) = tokio::join!(silent(listener), asking);
        assert_eq!(made.len(), 3, "each asked on a connection of its own");
    }
}
