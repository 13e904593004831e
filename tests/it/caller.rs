//! Calls as the hub and PostgREST make them: under a role, with the claims of a token.

use cogo::testing::TestDb;
use serde_json::{Value, json};

/// Who calls.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    role: String,
    claims: Option<String>,
}

/// How a call is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) state: String,
    pub(crate) message: String,
}

impl Caller {
    /// A role, and the text of its claims, if there are any.
    pub(crate) fn new(role: &str, claims: Option<&str>) -> Self {
        Self { role: role.to_owned(), claims: claims.map(str::to_owned) }
    }

    /// A worker's token.
    pub(crate) fn token(tenant: &str, worker: &str, topics: &[&str], send: &[&str]) -> Self {
        let claims = json!({"role": "authenticated", "tenant": tenant, "worker": worker, "topics": topics,
            "send": send});
        Self::new("authenticated", Some(&claims.to_string()))
    }

    /// What a query answers, an object a row; in a transaction of its own, which is undone if it is refused.
    pub(crate) async fn call(&self, db: &TestDb, sql: &str) -> Result<Vec<Value>, Refused> {
        let mut transaction = db.pool().begin().await.expect("begun");
        sqlx::query("select set_config('role', $1, true)")
            .bind(&self.role)
            .execute(&mut *transaction)
            .await
            .expect("the role is there");
        if let Some(claims) = &self.claims {
            sqlx::query("select set_config('request.jwt.claims', $1, true)")
                .bind(claims)
                .execute(&mut *transaction)
                .await
                .expect("set");
        }
        let sql = format!("select to_jsonb(x) from ({sql}) x");
        let result =
            sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_all(&mut *transaction).await;
        match result {
            Ok(rows) => {
                transaction.commit().await.expect("committed");
                Ok(rows)
            }
            Err(error) => {
                let error = error.as_database_error().expect("the database's own");
                let state = error.code().expect("a state").into_owned();
                Err(Refused { state, message: error.message().to_owned() })
            }
        }
    }

    /// What a query that is allowed answers.
    #[track_caller]
    pub(crate) fn may(&self, db: &TestDb, sql: &str) -> impl Future<Output = Vec<Value>> {
        let (who, at) = (self.clone(), std::panic::Location::caller());
        async move {
            who.call(db, sql)
                .await
                .unwrap_or_else(|refused| panic!("{at}: {who:?} {sql}: {refused:?}"))
        }
    }

    /// How a query is refused that must be.
    #[track_caller]
    pub(crate) fn may_not(&self, db: &TestDb, sql: &str) -> impl Future<Output = Refused> {
        let (who, at) = (self.clone(), std::panic::Location::caller());
        async move {
            match who.call(db, sql).await {
                Err(refused) => refused,
                Ok(rows) => panic!("{at}: {who:?} may {sql}: {rows:?}"),
            }
        }
    }
}

/// All that the bus holds, to see that nothing has changed.
pub(crate) async fn everything(db: &TestDb) -> Vec<Value> {
    let sql = "select 1 as t, to_jsonb(a) as r from agent_messages a
        union all select 2, to_jsonb(e) from bus_events e
        union all select 3, to_jsonb(w) from workers w
        union all select 4, to_jsonb(c) from circuits c
        order by 1, 2";
    crate::fixtures::rows(db, sql).await
}
