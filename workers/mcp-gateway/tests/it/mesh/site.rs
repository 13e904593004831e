//! A hub in one process, and machines that join it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Request as HttpRequest};
use cogo::artifact::Store;
use cogo::bus::{Bus, Feed};
use cogo::clock::utc_now;
use cogo::hub::realtime::Realtime;
use cogo::hub::{self, AdminToken, Options, Principal, Principals, Readiness};
use cogo::identity::Keys;
use cogo::live::Live;
use cogo::message::MessageId;
use cogo::retry::Policies;
use cogo::shutdown::{Shutdown, Tasks};
use cogo::testing::TestDb;
use cogo::worker::Context;
use cogo_worker_mcp_gateway::Gateway;
use cogo_worker_mcp_gateway::api;
use cogo_worker_mcp_gateway::catalogue::{Catalogue, Snapshot};
use cogo_worker_mcp_gateway::config::{self, Config, Toolset};
use cogo_worker_mcp_gateway::demo::Demo;
use cogo_worker_mcp_gateway::endpoint::{Endpoint, Limits};
use cogo_worker_mcp_gateway::mesh::{Mesh, Outcome, Request, Started, Task};
use cogo_worker_mcp_gateway::platform;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tower::ServiceExt as _;

use crate::support::{PATIENCE, object};

pub(crate) const TOKEN: &str = "a-token-for-tests-only";
const SECRET: &str = "a-secret-for-tests-only-of-32-bytes-or-more";

pub(crate) struct Site {
    pub(crate) mesh: Mesh,
    pub(crate) bus: Bus,
    pub(crate) db: TestDb,
    pub(crate) shutdown: Shutdown,
    pub(crate) store: Store,
    principals: Principals,
    keys: Keys,
    router: axum::Router,
    /// What it answers.
    pub(crate) routes: Vec<hub::Route>,
    tasks: Tasks,
    _artifacts: tempfile::TempDir,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) json: Value,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("ASCII"))
    }
}

impl Site {
    pub(crate) async fn new() -> Self {
        Self::with(config::Mesh::default()).await
    }

    pub(crate) async fn with(config: config::Mesh) -> Self {
        Self::with_options(config, Options::default()).await
    }

    pub(crate) async fn with_options(config: config::Mesh, options: Options) -> Self {
        let db = TestDb::new().await;
        let (shutdown, tasks) = (Shutdown::new(), Tasks::new());
        let bus = Bus::new(db.pool().clone());
        let feed = Feed::start(bus.clone(), &tasks, &shutdown);
        let keys = Keys::new(&[SECRET]).expect("a secret");
        let realtime = Realtime::start(
            bus.clone(),
            feed.clone(),
            keys.clone(),
            db.pool().clone(),
            options.realtime.clone(),
            &tasks,
            &shutdown,
        );
        hub::maintenance::start(bus.clone(), options.retention.clone(), &tasks, &shutdown);
        let artifacts = tempfile::tempdir().expect("a folder");
        let store = Store::folder(artifacts.path(), options.artifact_limits());
        let state = hub::State {
            commit: Some("c0ffee1"),
            bus: bus.clone(),
            feed: feed.clone(),
            readiness: Readiness::new(),
            policies: hub::Policies::default(),
            options: options.clone(),
            token: AdminToken::new(TOKEN).expect("a token"),
            keys: keys.clone(),
            env_keys: Err(cogo::remote_env::KeyError::Missing),
            callers: db.pool().clone(),
            realtime,
            metrics: Arc::new(String::new),
            listen: SocketAddr::from(([127, 0, 0, 1], 8787)),
            artifacts_dir: artifacts.path().to_owned(),
            artifacts: store,
        };
        let config = Live::from(config);
        let live = Live::from(Policies::default());
        let catalogue =
            Catalogue::start(bus.clone(), feed.clone(), config.clone(), &tasks, &shutdown);
        let mesh = Mesh::new(catalogue, feed, live.clone(), config);
        let principals = state.principals();
        let hub_only = Gateway::start(Config::default(), None, &shutdown);
        let routes = hub_only
            .routes(bus.clone(), live, Some(mesh.catalogue().clone()))
            .merge(api::call_routes(mesh.clone(), principals.clone(), &options))
            .merge(api::catalogue_routes(mesh.catalogue().clone(), principals.clone()));
        let limits = Limits::new(&options);
        let (builtin, who) = (platform::Deps::default(), principals.clone());
        let store = Store::folder(artifacts.path(), Default::default());
        let endpoint =
            Endpoint::new(mesh.clone(), builtin, store.clone(), who, limits, &tasks, &shutdown);
        let (router, routes) = hub::assemble(state, routes, endpoint.routes());
        Self {
            mesh,
            bus,
            db,
            shutdown,
            store,
            principals,
            keys,
            router,
            routes,
            tasks,
            _artifacts: artifacts,
        }
    }

    /// The holder of the admin token.
    pub(crate) fn admin(&self) -> Principal {
        self.principals.of_token(TOKEN).expect("the admin")
    }

    /// The holder of the admin token, who acts for another tenant.
    pub(crate) fn admin_of(&self, tenant: &'static str) -> Principal {
        let mut headers = HeaderMap::new();
        headers.insert("x-admin-token", HeaderValue::from_static(TOKEN));
        headers.insert("x-cogo-tenant", HeaderValue::from_static(tenant));
        self.principals.of(&headers).expect("the admin")
    }

    /// The holder of a key of the default tenant that may send to these topics.
    pub(crate) fn sender(&self, send: &[&str]) -> Principal {
        self.principals.of_token(&self.key(send, 3600)).expect("a key")
    }

    /// A key of the default tenant that may send to these topics, good for some seconds.
    pub(crate) fn key(&self, send: &[&str], seconds: i64) -> String {
        let claims = json!({"role": "authenticated", "tenant": "default", "send": send,
            "exp": utc_now().timestamp() + seconds});
        self.keys.mint(&serde_json::from_value(claims).expect("claims"))
    }

    /// The holder of a key with these claims, for an hour.
    pub(crate) fn holder(&self, mut claims: Value) -> Principal {
        claims["exp"] = json!(utc_now().timestamp() + 3600);
        let key = self.keys.mint(&serde_json::from_value(claims).expect("claims"));
        self.principals.of_token(&key).expect("a key")
    }

    /// Serves over TCP as well; the address.
    pub(crate) async fn listen(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (router, shutdown) = (self.router.clone(), self.shutdown.clone());
        self.tasks.spawn(async move { hub::serve(listener, router, &shutdown).await });
        address
    }

    /// A machine with these servers joins, and what it offers is waited for.
    pub(crate) async fn machine(&self, toolsets: &[(&str, &str)]) -> Machine {
        let machine = Machine::start(&self.db, toolsets).await;
        for (toolset, _) in toolsets {
            self.offered(toolset).await;
        }
        machine
    }

    /// A machine with the demo server joins, under the name `demo`.
    pub(crate) async fn demo(&self) -> Machine {
        let machine = Machine::start(&self.db, &[]).await;
        self.offered("demo").await;
        machine
    }

    /// Waits until something of `toolset` is offered by a machine that is online.
    pub(crate) async fn offered(&self, toolset: &str) {
        let mut changed = self.mesh.catalogue().changed("default");
        let wait = async {
            loop {
                changed.mark_unchanged();
                let snapshot = self.mesh.catalogue().snapshot("default").await.expect("a snapshot");
                if snapshot.toolset(toolset).any(|offer| offer.workers > 0) {
                    return;
                }
                let _poll = tokio::time::timeout(Duration::from_secs(1), changed.changed()).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("the toolset is offered");
    }

    /// Waits until nothing of `toolset` is offered any more.
    pub(crate) async fn gone(&self, toolset: &str) {
        self.until_offers(|snapshot| snapshot.toolset(toolset).next().is_none()).await;
    }

    /// Waits until what is offered fits.
    pub(crate) async fn until_offers(&self, fits: impl Fn(&Snapshot) -> bool) {
        let wait = async {
            loop {
                let snapshot = self.mesh.catalogue().snapshot("default").await.expect("a snapshot");
                if fits(&snapshot) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("it comes to that");
    }

    /// The end of a call that the admin made.
    pub(crate) async fn call(&self, toolset: &str, tool: &str, arguments: Value) -> Outcome {
        let started = self.start(toolset, tool, arguments).await;
        self.end(&started).await
    }

    pub(crate) async fn start(&self, toolset: &str, tool: &str, arguments: Value) -> Started {
        let request = request(toolset, tool, arguments);
        self.mesh.start(&self.admin(), request).await.expect("it is taken")
    }

    pub(crate) async fn end(&self, started: &Started) -> Outcome {
        self.mesh.wait(started, PATIENCE, None).await.expect("the message is there")
    }

    /// The task once it fits.
    pub(crate) async fn task(
        &self,
        who: &Principal,
        id: MessageId,
        fits: impl Fn(&Task) -> bool,
    ) -> Task {
        let wait = async {
            loop {
                let task = self.mesh.task(who, id).await.expect("a task");
                if fits(&task) {
                    return task;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("the task gets there")
    }

    /// A call over HTTP, with the admin token.
    pub(crate) async fn post(
        &self,
        path: &str,
        body: Value,
        headers: &[(&'static str, &str)],
    ) -> Answer {
        let mut all = vec![("x-admin-token", TOKEN), ("content-type", "application/json")];
        all.extend_from_slice(headers);
        self.send("POST", path, &body.to_string(), &all).await
    }

    /// What is read over HTTP, with the admin token.
    pub(crate) async fn get(&self, path: &str, headers: &[(&'static str, &str)]) -> Answer {
        let mut all = vec![("x-admin-token", TOKEN)];
        all.extend_from_slice(headers);
        self.send("GET", path, "", &all).await
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        body: &str,
        headers: &[(&'static str, &str)],
    ) -> Answer {
        let mut request = HttpRequest::builder().method(method).uri(path);
        request = request.header("host", "localhost:8787");
        for (name, value) in headers {
            request = request.header(*name, HeaderValue::from_str(value).expect("a header"));
        }
        let request = request.body(Body::from(body.to_owned())).expect("a request");
        let response = self.router.clone().oneshot(request).await.expect("an answer");
        let (head, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.expect("a body");
        let json = serde_json::from_slice(&bytes).unwrap_or_default();
        Answer { status: head.status.as_u16(), headers: head.headers, json }
    }

    /// How many messages wait, run or are dead.
    pub(crate) async fn messages(&self) -> i64 {
        self.bus.stats().await.expect("the database").iter().map(|depth| depth.messages).sum()
    }

    /// That the log folds to the table.
    pub(crate) async fn verify(&self) {
        let options = cogo::bus::replay::Options::default();
        let report = self.bus.replay_verify(&options, |_| {}).await.expect("the database");
        assert!(report.is_exact(), "{report:?}");
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.shutdown.cancel();
        let _tasks = &self.tasks;
    }
}

pub(crate) fn request(toolset: &str, tool: &str, arguments: Value) -> Request {
    Request {
        toolset: toolset.to_owned(),
        tool: tool.to_owned(),
        arguments: Some(object(arguments)),
        ..Request::default()
    }
}

/// A gateway at work, as on a machine of its own.
pub(crate) struct Machine {
    shutdown: Shutdown,
    gateway: Gateway,
    tasks: Tasks,
    _demo: Option<Demo>,
    _dir: tempfile::TempDir,
}

impl Machine {
    /// With these servers, or with the demo server if there are none.
    pub(crate) async fn start(db: &TestDb, toolsets: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let (shutdown, tasks) = (Shutdown::new(), Tasks::new());
        let demo = match toolsets {
            [] => Some(Demo::start(shutdown.clone()).await.expect("a free port")),
            _ => None,
        };
        let named = toolsets.iter().map(|(name, url)| ((*name).to_owned(), Toolset::at(*url)));
        let config = Config { toolsets: named.collect(), ..Config::default() };
        let gateway = Gateway::start(config, demo.as_ref().map(|demo| demo.url.clone()), &shutdown);
        let context = Context {
            bus: Bus::new(db.pool().clone()),
            worker_id: format!("machine-{}", MessageId::new().0.simple()),
            tenant: "default".to_owned(),
            concurrency: 8,
            prefetch: cogo::worker::Prefetch::Auto,
            lease: Duration::from_secs(10),
            drain: Duration::from_secs(1),
            retry: Live::default(),
            breaker: Live::default(),
            artifacts: Store::folder(dir.path(), cogo::artifact::Limits::default()),
            config_dir: dir.path().to_owned(),
            artifacts_dir: dir.path().to_owned(),
            reread: Live::default(),
            shutdown: shutdown.clone(),
            ready: watch::Sender::new(false),
        };
        let working = gateway.clone();
        tasks.spawn(
            async move { working.work(&context).await.expect("it works until it is stopped") },
        );
        Self { shutdown, gateway, tasks, _demo: demo, _dir: dir }
    }

    /// Leaves as machines do that are switched off in order.
    pub(crate) async fn leave(self) {
        self.shutdown.drain();
        self.tasks.join(Duration::from_secs(5)).await;
        self.shutdown.cancel();
        self.gateway.shutdown().await;
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}
