//! What stands before every route: who calls, by which name, and for how long.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use metrics::counter;

use crate::error::Code;
use crate::hub::audit::Action;
use crate::hub::auth::{Gate, Pass, Shown};
use crate::hub::body_limits::BodyLimits;
use crate::hub::client::Client;
use crate::hub::error::ApiError;
use crate::hub::extract::BodyLimit;
use crate::hub::failures::Failures;
use crate::hub::origins::ApiOrigins;
use crate::hub::policies::{Decision, FILE, Table, Who};
use crate::hub::principal::Principals;
use crate::hub::rates::Rates;
use crate::hub::routes::Route;
use crate::hub::{Hub, arrival, origins};
use crate::metrics::HUB_REFUSED_TOTAL;

/// The largest sum of all headers; as much as common proxies pass on.
const HEADER_BYTES_MAX: usize = 16 * 1024;

/// The routes that probes ask, however often.
const PROBED: [&str; 2] = ["/healthz", "/readyz"];
/// The one public route that tells whether a token is right.
const SESSION: &str = "/api/session";

/// What is asked before every request.
pub(crate) struct Guard {
    hub: Arc<Hub>,
    policies: Table,
    principals: Principals,
    rates: Rates,
    failures: Failures,
    origins: ApiOrigins,
}

/// What a route wants, as far as its policy says.
#[derive(Debug, Clone, Copy)]
enum Wanted {
    Who(Who),
    /// There a key says who calls, and the database what they may: the handler asks.
    HandlerAsks,
    NoPolicy,
}

impl Guard {
    pub(crate) fn new(hub: Arc<Hub>, routes: &[Route]) -> Self {
        let state = &hub.state;
        Self {
            policies: Table::new(state.policies.clone(), routes),
            principals: state.principals(),
            rates: Rates::new(&state.options.rate_limit),
            failures: Failures::new(state.options.rate_limit.wrong_tokens_per_minute),
            origins: ApiOrigins::new(&state.options.api_origins),
            hub,
        }
    }

    async fn answer(&self, request: Request, next: Next) -> Response {
        let client = request.extensions().get::<Client>().copied().unwrap_or_default();
        if let Err(error) = self.check(&request, &client) {
            return error.into_response();
        }
        let (method, path) = (request.method(), request.uri().path());
        let by_key = takes_keys(path);
        if is_preflight(&request) && !by_key {
            return self.origins.preflight(request.headers());
        }
        let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
        let decision = self.policies.decide(route, method);
        let shown = Shown::of(&self.hub.state.token, request.headers());
        let wanted = self.wanted(decision, method, path, is_preflight(&request));
        let passed = self.pass(wanted, shown, &request, &client);
        let pass = passed.as_ref().copied().unwrap_or(Pass::Anybody);
        // One who guesses is told nothing, and the log would fill with it.
        let looked_at = !matches!(&passed, Err(error) if error.code() == Code::RateLimited);
        let is_admins = pass != Pass::Anybody || shown == Shown::Admin;
        let acts = !is_read(method) && !by_key && is_admins && looked_at;
        let action = route.filter(|_| acts && decision != Decision::NoRoute).map(|route| {
            let log = (self.hub.state.bus.clone(), self.hub.state.realtime.tasks());
            Action::new(log, &request, route, &client, pass)
        });
        // Anybody may come this far; but some handlers ask as well who calls, and tell of the token by that.
        let asked_by_the_handler = shown == Shown::Wrong
            && match wanted {
                Wanted::Who(Who::Reader) => true,
                Wanted::Who(Who::Public) => is_open(path),
                _ => false,
            };
        let response = match passed {
            Ok(_) => {
                let response = next.run(request).await;
                if asked_by_the_handler && response.status() == StatusCode::UNAUTHORIZED {
                    self.failures.count(&client);
                }
                response
            }
            Err(error) => error.into_response(),
        };
        if let Some(action) = action {
            action.settle(response.status().as_u16()).await;
        }
        response
    }

    /// What holds for everybody.
    fn check(&self, request: &Request, client: &Client) -> Result<(), ApiError> {
        check_size(request.headers())?;
        self.hub.hosts.check(request.uri(), request.headers())?;
        if PROBED.contains(&request.uri().path()) {
            return Ok(());
        }
        self.rates.check(client, request.uri(), request.headers()).inspect_err(|_| count("rate"))
    }

    /// Lets a request pass by the policy of its route, before anything of its body is read.
    fn pass(
        &self,
        wanted: Wanted,
        shown: Shown,
        request: &Request,
        client: &Client,
    ) -> Result<Pass, ApiError> {
        let (method, path) = (request.method(), request.uri().path());
        let open_reads = self.hub.opens_reads_to(client);
        let (tells_of_the_token, may_tell) = match wanted {
            Wanted::Who(Who::Public) => (path == SESSION, is_open(path)),
            Wanted::Who(Who::Reader) => (!open_reads, true),
            Wanted::HandlerAsks => (is_open(path), false),
            Wanted::Who(_) | Wanted::NoPolicy => (true, true),
        };
        if (tells_of_the_token || may_tell) && matches!(shown, Shown::Admin | Shown::Wrong) {
            self.failures.check(client).inspect_err(|_| count("guessing"))?;
            if tells_of_the_token && shown == Shown::Wrong {
                self.failures.count(client);
            }
        }
        let gate = Gate { keys: &self.hub.state.keys, principals: &self.principals, open_reads };
        let passed = match wanted {
            Wanted::Who(who) => gate.check(who, shown, request.headers()),
            Wanted::HandlerAsks => Ok(Pass::Anybody),
            Wanted::NoPolicy => {
                let route = request.extensions().get::<MatchedPath>();
                Err(no_policy(method, route.map_or(path, MatchedPath::as_str)))
            }
        };
        passed.inspect_err(|error| match error.code() {
            Code::Unauthorized => count("credentials"),
            _ => count("policy"),
        })
    }

    fn wanted(&self, decision: Decision, method: &Method, path: &str, asks: bool) -> Wanted {
        let (by_key, reads) = (takes_keys(path), is_read(method));
        match decision {
            // A browser that asks whether a page may call shows nothing, by its nature.
            _ if by_key && asks => Wanted::HandlerAsks,
            Decision::Who(Who::Token) | Decision::NoRoute if by_key => Wanted::HandlerAsks,
            Decision::Who(who) if reads || by_key => Wanted::Who(who),
            Decision::Who(_) if self.hub.state.options.require_admin_for_non_get => {
                Wanted::Who(Who::Admin)
            }
            Decision::Who(who) => Wanted::Who(who),
            // What there is must not be found out by who may not see it.
            Decision::NoRoute if reads => Wanted::Who(Who::Reader),
            Decision::NoRoute => Wanted::Who(Who::Admin),
            Decision::NoPolicy => Wanted::NoPolicy,
        }
    }
}

pub(crate) async fn admit(
    State(guard): State<Arc<Guard>>,
    mut request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    let limit = BodyLimits::new(&guard.hub.state.options).of(path);
    let (by_key, untimed) = (takes_keys(path), is_open(path) && !is_blob(path));
    let told = if is_remote(path) { origins::REMOTE } else { origins::OPEN };
    request.extensions_mut().insert(BodyLimit(limit));
    if untimed {
        let within = guard.hub.request_timeout();
        request = request.map(|body| arrival::within(within, body));
    }
    if by_key {
        // A page that may not call is refused later, and reads nothing of what is said before.
        let origin = guard.hub.origins.check(request.headers()).ok().flatten();
        let mut response = guard.answer(request, next).await;
        told.tell(origin, &mut response);
        return response;
    }
    let origin = guard.origins.named(request.headers());
    let mut response = guard.answer(request, next).await;
    guard.origins.tell(origin, &mut response);
    response
}

fn no_policy(method: &Method, route: &str) -> ApiError {
    let method = if method == Method::HEAD { "GET" } else { method.as_str() };
    let message = format!(
        "{FILE} has no entry for {method} {route}, so that nobody may call it: add \
         {{\"methods\": [\"{method}\"], \"path\": \"{route}\", \"who\": …}} and restart the hub"
    );
    ApiError::new(Code::Forbidden, message)
}

fn count(why: &'static str) {
    counter!(HUB_REFUSED_TOTAL, "why" => why).increment(1);
}

fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// Whether a path is below one of the roots where keys are the protocol.
fn takes_keys(path: &str) -> bool {
    is_remote(path) || is_open(path)
}

fn is_preflight(request: &Request) -> bool {
    request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// Whether a path is one of Supabase's protocols, which remote workers and other clients speak: they carry
/// keys of their own and not the admin token, and are answered in PostgREST's words.
pub(crate) fn is_remote(path: &str) -> bool {
    is_below("/rest/v1", path) || is_below("/realtime/v1", path)
}

/// Whether a path is one of a role's routes that find out themselves who calls ([`crate::hub::Principals`]),
/// because keys are taken there as well as the admin token.
pub(crate) fn is_open(path: &str) -> bool {
    is_below(OPEN_ROOT, path)
}

/// Whether a path is an artifact's.
pub(crate) fn is_blob(path: &str) -> bool {
    is_below("/mcp/artifacts", path)
}

/// Below it lie routes that wait for what was asked for, also where the query does not say so.
const CALLS_ROOT: &str = "/api/mcp";

/// Below it lie the routes that take keys as well as the admin token.
pub(crate) const OPEN_ROOT: &str = "/mcp";

fn is_below(root: &str, path: &str) -> bool {
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn check_size(headers: &HeaderMap) -> Result<(), ApiError> {
    let size: usize =
        headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if size <= HEADER_BYTES_MAX {
        return Ok(());
    }
    let message = format!("headers: at most {HEADER_BYTES_MAX} bytes in all");
    Err(ApiError::new(Code::PayloadTooLarge, message)
        .with_status(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE))
}

pub(crate) async fn limit_time(
    State(hub): State<Arc<Hub>>,
    request: Request,
    next: Next,
) -> Response {
    // A stream lasts as long as its client wants it; a call that waits has a deadline of its own.
    if is_open(request.uri().path()) {
        return next.run(request).await;
    }
    let query = request.uri().query().unwrap_or_default();
    let calls = request.method() == Method::POST && is_below(CALLS_ROOT, request.uri().path());
    let waits = calls || query.split('&').any(|pair| pair.starts_with("wait="));
    // A wait ends by itself; this is only for what it does before and after.
    let limit = hub.request_timeout() + if waits { hub.wait_max() } else { Duration::ZERO };
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let message = format!("no answer within {} s", limit.as_secs());
            ApiError::new(Code::Timeout, message).into_response()
        }
    }
}
