//! What admins did is in the log.

use anyhow::{Context, Result};
use axum::body::Body;
use cogo::hub::{Options, Policies, Routes};
use cogo::identity::{Claims, Keys, Role};
use serde_json::{Value, json};

use crate::hub::guard::{from, path_of};
use crate::hub::{DEADLINE, SECRET, Setup, TOKEN, TestHub, request};

/// Stands in every body and query here, and must stand in no event.
const PRIVATE: &str = "a-private-thing";

async fn actions(hub: &TestHub) -> Result<Vec<Value>> {
    let sql = "select payload::text from bus_events where event_type = 'admin_action' order by seq";
    let texts: Vec<String> =
        sqlx::query_scalar(sql).fetch_all(hub.bus.pool().context("a pool")?).await?;
    texts.iter().map(|text| Ok(serde_json::from_str(text)?)).collect()
}

fn is_protocol(path: &str) -> bool {
    ["/rest/v1", "/realtime/v1", "/mcp"].iter().any(|root| path.starts_with(root))
}

fn routes() -> Routes {
    Routes::new()
        .put("/api/role/{name}", || async { "put" })
        .patch("/api/role/panics", panics)
        .delete("/api/role/forgotten", || async { "deleted" })
}

async fn panics() {
    panic!("on purpose");
}

#[tokio::test]
async fn each_action_of_an_admin_leaves_one_event_without_what_was_sent() -> Result<()> {
    let mut policies = Policies::default();
    let own = json!([
        {"methods": ["PUT"], "path": "/api/role/{name}", "who": "admin"},
        {"methods": ["PATCH"], "path": "/api/role/panics", "who": "admin"},
    ]);
    policies.routes.extend(serde_json::from_value::<Vec<_>>(own)?);
    let setup = Setup { routes: routes(), policies: Some(policies), ..Setup::default() };
    let hub = TestHub::with(setup).await?;
    let mut wanted = Vec::new();
    for route in hub.routes.clone() {
        if route.method == "GET" || is_protocol(route.path) {
            continue;
        }
        let path = path_of(route.path);
        let request = from("10.0.0.9", route.method, &format!("{path}?q={PRIVATE}"))?
            .header("x-admin-token", TOKEN)
            .header("content-type", "application/json")
            .body(Body::from(json!({"key": PRIVATE, "ids": []}).to_string()))?;
        let answer = hub.send(request).await?;
        // Before anything else happens: whoever has the answer finds the event.
        let status = answer.status.as_u16();
        wanted.push(json!({
            "method": route.method, "route": route.path, "path": path, "status": status,
            "from": "10.0.0.9", "who": "admin",
        }));
        let found = actions(&hub).await?;
        assert_eq!(found.len(), wanted.len(), "{route}: one event for each");
        assert_eq!(found.last(), wanted.last(), "{route}");
    }
    let statuses: Vec<&Value> = wanted.iter().map(|action| &action["status"]).collect();
    for status in [200, 400, 403, 500] {
        assert!(statuses.contains(&&json!(status)), "{status}: {statuses:?}");
    }
    let log: String = sqlx::query_scalar("select string_agg(e::text, ' ') from bus_events e")
        .fetch_one(hub.bus.pool().context("a pool")?)
        .await?;
    assert!(!log.contains(PRIVATE) && !log.contains(TOKEN), "{log}");
    Ok(())
}

#[tokio::test]
async fn reads_and_wrong_credentials_leave_none() -> Result<()> {
    let hub = TestHub::new().await?;
    hub.bare(request("GET", "/api/status").header("x-admin-token", TOKEN)).await?;
    for token in [None, Some("a-wrong-token-of-somebody")] {
        let mut request = request("POST", "/api/dead-letters/drop");
        if let Some(token) = token {
            request = request.header("x-admin-token", token);
        }
        hub.bare(request).await?.error(401, "unauthorized")?;
    }
    hub.bare(request("POST", "/nowhere").header("x-admin-token", TOKEN))
        .await?
        .error(404, "not_found")?;
    hub.bare(request("POST", "/rest/v1/x").header("x-admin-token", TOKEN)).await?;
    assert_eq!(actions(&hub).await?, Vec::<Value>::new());
    let shown = hub.get("/metrics").await?.text;
    assert!(shown.contains(r#"cogo_hub_refused_total{why="credentials"}"#), "{shown}");
    Ok(())
}

#[tokio::test]
async fn a_key_that_acts_by_its_role_is_told_as_such() -> Result<()> {
    let mut policies = Policies::default();
    let own = json!([{"methods": ["PUT"], "path": "/api/role/{name}", "who": "role:service_role"}]);
    policies.routes.extend(serde_json::from_value::<Vec<_>>(own)?);
    let options = Options { require_admin_for_non_get: false, ..Options::default() };
    let setup = Setup { routes: routes(), policies: Some(policies), options, ..Setup::default() };
    let hub = TestHub::with(setup).await?;
    let claims = Claims::new(Role::ServiceRole, cogo::clock::utc_now().timestamp() + 3600);
    let key = format!("Bearer {}", Keys::new(&[SECRET])?.mint(&claims));
    let answer = hub.bare(request("PUT", "/api/role/x").header("authorization", key)).await?;
    assert_eq!(answer.status, 200);
    let actions = actions(&hub).await?;
    assert_eq!((actions.len(), &actions[0]["who"]), (1, &json!("role:service_role")));
    Ok(())
}

#[tokio::test]
async fn an_action_whose_sender_went_away_is_in_the_log_as_well() -> Result<()> {
    let (entered, mut has_entered) = tokio::sync::mpsc::channel::<()>(1);
    let stuck = move || {
        let entered = entered.clone();
        async move {
            let _ = entered.send(()).await;
            std::future::pending::<()>().await;
        }
    };
    let routes = Routes::new().post("/api/role/stuck", stuck);
    let hub = TestHub::with(Setup { routes, ..Setup::default() }).await?;
    tokio::select! {
        answer = hub.post("/api/role/stuck", "{}") => panic!("{answer:?}"),
        _ = has_entered.recv() => {}
    }
    hub.shutdown.cancel();
    assert!(hub.tasks.join(DEADLINE).await, "tasks are left");
    let actions = actions(&hub).await?;
    assert_eq!((actions.len(), &actions[0]["status"]), (1, &Value::Null), "{actions:?}");
    Ok(())
}

#[tokio::test]
async fn an_action_goes_on_where_its_event_cannot_be_appended() -> Result<()> {
    let hub = TestHub::without_database(Setup { routes: routes(), ..Setup::default() })?;
    let answer = hub.bare(request("PUT", "/api/role/x").header("x-admin-token", TOKEN)).await?;
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, "put"));
    Ok(())
}

#[tokio::test]
async fn no_worker_and_no_key_writes_what_only_hubs_may() -> Result<()> {
    let hub = TestHub::new().await?;
    let pool = hub.bus.pool().context("a pool")?;
    for event_type in ["admin_action", "env_set", "env_unset", "tool_pinned", "tool_unpinned"] {
        let forged = serde_json::json!([{"event_type": event_type}]).to_string();
        for (role, may) in [("cogo_operator", true), ("cogo_bus", false), ("service_role", false)] {
            let mut transaction = pool.begin().await?;
            sqlx::raw_sql(sqlx::AssertSqlSafe(format!("set local role {role}")))
                .execute(&mut *transaction)
                .await?;
            let appended =
                sqlx::query_scalar::<_, i32>("select public.bus_append_event($1::jsonb)")
                    .bind(&forged)
                    .fetch_one(&mut *transaction)
                    .await;
            match appended {
                Ok(_) => assert!(may, "{role} {event_type}"),
                Err(error) => {
                    let code = error
                        .as_database_error()
                        .and_then(|error| error.code().map(|code| code.into_owned()));
                    let told = (may, code.as_deref());
                    assert_eq!(told, (false, Some("CG403")), "{role} {event_type}: {error}");
                }
            }
        }
    }
    Ok(())
}
