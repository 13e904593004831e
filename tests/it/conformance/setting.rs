//! A bus over one of the ways, with the database behind it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use cogo::artifact::Store;
use cogo::bus::rest::{self, Key};
use cogo::bus::{Bus, Feed};
use cogo::clock::utc_now;
use cogo::db;
use cogo::hub::realtime::Realtime;
use cogo::hub::{self, AdminToken, Readiness};
use cogo::identity::{Claims, Keys, Pattern, Role};
use cogo::net;
use cogo::shutdown::{Shutdown, Tasks};
use cogo::testing::TestDb;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};
use tokio::net::TcpListener;

use super::proxy::{Proxy, To};

const SECRET: &str = "a secret of this test alone and long enough";

/// How the bus is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// As the database's owner.
    Postgres,
    /// With a key that may do everything.
    Service,
    /// With the key of worker `w` of tenant `default`.
    Token,
}

pub(crate) struct Setting {
    pub(crate) way: Way,
    /// What the test does.
    pub(crate) bus: Bus,
    /// What stands beside it: an operator with the database.
    pub(crate) admin: Bus,
    pub(crate) db: TestDb,
    pub(crate) hub: Hub,
}

/// A hub on a port of its own.
pub(crate) struct Hub {
    pub(crate) address: SocketAddr,
    shutdown: Shutdown,
    keys: Keys,
    _artifacts: tempfile::TempDir,
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Hub {
    async fn start(db: &TestDb, bus: &Bus) -> Self {
        let (shutdown, tasks) = (Shutdown::new(), Tasks::new());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let keys = Keys::new(&[SECRET]).expect("a good secret");
        let artifacts = tempfile::tempdir().expect("a directory");
        let options = hub::Options::default();
        let feed = Feed::start(bus.clone(), &tasks, &shutdown);
        let callers = db::Options::new(db.connect_options()).pool();
        let realtime = Realtime::start(
            bus.clone(),
            feed.clone(),
            keys.clone(),
            callers.clone(),
            options.realtime.clone(),
            &tasks,
            &shutdown,
        );
        let store = Store::folder(artifacts.path(), options.artifact_limits());
        let state = hub::State {
            commit: Some("c0ffee1"),
            bus: bus.clone(),
            feed,
            readiness: Readiness::new(),
            policies: hub::Policies::default(),
            options,
            token: AdminToken::new("a-token-for-tests-only").expect("a good token"),
            keys: keys.clone(),
            env_keys: Err(cogo::remote_env::KeyError::Missing),
            callers,
            realtime,
            metrics: Arc::new(String::new),
            listen: address,
            artifacts_dir: artifacts.path().to_owned(),
            artifacts: store,
        };
        let router = hub::router(state, hub::Routes::new(), hub::Routes::new());
        let stop = shutdown.clone();
        tasks.spawn(async move { hub::serve(listener, router, &stop).await });
        Self { address, shutdown, keys, _artifacts: artifacts }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A key with these claims for an hour.
    pub(crate) fn key(&self, role: Role, with: impl FnOnce(&mut Claims)) -> String {
        let mut claims = Claims::new(role, utc_now().timestamp() + 3600);
        with(&mut claims);
        self.keys.mint(&claims)
    }

    /// The key of worker `w` of tenant `default`, for all topics.
    pub(crate) fn token(&self) -> String {
        self.key(Role::Authenticated, |claims| {
            claims.tenant = Some("default".to_owned());
            claims.worker = Some("w".to_owned());
            claims.topics = vec![Pattern::All];
            claims.send = vec![Pattern::All];
        })
    }
}

/// A bus over HTTPS (without the S).
pub(crate) fn remote(url: &str, key: &str) -> Bus {
    let net = net::Options { proxy: net::Proxy::None, ..net::Options::default() };
    let options =
        rest::Options { url: url.to_owned(), key: Key::Text(key.into()), api_key: None, net };
    Bus::remote(options).expect("good options")
}

impl Setting {
    pub(crate) async fn new(way: Way) -> Self {
        let db = TestDb::new().await;
        let admin = Bus::new(db.pool().clone());
        let hub = Hub::start(&db, &admin).await;
        let bus = match way {
            Way::Postgres => Bus::new(db::Options::new(db.connect_options()).pool()),
            Way::Service | Way::Token => remote(&hub.url(), &key(way, &hub)),
        };
        Self { way, bus, admin, db, hub }
    }

    /// The same bus through a proxy. Over SQL on one connection, so that it is known which answer is lost.
    pub(crate) async fn through_a_proxy(&self) -> (Bus, Proxy) {
        match self.way {
            Way::Postgres => {
                let connect = self.db.connect_options();
                let to = match connect.get_socket() {
                    Some(directory) => {
                        let file = format!(".s.PGSQL.{}", connect.get_port());
                        To::Socket(directory.join(file))
                    }
                    None => {
                        let host = connect.get_host().parse().expect("an address");
                        To::Address(SocketAddr::new(host, connect.get_port()))
                    }
                };
                let proxy = Proxy::start(to).await;
                let through = PgConnectOptions::new_without_pgpass()
                    .host("127.0.0.1")
                    .port(proxy.address.port())
                    .username(connect.get_username())
                    .database(self.db.name())
                    .ssl_mode(PgSslMode::Disable);
                let pool = PgPoolOptions::new().max_connections(1).test_before_acquire(false);
                let pool = pool.connect_lazy_with(through);
                (self.admin.beside(pool), proxy)
            }
            Way::Service | Way::Token => {
                let proxy = Proxy::start(To::Address(self.hub.address)).await;
                let bus = remote(&format!("http://{}", proxy.address), &key(self.way, &self.hub));
                (bus, proxy)
            }
        }
    }

    /// Puts the database's time forward, and has what is due looked after.
    pub(crate) async fn later(&self, by: Duration) {
        self.db.advance(by).await;
        self.bus.reap(100).await.expect("reaped");
    }
}

fn key(way: Way, hub: &Hub) -> String {
    match way {
        Way::Token => hub.token(),
        Way::Postgres | Way::Service => hub.key(Role::ServiceRole, |_| {}),
    }
}
