//! What only the way over HTTPS meets: keys, wrong addresses, servers that are sick or silent.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cogo::bus::rest::{self, Key};
use cogo::bus::{Bus, Error};
use cogo::clock::Stopwatch;
use cogo::error::Code;
use cogo::identity::{Pattern, Role};
use cogo::message::{NewMessage, Status, Topic};
use cogo::net;
use cogo::retry::{ErrorClass, Policies};
use cogo::shutdown::{Shutdown, Tasks};
use cogo::worker::runner::{Options, Runner};
use cogo::worker::{Delivery, Failure, Handler, Output};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::setting::{Setting, Way, remote};
use super::workers::Running;
use crate::fixtures::{SOON, echo, eventually, request};

struct Nothing;

impl Handler for Nothing {
    async fn handle(&self, _delivery: Delivery) -> Result<Output, Failure> {
        Ok(json!(null).into())
    }
}

fn runner(bus: &Bus, tenant: &str, topic: &str, worker: &str) -> Runner<Nothing> {
    let options = Options {
        worker_id: worker.to_owned(),
        tenant: tenant.to_owned(),
        topics: vec![topic.parse().expect("a topic")],
        concurrency: 2,
        prefetch: cogo::worker::Prefetch::Auto,
        lease: Duration::from_secs(30),
    };
    Runner::new(Nothing, options, bus.clone(), Arc::new(Policies::default()))
}

/// How a runner ends that is refused.
async fn refused(runner: Runner<Nothing>) -> Error {
    let (ready, _) = watch::channel(false);
    let ended = tokio::time::timeout(SOON, runner.run(&Shutdown::new(), &ready)).await;
    ended.expect("it ends by itself").expect_err("refused")
}

#[tokio::test]
async fn a_key_of_somebody_else_or_of_yesterday_is_refused_and_nothing_is_read() {
    let s = Setting::new(Way::Service).await;
    let id = s.admin.publish(echo(json!("secret"))).await.expect("published").id;
    let forged = s.hub.token();
    let forged = format!("{}.{}", forged.rsplit_once('.').expect("parts").0, "A".repeat(43));
    let expired = s.hub.key(Role::ServiceRole, |claims| claims.exp -= 7200);
    let opaque = "sb_secret_something".to_owned();
    for key in [forged, expired, opaque] {
        let bus = remote(&s.hub.url(), &key);
        for error in [
            bus.claim(&request("w", 1)).await.expect_err("refused"),
            bus.message(id).await.expect_err("refused"),
            bus.publish(echo(json!(1))).await.expect_err("refused"),
            refused(runner(&bus, "default", "echo/default", "w")).await,
        ] {
            assert_eq!(error.code(), Code::Unauthorized, "{error:?}");
            assert!(error.to_string().contains("cogo token mint"), "{error}");
            assert!(!error.to_string().contains(&key), "the key is not shown: {error}");
        }
    }
    let sent: i64 = sqlx::query_scalar("select count(*) from agent_messages")
        .fetch_one(s.db.pool())
        .await
        .expect("counted");
    assert_eq!(sent, 1);
}

#[tokio::test]
async fn a_key_of_another_tenant_or_topic_reads_nothing_and_is_told_what_it_may() {
    let s = Setting::new(Way::Service).await;
    let id = s.admin.publish(echo(json!("secret"))).await.expect("published").id;
    let claim = s.admin.claim(&request("theirs", 1)).await.expect("claimed").pop().expect("one");
    let of = |tenant: &str, topic: &str| {
        let topic: Pattern = topic.parse().expect("a pattern");
        s.hub.key(Role::Authenticated, |claims| {
            claims.tenant = Some(tenant.to_owned());
            claims.worker = Some("w".to_owned());
            claims.topics = vec![topic.clone()];
            claims.send = vec![topic];
        })
    };
    for key in [of("acme", "*"), of("default", "mcp-gateway/figma")] {
        let bus = remote(&s.hub.url(), &key);
        assert!(matches!(bus.message(id).await, Err(Error::NoMessage(_))), "it reads nothing");
        assert_eq!(bus.message_events(id, 10).await.expect("read"), []);
        let stolen = cogo::bus::Settle::complete(claim.message(), json!("mine"), json!({}));
        for error in [
            bus.claim(&request("w", 1)).await.expect_err("refused"),
            bus.publish(echo(json!(1))).await.expect_err("refused"),
            bus.settle(stolen).await.expect_err("refused"),
        ] {
            assert_eq!(error.code(), Code::Forbidden, "{error:?}");
        }
    }
    let theirs = s.admin.message(id).await.expect("found");
    assert_eq!((theirs.claim_no, theirs.result), (claim.message().claim_no, None));

    let bus = remote(&s.hub.url(), &of("acme", "mcp-gateway/figma"));
    for (tenant, topic, worker, says) in [
        ("default", "mcp-gateway/figma", "w", "tenant default: the key is for acme"),
        ("acme", "mcp-gateway/demo", "w", "--topic mcp-gateway/demo"),
        ("acme", "mcp-gateway/figma", "other", "worker other: the key is for w"),
    ] {
        let error = refused(runner(&bus, tenant, topic, worker)).await;
        assert_eq!(error.code(), Code::Forbidden, "{error:?}");
        assert!(error.to_string().contains(says), "{says}: {error}");
    }
    let ours = Topic::new("mcp-gateway", "figma").expect("a topic");
    let mut message = NewMessage::new(&ours, "mcp.call", json!({}));
    message.tenant = "acme".to_owned();
    bus.publish(message).await.expect("what it may do it can");
}

/// A server that answers every request with this.
async fn answering(answer: &'static str) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    Tasks::new().spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = vec![0; 64 * 1024];
            if socket.read(&mut request).await.is_ok_and(|size| size > 0) {
                count.fetch_add(1, Ordering::SeqCst);
                let _gone = socket.write_all(answer.as_bytes()).await;
                let _gone = socket.shutdown().await;
            }
        }
    });
    (url, asked)
}

#[tokio::test]
async fn an_address_that_is_no_bus_is_said_to_be_none() {
    let s = Setting::new(Way::Service).await;
    for answer in [
        "HTTP/1.1 404 Not Found\r\ncontent-type: text/html\r\ncontent-length: 9\r\n\r\n<h1>x</h1",
        "HTTP/1.1 301 Moved\r\nlocation: https://elsewhere.example/\r\ncontent-length: 0\r\n\r\n",
    ] {
        let (url, asked) = answering(answer).await;
        let error = remote(&url, &s.hub.token()).schema_version().await.expect_err("refused");
        assert!(matches!(error, Error::NotThere { .. }), "{error:?}");
        assert!(error.to_string().contains("Check the URL"), "{error}");
        assert_eq!(asked.load(Ordering::SeqCst), 1, "once is enough");
    }
    let page = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 8\r\n\r\n<h1>hi</";
    let (url, _) = answering(page).await;
    let error = remote(&url, &s.hub.token()).schema_version().await.expect_err("no answer");
    assert!(error.to_string().contains("not one of a bus"), "{error}");
}

/// Says that it has begun, and gives back what it got once it is let go.
#[derive(Clone, Default)]
struct Held {
    begun: Arc<Notify>,
    let_go: Arc<Notify>,
}

impl Handler for Held {
    async fn handle(&self, delivery: Delivery) -> Result<Output, Failure> {
        self.begun.notify_one();
        self.let_go.notified().await;
        Ok(delivery.message.payload.clone().into())
    }
}

/// While a hub is replaced, what stands before it may say whatever it likes.
#[tokio::test]
async fn a_worker_keeps_its_results_while_somebody_else_answers_in_the_hub_s_place() {
    let s = Setting::new(Way::Service).await;
    let (bus, proxy) = s.through_a_proxy().await;
    let held = Held::default();
    let running = Running::start(&bus, held.clone(), Duration::from_secs(30)).await;
    for answer in [
        "HTTP/1.1 404 Not Found\r\ncontent-type: text/plain\r\ncontent-length: 18\r\n\r\n404 page not found",
        "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 9\r\n\r\n<h1>soon<",
        "HTTP/1.1 403 Forbidden\r\ncontent-type: text/html\r\ncontent-length: 4\r\n\r\n<h1>",
    ] {
        let id = s.admin.publish(echo(json!("kept"))).await.expect("published").id;
        // Not when it is claimed: the answer to the claim has to come through.
        tokio::time::timeout(SOON, held.begun.notified()).await.expect("it is in hand");
        let in_hand = s.admin.message(id).await.expect("found");
        proxy.answer_instead(Some(answer));
        held.let_go.notify_one();
        eventually("the settle was tried", async || (proxy.answered_instead() > 4).then_some(()))
            .await;
        proxy.answer_instead(None);
        let done = eventually("the message is done", async || {
            let message = s.admin.message(id).await.expect("found");
            message.status.is_final().then_some(message)
        })
        .await;
        assert_eq!((done.status, &done.error), (Status::Done, &None), "{answer}");
        assert_eq!(done.claim_no, in_hand.claim_no, "{answer}: it was done once");
        assert_eq!(done.result, Some(json!("kept")), "{answer}");
    }
    running.stop().await;
}

#[tokio::test]
async fn a_worker_claims_fewer_at_once_where_all_do_not_go_into_one_answer() {
    let s = Setting::new(Way::Service).await;
    // A hub answers with 32 MiB at most.
    let large = json!("x".repeat(3_900_000));
    for _ in 0..10 {
        s.admin.publish(echo(large.clone())).await.expect("published");
    }
    let options = Options {
        worker_id: "w".to_owned(),
        tenant: "default".to_owned(),
        topics: vec!["echo/default".parse().expect("a topic")],
        concurrency: 16,
        prefetch: cogo::worker::Prefetch::Auto,
        lease: Duration::from_secs(30),
    };
    let runner = Runner::new(Nothing, options, s.bus.clone(), Arc::new(Policies::default()));
    let (shutdown, tasks) = (Shutdown::new(), Tasks::new());
    let ((ready, _), stop) = (watch::channel(false), shutdown.clone());
    tasks.spawn(async move { runner.run(&stop, &ready).await.expect("runs") });
    eventually("all are done", async || {
        let left = "select count(*) from agent_messages where status <> 'done'";
        let left: i64 = sqlx::query_scalar(left).fetch_one(s.db.pool()).await.expect("counted");
        (left == 0).then_some(())
    })
    .await;
    shutdown.drain();
    assert!(tasks.join(SOON).await);
}

/// Fails the first time.
struct FailsOnce;

impl Handler for FailsOnce {
    async fn handle(&self, delivery: Delivery) -> Result<Output, Failure> {
        if delivery.message.attempts == 1 {
            return Err(Failure::new(ErrorClass::Connect, "not yet"));
        }
        Ok(json!(null).into())
    }
}

#[tokio::test]
async fn a_retry_is_not_forgotten_until_the_next_poll_where_no_hub_tells_of_it() {
    let s = Setting::new(Way::Service).await;
    // There is no channel of the hub's for all tenants, so that all is as with hosted Supabase.
    let options = Options {
        worker_id: "w".to_owned(),
        tenant: "*".to_owned(),
        topics: vec!["echo/default".parse().expect("a topic")],
        concurrency: 2,
        prefetch: cogo::worker::Prefetch::Auto,
        lease: Duration::from_secs(30),
    };
    let runner = Runner::new(FailsOnce, options, s.bus.clone(), Arc::new(Policies::default()));
    let (shutdown, tasks) = (Shutdown::new(), Tasks::new());
    let ((ready, _), stop) = (watch::channel(false), shutdown.clone());
    tasks.spawn(async move { runner.run(&stop, &ready).await.expect("runs") });
    eventually("wake-ups come", async || (s.bus.pause() >= Duration::from_secs(15)).then_some(()))
        .await;
    for is_reaped in [false, true] {
        // A hub looks after it as well, but does not tell here whose turn it is then.
        let (reaper, stop) = (s.admin.clone(), CancellationToken::new());
        let reaping = stop.clone().run_until_cancelled_owned(async move {
            while reaper.reap(100).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        if is_reaped {
            tasks.spawn(async move { reaping.await.unwrap_or_default() });
        }
        let id = s.admin.publish(echo(json!(1))).await.expect("published").id;
        let began = Stopwatch::start();
        eventually("the message is done", async || {
            let message = s.admin.message(id).await.expect("found");
            message.status.is_final().then_some(())
        })
        .await;
        let took = began.elapsed();
        assert!(took < Duration::from_secs(12), "reaped: {is_reaped}, {took:?}");
        stop.cancel();
    }
    shutdown.drain();
    assert!(tasks.join(SOON).await);
}

#[tokio::test]
async fn a_server_that_fails_is_asked_again_and_one_that_wants_rest_gets_it() {
    let s = Setting::new(Way::Service).await;
    let sick = "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n";
    let (url, asked) = answering(sick).await;
    let bus = remote(&url, &s.hub.token());
    let error = bus.publish(echo(json!(1))).await.expect_err("sick");
    assert!(error.is_transient() && error.code() == Code::Unavailable, "{error:?}");
    assert_eq!(asked.load(Ordering::SeqCst), 4, "as often as over SQL");
    let error = bus.claim(&request("w", 1)).await.expect_err("sick");
    assert!(error.is_transient());
    assert_eq!(asked.load(Ordering::SeqCst), 5, "a claim is made once");
    let busy = "HTTP/1.1 429 Too Many\r\nretry-after: 30\r\ncontent-length: 0\r\n\r\n";
    let (url, asked) = answering(busy).await;
    let error = remote(&url, &s.hub.token()).publish(echo(json!(1))).await.expect_err("busy");
    assert!(error.is_transient(), "{error:?}");
    assert_eq!(asked.load(Ordering::SeqCst), 1, "it asked to be left alone");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable_at_once() {
    let s = Setting::new(Way::Service).await;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let error = remote(&url, &s.hub.token()).reap(1).await.expect_err("nobody there");
    assert!(error.is_transient(), "{error:?}");
    assert!(error.to_string().contains("cannot be reached"), "{error}");
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up_and_then_only_knocked_at() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let (heard, mut hears) = tokio::sync::mpsc::unbounded_channel();
    Tasks::new().spawn(async move {
        let mut kept = Vec::new();
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = vec![0; 1024];
            let size = socket.read(&mut request).await.unwrap_or_default();
            let text = String::from_utf8_lossy(&request[..size]).into_owned();
            let _over = heard.send(text.split(' ').next().unwrap_or_default().to_owned());
            kept.push(socket);
        }
    });
    let key = "eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoic2VydmljZV9yb2xlIiwiZXhwIjoxfQ.c2ln";
    let bus = remote(&url, key);
    for (asks, within, why) in [
        ("POST", 4, "it cannot be known"),
        ("HEAD", 2, "no claim is risked"),
        ("HEAD", 2, "nor the next one"),
    ] {
        let asking = async {
            let claimed = bus.claim(&request("w", 1)).await;
            (claimed.expect_err("silent"), tokio::time::Instant::now())
        };
        // Time is real until the question has arrived: a clock that runs ahead would overtake it.
        let hearing = async {
            assert_eq!(hears.recv().await.as_deref(), Some(asks), "{why}");
            tokio::time::pause();
            tokio::time::Instant::now()
        };
        let ((error, ended), arrived) = tokio::join!(asking, hearing);
        tokio::time::resume();
        let says = format!("within {within} s");
        assert!(error.is_transient() && error.to_string().contains(&says), "{error}");
        let most = Duration::from_millis(within * 1000 + 100);
        assert!(ended - arrived <= most, "{:?}", ended - arrived);
    }
}

/// Hosted Supabase's gateway knows the project's own keys alone, and PostgREST behind it goes by the bearer.
#[tokio::test]
async fn the_key_of_the_project_goes_to_the_gateway_and_the_workers_own_behind_it() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let (heard, mut hears) = tokio::sync::mpsc::unbounded_channel();
    Tasks::new().spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = vec![0; 4096];
            let size = socket.read(&mut request).await.unwrap_or_default();
            let _over = heard.send(String::from_utf8_lossy(&request[..size]).into_owned());
            let refusal = b"HTTP/1.1 503 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            let _over = socket.write_all(refusal).await;
        }
    });
    let key = "eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoic2VydmljZV9yb2xlIiwiZXhwIjoxfQ.c2ln";
    let net = net::Options { proxy: net::Proxy::None, ..net::Options::default() };
    let api_key = Some("sb_publishable_p".into());
    let options = rest::Options { url, key: Key::Text(key.into()), api_key, net };
    let bus = Bus::remote(options).expect("good options");
    let _armed = bus.waker(cogo::bus::Signal::Log);
    let _refused = bus.claim(&request("w", 1)).await.expect_err("503");
    let (mut called, mut connected) = (false, false);
    while !(called && connected) {
        let request = tokio::time::timeout(SOON, hears.recv()).await.expect("in time");
        let request = request.expect("open");
        if request.starts_with("POST ") {
            called = true;
            assert!(request.contains("\r\napikey: sb_publishable_p\r\n"), "{request}");
            assert!(request.contains(&format!("\r\nauthorization: Bearer {key}\r\n")), "{request}");
        } else {
            connected = true;
            assert!(request.starts_with("GET /realtime/v1/websocket?"), "{request}");
            assert!(request.contains("apikey=sb_publishable_p"), "{request}");
        }
    }
}

#[tokio::test]
async fn a_worker_whose_key_is_replaced_in_its_file_goes_on() {
    let s = Setting::new(Way::Service).await;
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("key");
    let soon_over = s.hub.key(Role::ServiceRole, |claims| {
        // Past its end, and within what the hub forgives for a few seconds more.
        claims.exp -= 3600 + cogo::identity::LEEWAY_S - 3;
    });
    std::fs::write(&file, soon_over).expect("written");
    let net = net::Options { proxy: net::Proxy::None, ..net::Options::default() };
    let options =
        rest::Options { url: s.hub.url(), key: Key::File(file.clone()), api_key: None, net };
    let bus = Bus::remote(options).expect("good options");
    let (shutdown, tasks) = (Shutdown::new(), Tasks::new());
    let (ready, mut is_ready) = watch::channel(false);
    let (runner, stop) = (runner(&bus, "default", "echo/default", "w"), shutdown.clone());
    tasks.spawn(async move { runner.run(&stop, &ready).await.expect("it outlives its key") });
    let claims = is_ready.wait_for(|ready| *ready);
    tokio::time::timeout(SOON, claims).await.expect("in time").expect("running");
    eventually("the key is refused", async || {
        let refused = bus.reap(1).await.is_err_and(|error| error.code() == Code::Unauthorized);
        refused.then_some(())
    })
    .await;
    std::fs::write(&file, s.hub.token()).expect("replaced");
    let id = s.admin.publish(echo(json!(1))).await.expect("published").id;
    eventually("the worker goes on", async || {
        let message = s.admin.message(id).await.expect("found");
        message.status.is_final().then_some(())
    })
    .await;
    shutdown.drain();
    assert!(tasks.join(SOON).await);
}
