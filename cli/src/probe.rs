//! What a worker without a hub shows to whoever watches over it: `/metrics`, `/healthz`, `/readyz`.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use cogo::hub;
use cogo::shutdown::{Shutdown, Tasks};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::output::note;
use crate::recorder;

/// The port, taken before anything else is started, so that a taken one is told at once.
#[derive(Debug)]
pub(crate) struct Probe(TcpListener);

impl Probe {
    pub(crate) async fn bind(address: SocketAddr) -> Result<Self> {
        let listener = hub::bind(address, false).await;
        listener.map(Self).context("--metrics-listen")
    }

    /// Serves until `shutdown` drains. `/readyz` is 200 while the role claims messages.
    pub(crate) fn start(
        self,
        ready: watch::Receiver<bool>,
        tasks: &Tasks,
        shutdown: &Shutdown,
    ) -> Result<()> {
        let metrics = recorder::install(tasks, shutdown)?;
        note(&format!("Metrics at http://{}/metrics", self.0.local_addr()?));
        let router = Router::new()
            .route("/metrics", get(async move || metrics()))
            .route("/healthz", get(async || "ok\n"))
            .route(
                "/readyz",
                get(async move || match *ready.borrow() {
                    true => (StatusCode::OK, "ready\n"),
                    false => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
                }),
            );
        let shutdown = shutdown.clone();
        tasks.spawn(async move { hub::serve(self.0, router, &shutdown).await });
        Ok(())
    }
}
