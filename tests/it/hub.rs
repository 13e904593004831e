//! The hub: what it answers, and to whom.

mod artifacts;
mod blobs;
mod boundary;
mod circuits;
mod connections;
mod dead_letters;
mod env;
mod events;
mod figures;
mod guard;
mod health;
mod messages;
mod pending;
mod principals;
mod realtime;
mod rest;
mod stream;
mod waiting;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result};
use axum::body::Body;
use axum::http::request::Builder;
use axum::http::{HeaderMap, Request, StatusCode};
use cogo::artifact::Store;
use cogo::bus::{Bus, Claim, ClaimRequest, Feed};
use cogo::db;
use cogo::hub::realtime::Realtime;
use cogo::hub::{self, AdminToken, Options, Policies, Policy, Principals, Readiness, Who};
use cogo::identity::Keys;
use cogo::message::{MessageId, NewMessage, Topic};
use cogo::remote_env::{KeyError, Keyring};
use cogo::shutdown::{Shutdown, Tasks};
use cogo::testing::TestDb;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgPool};
use tower::ServiceExt as _;

const TOKEN: &str = "a-token-for-tests-only";
/// Signs the keys of remote callers.
const SECRET: &str = "a-secret-for-tests-only-of-32-bytes-or-more";
/// How long anything may take before the test gives up; nothing waits for it to pass.
const DEADLINE: Duration = Duration::from_secs(30);

/// A hub without a socket, over a database or over none.
struct TestHub {
    router: axum::Router,
    bus: Bus,
    readiness: Readiness,
    shutdown: Shutdown,
    tasks: Tasks,
    artifacts: tempfile::TempDir,
    db: Option<TestDb>,
    principals: Principals,
    /// What it answers.
    routes: Vec<hub::Route>,
    connections: hub::Connections,
}

/// An answer, read to its end.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.text).with_context(|| format!("not JSON: {self:?}"))
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Checks that this is an error of the one shape, and gives its message.
    fn error(&self, status: u16, code: &str) -> Result<String> {
        anyhow::ensure!(self.status == status, "{status} was expected: {self:?}");
        let json = self.json()?;
        anyhow::ensure!(json["ok"] == false && json["error"] == code, "{code}: {self:?}");
        anyhow::ensure!(json["code"] == code, "{self:?}");
        anyhow::ensure!(json["trace_id"].as_str().is_some_and(|id| id.len() == 36), "{self:?}");
        anyhow::ensure!(self.header("x-content-type-options") == "nosniff", "{self:?}");
        Ok(json["message"].as_str().context("a message")?.to_owned())
    }
}

struct Setup {
    options: Options,
    listen: SocketAddr,
    routes: hub::Routes,
    env_keys: Result<Keyring, KeyError>,
    /// The routes that find out themselves who calls.
    open_routes: fn(Principals) -> hub::Routes,
    /// Without any, the shipped ones and what a test's own routes need.
    policies: Option<Policies>,
    /// Where artifacts are kept; else in a folder.
    store: Option<Store>,
}

impl Default for Setup {
    fn default() -> Self {
        let listen = SocketAddr::from(([127, 0, 0, 1], 8787));
        Self {
            options: Options::default(),
            listen,
            routes: hub::Routes::new(),
            env_keys: Err(KeyError::Missing),
            open_routes: |_| hub::Routes::new(),
            policies: None,
            store: None,
        }
    }
}

/// The shipped policies, and such for the routes that they do not name.
fn with(routes: &hub::Routes, open: &hub::Routes) -> Policies {
    let mut policies = Policies::default();
    let all: Vec<hub::Route> = routes.list().iter().chain(open.list()).copied().collect();
    for route in policies.uncovered(&all) {
        let who = match route.method {
            _ if open.list().contains(&route) => Who::Token,
            "GET" => Who::Reader,
            _ => Who::Admin,
        };
        let verb = serde_json::from_value(json!(route.method)).expect("a method");
        let path = route.path.to_owned();
        policies.routes.insert(0, Policy { methods: vec![verb], path, who });
    }
    policies
}

impl TestHub {
    /// Over a database of its own.
    async fn new() -> Result<Self> {
        Self::with(Setup::default()).await
    }

    async fn with(setup: Setup) -> Result<Self> {
        let db = TestDb::new().await;
        let pool = db::Options::new(db.connect_options()).pool();
        Self::over(pool, Some(db), setup)
    }

    /// Over a database that does not answer.
    fn without_database(setup: Setup) -> Result<Self> {
        let nowhere = PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(1);
        let mut options = db::Options::new(nowhere);
        options.acquire_timeout = Duration::from_millis(50);
        Self::over(options.pool(), None, setup)
    }

    fn over(pool: PgPool, db: Option<TestDb>, setup: Setup) -> Result<Self> {
        let (shutdown, tasks) = (Shutdown::new(), Tasks::new());
        // Apart from the bus's, as it is in the program.
        let callers = pool.options().clone().max_connections(setup.options.rest.max_connections);
        let callers = callers.connect_lazy_with((*pool.connect_options()).clone());
        let bus = Bus::new(pool);
        let readiness = Readiness::new();
        metrics_handle(); // before anything is measured
        let artifacts = tempfile::tempdir()?;
        setup.options.validate()?;
        let limits = setup.options.artifact_limits();
        let store = setup.store.unwrap_or_else(|| Store::folder(artifacts.path(), limits));
        let feed = Feed::start(bus.clone(), &tasks, &shutdown);
        let keys = Keys::new(&[SECRET])?;
        let realtime = Realtime::start(
            bus.clone(),
            feed.clone(),
            keys.clone(),
            callers.clone(),
            setup.options.realtime.clone(),
            &tasks,
            &shutdown,
        );
        let state = hub::State {
            commit: Some("c0ffee1"),
            bus: bus.clone(),
            feed,
            readiness: readiness.clone(),
            options: setup.options,
            policies: hub::Policies::default(),
            token: AdminToken::new(TOKEN)?,
            keys,
            env_keys: setup.env_keys,
            callers,
            realtime,
            metrics: Arc::new(|| metrics_handle().render()),
            listen: setup.listen,
            artifacts_dir: artifacts.path().to_owned(),
            artifacts: store,
        };
        let principals = state.principals();
        let open = (setup.open_routes)(principals.clone());
        let policies = setup.policies.unwrap_or_else(|| with(&setup.routes, &open));
        let state = hub::State { policies, ..state };
        let connections = state.connections();
        let (router, routes) = hub::assemble(state, setup.routes, open);
        Ok(Self {
            routes,
            connections,
            router,
            bus,
            readiness,
            shutdown,
            tasks,
            artifacts,
            db,
            principals,
        })
    }

    async fn send(&self, request: Request<Body>) -> Result<Answer> {
        let response = self.router.clone().oneshot(request).await?;
        let (head, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Ok(Answer { status: head.status, headers: head.headers, text })
    }

    async fn get(&self, path: &str) -> Result<Answer> {
        self.send(request("GET", path).body(Body::empty())?).await
    }

    /// With the token and a JSON body.
    async fn post(&self, path: &str, body: impl Into<Body>) -> Result<Answer> {
        let request = request("POST", path)
            .header("x-admin-token", TOKEN)
            .header("content-type", "application/json");
        self.send(request.body(body.into())?).await
    }

    async fn publish(&self) -> Result<MessageId> {
        let message = NewMessage::new(&topic()?, "echo.say", json!({"text": "hello"}));
        Ok(self.bus.publish(message).await?.id)
    }

    async fn claim(&self, max: usize) -> Result<Vec<Claim>> {
        let request = ClaimRequest {
            worker: "a-worker".to_owned(),
            tenant: "default".to_owned(),
            topics: vec![topic()?.to_string()],
            max,
            lease: Duration::from_secs(60),
        };
        Ok(self.bus.claim(&request).await?)
    }

    /// How many rows there are in the table and in the log, but for what tells what admins asked for.
    async fn written(&self) -> Result<(i64, i64)> {
        let sql = "select (select count(*) from agent_messages), (select count(*) from bus_events \
            where event_type <> 'admin_action')";
        Ok(sqlx::query_as(sql).fetch_one(self.bus.pool().expect("a database")).await?)
    }
}

/// The process' metrics: one recorder for all tests that share it.
fn metrics_handle() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).expect("no other recorder in this process");
        handle
    })
}

fn topic() -> Result<Topic> {
    Ok(Topic::new("hub-test", "here")?)
}

fn request(method: &str, path: &str) -> Builder {
    Request::builder().method(method).uri(path).header("host", "localhost:8787")
}
