//! What a bucket alone can do wrong: keys, names, silence, and troubles that pass.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cogo::artifact::options::S3;
use cogo::artifact::s3::Keys;
use cogo::artifact::{Error, Limits, OCTETS};
use cogo::clock::Stopwatch;
use cogo::error::Code;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use super::setting::{KEY, Setting, bucket, free_port, s3};

async fn refusal(options: &S3, key: (&str, &str)) -> (Code, String) {
    let store = bucket(options, key, Limits::default());
    let error = store.check().await.expect_err("refused");
    let put = store.put("acme", b"x".to_vec(), OCTETS).await.expect_err("refused as well");
    assert_eq!(put.code(), error.code(), "{put}");
    (error.code(), error.to_string())
}

#[tokio::test]
async fn what_is_wrong_is_told_by_its_setting_and_secrets_are_not() {
    let s = Setting::bucket().await;
    let good = s3(s.port());
    for (options, key, code, field) in [
        (good.clone(), ("nobody", KEY.1), Code::Forbidden, "COGO_S3_ACCESS_KEY_ID: "),
        (good.clone(), (KEY.0, "hunter2"), Code::Forbidden, "COGO_S3_SECRET_ACCESS_KEY: "),
        (
            S3 { bucket: "absent".to_owned(), ..good.clone() },
            KEY,
            Code::NotFound,
            "artifacts.s3.bucket: ",
        ),
    ] {
        let (found, told) = refusal(&options, key).await;
        assert_eq!(found, code, "{told}");
        assert!(told.starts_with(field), "{told}");
        assert!(!told.contains("hunter2") && !told.contains(KEY.1), "{told}");
        assert!(!told.contains("X-Amz-Signature"), "{told}");
    }
    for (id, secret, field) in [
        (None, Some(KEY.1), "COGO_S3_ACCESS_KEY_ID"),
        (Some(KEY.0), None, "COGO_S3_SECRET_ACCESS_KEY"),
        (Some(" "), Some(KEY.1), "COGO_S3_ACCESS_KEY_ID"),
    ] {
        let refused = Keys::new(id.map(Into::into), secret.map(Into::into)).expect_err(field);
        assert!(refused.to_string().starts_with(field), "{refused}");
    }
    let keys = Keys::new(Some(KEY.0.into()), Some("hunter2".into())).expect("keys");
    let shown = format!("{keys:?} {:?}", s.store);
    assert!(!shown.contains("hunter2") && !shown.contains(KEY.1), "{shown}");
}

#[tokio::test]
async fn nobody_there_is_a_trouble_of_the_moment_and_told_soon() {
    let watch = Stopwatch::start();
    let store = bucket(&s3(free_port()), KEY, Limits::default());
    let error = store.check().await.expect_err("nobody is there");
    assert!(
        error.is_transient() && error.to_string().starts_with("artifacts.s3.endpoint: "),
        "{error}"
    );
    assert!(watch.elapsed() < Duration::from_secs(10), "{:?}", watch.elapsed());
}

/// Before the server: answers the first requests with a trouble that passes, and then lets everything through.
async fn troubled(to: u16, troubles: u32) -> (u16, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let seen = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&seen);
    let tasks = cogo::shutdown::Tasks::new();
    tasks.spawn(async move {
        let inside = cogo::shutdown::Tasks::new();
        while let Ok((mut from, _)) = listener.accept().await {
            let number = count.fetch_add(1, Ordering::SeqCst);
            inside.spawn(async move {
                if number < troubles {
                    let mut head = vec![0; 16 * 1024];
                    let _ = from.read(&mut head).await;
                    let body = "<Error><Code>SlowDown</Code><Message>Slow down</Message></Error>";
                    let length = body.len();
                    let answer = format!(
                        "HTTP/1.1 503 Slow Down\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
                    );
                    let _ = from.write_all(answer.as_bytes()).await;
                } else if let Ok(mut to) = TcpStream::connect(("127.0.0.1", to)).await {
                    let _ = copy_bidirectional(&mut from, &mut to).await;
                }
            });
        }
    });
    (port, seen)
}

#[tokio::test]
async fn a_trouble_that_passes_is_waited_out_and_one_that_stays_is_told() {
    let s = Setting::bucket().await;
    let (port, _) = troubled(s.port(), 2).await;
    let store = bucket(&s3(port), KEY, Limits::default());
    let kept = store.put("acme", vec![5; 100_000], OCTETS).await.expect("kept at last");
    assert_eq!(s.store.get("acme", kept.sha256).await.expect("there").bytes.len(), 100_000);
    let (port, seen) = troubled(s.port(), u32::MAX).await;
    let error = bucket(&s3(port), KEY, Limits::default()).check().await.expect_err("troubled");
    assert_eq!((error.code(), error.is_transient()), (Code::Unavailable, true));
    assert!(error.to_string().contains("SlowDown"), "{error}");
    assert_eq!(seen.load(Ordering::SeqCst), 3, "tries are bounded");
}

#[tokio::test]
async fn what_others_keep_in_the_bucket_is_not_ours() {
    let s = Setting::bucket().await;
    let other = bucket(&S3 { prefix: "cogo".to_owned(), ..s3(s.port()) }, KEY, Limits::default());
    let kept = other.put("acme", b"x".to_vec(), OCTETS).await.expect("kept");
    let missing = s.store.get("acme", kept.sha256).await;
    assert!(matches!(missing, Err(Error::Missing { .. })), "{missing:?}");
    s.store.put("acme", b"y".to_vec(), OCTETS).await.expect("kept");
    // Below our prefix, and no artifact.
    let file = s.file(&cogo::artifact::Name::new("acme", kept.sha256));
    std::fs::write(file.with_file_name("notes.txt"), "mine").expect("written");
    for store in [&s.store, &other] {
        let (found, next) = store.list("", None, 10).await.expect("a list");
        assert_eq!((found.len(), next.is_none()), (1, true), "{found:?}");
    }
}
