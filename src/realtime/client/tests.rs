//! What only the inside can bring about: that the machine slept.

use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::StreamExt;
use tokio::net::TcpListener;
use tokio_tungstenite::accept_async;

use super::*;

#[tokio::test]
async fn a_machine_that_slept_connects_anew_without_waiting_for_a_heartbeat() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let mut options = Options::new(&format!("http://{address}"), "key").expect("a URL");
    let never = Duration::from_secs(3600);
    options.heartbeat = never;
    options.retry = Retry { first: never, max: never, max_offline: never };
    let slept = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&slept);
    let laps = move || {
        if asked.swap(false, Ordering::SeqCst) { never } else { Duration::ZERO }
    };
    let tasks = Tasks::new();
    let client = Client::start_with(options, &tasks, Box::new(laps)).expect("a client");
    let meet = async || {
        let (stream, _) = listener.accept().await.expect("a connection");
        accept_async(stream).await.expect("a WebSocket")
    };
    let mut first = meet().await;
    let mut status = client.status();
    let connected = status.wait_for(|status| *status == Status::Connected);
    drop(connected.await.expect("connected"));
    client.check();
    first.next().await.expect("a heartbeat").expect("which shows that the session runs");
    slept.store(true, Ordering::SeqCst);
    client.check(); // whatever it does next, it looks at the clocks
    let second = meet().await;
    drop((first, second));
    client.close().await;
    assert!(tasks.join(Duration::from_secs(5)).await);
}

/// How long this thread has been at work.
#[cfg(target_os = "linux")]
fn at_work() -> Duration {
    let spent = std::fs::read_to_string("/proc/thread-self/schedstat").expect("the kernel tells");
    let nanos = spent.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.expect("a number"))
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn who_is_told_to_look_while_it_connects_waits_for_that_and_then_looks_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let mut options = Options::new(&format!("http://{address}"), "key").expect("a URL");
    let never = Duration::from_secs(3600);
    options.connect = Duration::from_millis(500);
    options.retry = Retry { first: never, max: never, max_offline: never };
    let tasks = Tasks::new();
    let client = Client::start(options, &tasks).expect("a client");
    let silent = listener.accept().await.expect("a connection");
    let before = at_work();
    client.check();
    let next = listener.accept().await.expect("another");
    let spent = at_work().saturating_sub(before);
    assert!(spent < Duration::from_millis(200), "it was at work for {spent:?} of half a second");
    drop((silent, next));
    client.close().await;
    assert!(tasks.join(Duration::from_secs(5)).await);
}
