//! What a worker without a hub shows to whoever watches over it: `/metrics`, `/healthz`, `/readyz`.
//!
//! Served by hyper alone, so that a small worker needs no web framework.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use cogo::shutdown::{Shutdown, Tasks};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use crate::output::note;
use crate::recorder::{self, Render};

/// How many ask at once; further ones wait. Some monitors and a person.
const CONNECTIONS_MAX: usize = 32;
/// How long one may take, from its first byte to our last.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long to wait when the system has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The port, taken before anything else is started, so that a taken one is told at once.
#[derive(Debug)]
pub(crate) struct Probe(TcpListener);

/// What the answers are made of.
struct Shown {
    metrics: Render,
    ready: watch::Receiver<bool>,
}

impl Probe {
    pub(crate) async fn bind(address: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(address).await.map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => {
                anyhow!("port {} of {} is taken: give another", address.port(), address.ip())
            }
            _ => anyhow::Error::from(error).context(format!("cannot listen on {address}")),
        });
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
        let shown = Arc::new(Shown { metrics, ready });
        let (each, stop) = (tasks.clone(), shutdown.draining().clone());
        tasks.spawn(async move {
            tokio::select! {
                () = serve(self.0, shown, &each) => {}
                () = stop.cancelled() => {}
            }
        });
        Ok(())
    }
}

/// Takes connections for as long as it is let. Those that are being answered when it is dropped end by themselves.
async fn serve(listener: TcpListener, shown: Arc<Shown>, tasks: &Tasks) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = Arc::clone(&places).acquire_owned().await;
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let shown = Arc::clone(&shown);
        tasks.spawn(async move {
            let _too_long = tokio::time::timeout(ANSWER_WITHIN, answer(stream, &shown)).await;
            drop(place);
        });
    }
}

/// Answers one request; a connection is for one, so that none lies idle.
async fn answer(stream: TcpStream, shown: &Shown) {
    let service = service_fn(async |request: Request<_>| {
        Ok::<_, Infallible>(shown.answer(request.method(), request.uri().path()))
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).keep_alive(false);
    let _gone = server.serve_connection(TokioIo::new(stream), service).await;
}

impl Shown {
    fn answer(&self, method: &Method, path: &str) -> Response<String> {
        let (status, text) = match path {
            "/metrics" | "/healthz" | "/readyz"
                if !matches!(*method, Method::GET | Method::HEAD) =>
            {
                (StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD\n".to_owned())
            }
            "/metrics" => (StatusCode::OK, (self.metrics)()),
            "/healthz" => (StatusCode::OK, "ok\n".to_owned()),
            "/readyz" => match *self.ready.borrow() {
                true => (StatusCode::OK, "ready\n".to_owned()),
                false => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n".to_owned()),
            },
            _ => (StatusCode::NOT_FOUND, "there are /metrics, /healthz and /readyz\n".to_owned()),
        };
        let mut response = Response::new(text);
        *response.status_mut() = status;
        let plain = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, plain);
        if status == StatusCode::METHOD_NOT_ALLOWED {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        response
    }
}
