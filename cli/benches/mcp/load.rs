//! The client: calls of one tool, some at once, each timed.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use cogo::clock::Stopwatch;
use futures_util::future::try_join_all;
use rmcp::model::CallToolRequestParams;
use rmcp::service::{Peer, RunningService};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{RoleClient, ServiceExt as _};
use serde_json::json;

/// How many calls are under way at once.
pub(crate) const AT_ONCE: [usize; 3] = [1, 16, 64];
/// No call takes longer than that.
const PATIENCE: Duration = Duration::from_secs(30);

/// A session with one way to the server.
pub(crate) struct Client {
    running: RunningService<RoleClient, ()>,
    tool: Arc<str>,
}

/// What some calls took.
#[derive(Debug, Clone)]
pub(crate) struct Measured {
    /// Sorted.
    pub(crate) each: Vec<Duration>,
    pub(crate) all: Duration,
}

impl Client {
    pub(crate) async fn connect(url: &str, token: Option<&str>, tool: &str) -> Result<Self> {
        let http = reqwest::Client::builder().no_proxy().tcp_nodelay(true).build()?;
        let mut config = StreamableHttpClientTransportConfig::with_uri(url)
            .max_concurrent_requests(AT_ONCE[2] + 1);
        if let Some(token) = token {
            config = config.auth_header(token);
        }
        let transport = StreamableHttpClientTransport::with_client(http, config);
        let running = ().serve(transport).await.context("connecting")?;
        let client = Self { running, tool: tool.into() };
        // The connections are made, and the tool is there.
        client.measure(AT_ONCE[2], AT_ONCE[2]).await.context("the first calls")?;
        Ok(client)
    }

    /// Makes `calls` calls, `at_once` of them under way at any time.
    pub(crate) async fn measure(&self, calls: usize, at_once: usize) -> Result<Measured> {
        let watch = Stopwatch::start();
        let share = calls.div_ceil(at_once);
        let callers = (0..at_once).map(|caller| {
            let (peer, tool) = (self.running.peer().clone(), Arc::clone(&self.tool));
            async move {
                #[allow(clippy::disallowed_methods, reason = "a measurement's own tasks")]
                let calling = tokio::spawn(call(peer, tool, caller, share));
                calling.await?
            }
        });
        let mut each = try_join_all(callers).await?.concat();
        let all = watch.elapsed();
        each.sort_unstable();
        Ok(Measured { each, all })
    }

    pub(crate) async fn close(self) {
        let _gone_already = self.running.cancel().await;
    }
}

async fn call(
    peer: Peer<RoleClient>,
    tool: Arc<str>,
    caller: usize,
    calls: usize,
) -> Result<Vec<Duration>> {
    let mut each = Vec::with_capacity(calls);
    for number in 0..calls {
        let message = format!("caller {caller}, call {number}");
        let arguments = json!({"message": &message}).as_object().cloned().unwrap_or_default();
        let request = CallToolRequestParams::new(tool.to_string()).with_arguments(arguments);
        let watch = Stopwatch::start();
        let answer = tokio::time::timeout(PATIENCE, peer.call_tool(request)).await;
        each.push(watch.elapsed());
        let answer = serde_json::to_value(answer.context("no answer")??)?;
        ensure!(
            answer["content"][0]["text"] == *message && answer["isError"] != true,
            "another answer than was asked for: {answer}"
        );
    }
    Ok(each)
}

impl Measured {
    /// What this share of the calls did not exceed.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        let place = (self.each.len() as f64 * share).ceil() as usize;
        self.each.get(place.saturating_sub(1)).copied().unwrap_or_default()
    }

    pub(crate) fn calls_a_second(&self) -> f64 {
        self.each.len() as f64 / self.all.as_secs_f64()
    }
}
