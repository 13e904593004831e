//! Sessions of streamable HTTP, as MCP had them before 2026-07-28: whose they are, how many, and when they end.
//!
//! rmcp keeps what a session needs to be served; this keeps who may use it. A session is its opener's alone: for
//! anybody else its id is as unknown as one that was never given out.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cogo::clock::Stopwatch;
use cogo::hub::Principal;
use cogo::shutdown::{Shutdown, Tasks};
use futures_util::Stream;
use rmcp::model::{ClientJsonRpcMessage, ServerJsonRpcMessage};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::session::{ServerSseMessage, SessionId};
use rmcp::transport::streamable_http_server::{RestoreOutcome, SessionManager};

use super::Limits;
use super::lifecycle::Client;
use super::places::{Place, Places, Taken};
use super::rpc::RpcError;

/// When somebody who may not open a session may try again.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// One session.
#[derive(Debug)]
pub(super) struct Session {
    /// Its id.
    pub(super) id: Arc<str>,
    /// What its client declared.
    pub(super) client: Client,
    /// The only toolset that it serves.
    toolset: Option<Arc<str>>,
    owner: [u8; 32],
    /// How many requests and streams it has open.
    open: AtomicUsize,
    /// Since when none has been open.
    idle: Mutex<Stopwatch>,
    /// Kept for as long as the session counts.
    _place: Place,
}

/// That a session is used; while it is, it is not idle.
#[derive(Debug)]
pub(super) struct InUse(Arc<Session>);

impl InUse {
    fn new(session: Arc<Session>) -> Self {
        session.open.fetch_add(1, Ordering::Relaxed);
        Self(session)
    }

    pub(super) fn session(&self) -> &Session {
        &self.0
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        *self.0.idle.lock().unwrap_or_else(PoisonError::into_inner) = Stopwatch::start();
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Session {
    fn idle_for(&self) -> Duration {
        if self.open.load(Ordering::Relaxed) > 0 {
            return Duration::ZERO;
        }
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

/// All sessions. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Sessions(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    rmcp: LocalSessionManager,
    open: Mutex<HashMap<Arc<str>, Arc<Session>>>,
    places: Places,
}

impl Sessions {
    /// No session yet; those that idle are ended from now on, until `shutdown` drains.
    pub(super) fn start(idle: Duration, tasks: &Tasks, shutdown: &Shutdown) -> Self {
        let mut rmcp = LocalSessionManager::default();
        // Idle is what nobody uses, and only this module sees every use.
        rmcp.session_config.keep_alive = None;
        let sessions = Self(Arc::new(Inner { rmcp, ..Inner::default() }));
        let (sweeping, draining) = (sessions.clone(), shutdown.draining().clone());
        tasks.spawn(async move {
            let every = (idle / 4).clamp(Duration::from_millis(50), Duration::from_secs(60));
            while tokio::time::timeout(every, draining.cancelled()).await.is_err() {
                sweeping.end_idle(idle).await;
            }
        });
        sessions
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Session>>> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more session of `who`.
    ///
    /// # Errors
    /// There are as many as there may be, in all or of `who`.
    pub(super) fn place(&self, who: &Principal, limits: &Limits) -> Result<Place, RpcError> {
        let (max, max_own) = (limits.hub.max_sessions, limits.hub.max_sessions_per_key);
        self.0.places.take(who, max, max_own).map_err(|taken| {
            let (whose, max, field) = match taken {
                Taken::All => ("the hub", max, "max_sessions"),
                Taken::Own => ("this key", max_own, "max_sessions_per_key"),
            };
            let message = format!(
                "{whose} has {max} sessions open, and may not have more (hub.json, mcp.{field}); end some (DELETE), or \
                 use MCP 2026-07-28, which has none"
            );
            RpcError::too_many(message, RETRY_AFTER)
        })
    }

    /// Notes a session that rmcp has opened.
    pub(super) async fn opened(
        &self,
        id: &str,
        place: Place,
        client: Client,
        toolset: Option<Arc<str>>,
    ) {
        let id: Arc<str> = id.into();
        let session = Session {
            id: Arc::clone(&id),
            client,
            toolset,
            owner: place.owner,
            open: AtomicUsize::new(0),
            idle: Mutex::new(Stopwatch::start()),
            _place: place,
        };
        self.open().insert(Arc::clone(&id), Arc::new(session));
        // It may have ended before it was noted.
        if !matches!(self.0.rmcp.has_session(&id).await, Ok(true)) {
            self.open().remove(&id);
        }
    }

    /// The session of that id, if it is one of `who` for this toolset.
    pub(super) fn of(&self, id: &str, who: &Principal, toolset: Option<&str>) -> Option<InUse> {
        let session = self.open().get(id).cloned()?;
        let fits = session.owner == who.id() && session.toolset.as_deref() == toolset;
        fits.then(|| InUse::new(session))
    }

    async fn end_idle(&self, idle: Duration) {
        let ended: Vec<_> = self
            .open()
            .values()
            .filter(|session| session.idle_for() >= idle)
            .map(|session| Arc::clone(&session.id))
            .collect();
        for id in ended {
            tracing::debug!("Ending a session of /mcp that nobody used for {idle:?}");
            let _gone_already = self.close_session(&id).await;
        }
    }
}

/// rmcp's own, and what ends there ends here.
impl SessionManager for Sessions {
    type Error = <LocalSessionManager as SessionManager>::Error;
    type Transport = <LocalSessionManager as SessionManager>::Transport;

    async fn create_session(&self) -> Result<(SessionId, Self::Transport), Self::Error> {
        self.0.rmcp.create_session().await
    }

    async fn initialize_session(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<ServerJsonRpcMessage, Self::Error> {
        self.0.rmcp.initialize_session(id, message).await
    }

    async fn has_session(&self, id: &SessionId) -> Result<bool, Self::Error> {
        self.0.rmcp.has_session(id).await
    }

    async fn close_session(&self, id: &SessionId) -> Result<(), Self::Error> {
        self.open().remove(id);
        self.0.rmcp.close_session(id).await
    }

    async fn create_stream(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        self.0.rmcp.create_stream(id, message).await
    }

    async fn accept_message(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<(), Self::Error> {
        self.0.rmcp.accept_message(id, message).await
    }

    async fn create_standalone_stream(
        &self,
        id: &SessionId,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        self.0.rmcp.create_standalone_stream(id).await
    }

    async fn resume(
        &self,
        id: &SessionId,
        last_event_id: String,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        self.0.rmcp.resume(id, last_event_id).await
    }

    async fn restore_session(
        &self,
        id: SessionId,
    ) -> Result<RestoreOutcome<Self::Transport>, Self::Error> {
        self.0.rmcp.restore_session(id).await
    }
}
