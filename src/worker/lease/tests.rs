//! A hub that answers some calls and others not. Leases are of the real clock, so these take a second or two.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::{Method, Uri};
use tokio::net::TcpListener;

use super::*;
use crate::bus::rest;
use crate::message::MessageId;
use crate::net;
use crate::secret::Secret;
use crate::shutdown::Tasks;

/// What was asked, and when.
#[derive(Clone)]
pub(in crate::worker) struct Hub {
    since: Stopwatch,
    asked: Arc<Mutex<Vec<(String, Duration)>>>,
}

impl Hub {
    /// One that never answers the first `silent` calls.
    pub(in crate::worker) async fn start(silent: usize) -> (Self, Bus) {
        let hub = Self { since: Stopwatch::start(), asked: Arc::default() };
        let own = hub.clone();
        let answer = move |method: Method, uri: Uri| {
            let name = uri.path().rsplit('/').next().unwrap_or_default().to_owned();
            let asked = if method == Method::HEAD { "knock".to_owned() } else { name };
            let is_call = asked != "knock";
            own.asked.lock().expect("whole").push((asked, own.since.elapsed()));
            let is_silent = is_call && own.times("bus_").len() <= silent;
            async move {
                if is_silent {
                    std::future::pending::<()>().await;
                }
                "[]"
            }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let serving = axum::serve(listener, Router::new().fallback(answer));
        Tasks::new().spawn(async move { serving.await.expect("serves") });
        let key = rest::Key::Text(Secret::from("sb_secret_of_nobody"));
        let options = rest::Options { url, key, api_key: None, net: net::Options::default() };
        (hub, Bus::remote(options).expect("a bus"))
    }

    /// When it was asked for what begins like this.
    fn times(&self, name: &str) -> Vec<Duration> {
        let asked = self.asked.lock().expect("whole");
        asked.iter().filter(|(asked, _)| asked.starts_with(name)).map(|(_, at)| *at).collect()
    }

    /// Waits until it was asked so often.
    pub(in crate::worker) async fn asked(&self, name: &str, often: usize) -> Duration {
        let asked = async {
            while self.times(name).len() < often {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), asked).await.expect("asked in time");
        self.times(name)[often - 1]
    }
}

/// A claim whose handler runs, and its keeper.
fn kept(bus: &Bus, lease: Duration) -> (InFlight, CancellationToken, CancellationToken) {
    let (in_flight, stop) = (InFlight::new(lease), CancellationToken::new());
    let claim = (MessageId::new(), 1);
    in_flight.hold([claim], Stopwatch::start());
    let lost = in_flight.begin(claim).expect("it is held");
    let keeping = keep(bus.clone(), in_flight.clone(), lease, "echo".to_owned(), stop.clone());
    Tasks::new().spawn(keeping);
    (in_flight, lost, stop)
}

#[tokio::test]
async fn an_extend_that_is_not_answered_leaves_time_for_another_one() {
    let (hub, bus) = Hub::start(1).await;
    let lease = Duration::from_millis(1500);
    let (_, lost, stop) = kept(&bus, lease);
    let again = hub.asked("bus_extend", 2).await;
    assert!(again < lease * 5 / 6, "{again:?}: the lease has all but run out");
    assert_eq!(hub.times("knock").len(), 1, "the way may have been dead");
    tokio::time::sleep((lease * 4 / 3).saturating_sub(hub.since.elapsed())).await;
    assert!(!lost.is_cancelled());
    stop.cancel();
}

#[tokio::test]
async fn a_handler_is_cancelled_when_its_lease_runs_out_and_not_when_a_call_ends() {
    let (hub, bus) = Hub::start(usize::MAX).await;
    let lease = Duration::from_millis(1500);
    let (_, lost, stop) = kept(&bus, lease);
    lost.cancelled().await;
    let took = hub.since.elapsed();
    assert!(took >= lease && took < lease * 5 / 4, "{took:?}");
    stop.cancel();
}

#[tokio::test]
async fn a_claim_that_was_on_its_way_when_some_were_taken_away_is_looked_at() {
    let (hub, bus) = Hub::start(0).await;
    let (in_flight, _, stop) = kept(&bus, Duration::from_secs(3600));
    let began = Stopwatch::start();
    tokio::task::yield_now().await; // the keeper listens
    bus.wake(Signal::Claims);
    hub.asked("bus_extend", 1).await;
    in_flight.hold([(MessageId::new(), 1)], began);
    hub.asked("bus_extend", 2).await;
    in_flight.hold([(MessageId::new(), 1)], Stopwatch::start());
    tokio::time::sleep(2 * LOOK_PAUSE).await;
    assert_eq!(hub.times("bus_extend").len(), 2);
    stop.cancel();
}
