//! Publishing.

use std::time::Duration;

use cogo::bus::{Error, Limits, TopicLimit};
use cogo::error::Code;
use cogo::message::{MessageId, Status, Topic, TraceId};
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::setting::Setting;
use crate::fixtures::{count, echo, request, topic};

pub(super) async fn a_message_is_there_as_it_was_sent(s: Setting) {
    let payload = json!({
        "text": "ünïcödé \u{1f600} \"quoted\" \\ \n", "big": u64::MAX, "small": i64::MIN,
        "half": 0.5, "nested": {"a": [1, null, true, {}]}, "empty": "",
    });
    let (trace, parent) = (TraceId::new(), s.bus.publish(echo(json!(0))).await.expect("sent").id);
    let mut message = echo(payload.clone())
        .with_trace(trace)
        .with_priority(-7)
        .with_max_attempts(3)
        .with_idempotency_key("a key / with ? & signs")
        .with_deadline(Duration::from_secs(3600))
        .with_ordering_key("in line");
    message.parent_id = Some(parent);
    message.shard = 5;
    let receipt = s.bus.publish(message.clone()).await.expect("published");
    assert_eq!((receipt.id, receipt.trace_id, receipt.duplicate), (message.id, trace, false));
    let found = s.bus.message(message.id).await.expect("found");
    assert_eq!(found, s.admin.message(message.id).await.expect("found"));
    assert_eq!((found.payload, found.status), (payload, Status::Queued));
    assert_eq!((found.priority, found.shard, found.max_attempts), (-7, 5, 3));
    let nothing = s.bus.message(MessageId::new()).await;
    assert!(matches!(nothing, Err(Error::NoMessage(_))), "{nothing:?}");
}

pub(super) async fn the_same_idempotency_key_gives_the_same_message(s: Setting) {
    let first = s.bus.publish(echo(json!(1)).with_idempotency_key("k")).await.expect("published");
    let again = s.bus.publish(echo(json!(2)).with_idempotency_key("k")).await.expect("answered");
    assert_eq!((again.id, again.duplicate), (first.id, true));
    assert_eq!(count(&s.db, "agent_messages").await, 1);
}

pub(super) async fn a_batch_is_answered_in_its_order(s: Setting) {
    let known = s.bus.publish(echo(json!(0)).with_idempotency_key("k")).await.expect("published");
    let mut batch: Vec<_> = (1..=50).map(|n| echo(json!(n))).collect();
    batch[20] = echo(json!("again")).with_idempotency_key("k");
    let receipts = s.bus.publish_all(&batch).await.expect("published");
    for (at, (message, receipt)) in batch.iter().zip(&receipts).enumerate() {
        let expected = if at == 20 { (known.id, true) } else { (message.id, false) };
        assert_eq!((receipt.id, receipt.duplicate), expected, "{at}");
    }
    assert_eq!(s.bus.publish_all(&[]).await.expect("nothing to do"), []);
}

pub(super) async fn a_batch_of_which_one_is_refused_writes_nothing(s: Setting) {
    let mut batch: Vec<_> = (1..=5).map(|n| echo(json!(n))).collect();
    batch[3].deadline_ms = Some(0); // which only the database checks
    let error = s.bus.publish_all(&batch).await.expect_err("refused");
    assert_eq!(error.code(), Code::InvalidArgument, "{error:?}");
    assert!(error.to_string().contains("messages[3].deadline_ms"), "{error}");
    assert_eq!(count(&s.db, "agent_messages").await, 0);
    assert_eq!(count(&s.db, "bus_events").await, 0);
}

pub(super) async fn concurrent_publishes_are_each_answered_and_a_bad_one_fails_alone(s: Setting) {
    let messages = (0..60).map(|n| {
        let mut message = echo(json!(n));
        if n == 30 {
            message.deadline_ms = Some(0);
        }
        message
    });
    let sent = join_all(messages.map(|message| s.bus.publish(message))).await;
    for (n, receipt) in sent.iter().enumerate() {
        match receipt {
            Ok(receipt) => assert!(!receipt.duplicate && n != 30),
            Err(error) => assert_eq!((n, error.code()), (30, Code::InvalidArgument), "{error:?}"),
        }
    }
    assert_eq!(count(&s.db, "agent_messages").await, 59);
}

pub(super) async fn a_publish_whose_answer_was_lost_is_there_once_and_no_duplicate(s: Setting) {
    let (bus, proxy) = s.through_a_proxy().await;
    bus.publish(echo(json!("to warm up"))).await.expect("published");
    proxy.lose_the_next_answer(&bus).await;
    let receipt = bus.publish(echo(json!("lost"))).await.expect("published all the same");
    assert!(proxy.lost_one(), "the answer was to be lost");
    assert!(!receipt.duplicate, "it is its sender's own");
    assert_eq!(count(&s.db, "agent_messages").await, 2);
}

pub(super) async fn a_queue_that_is_full_says_when_to_try_again(s: Setting) {
    let mut limits = Limits::default();
    limits.topics.insert(topic().to_string(), TopicLimit { max_queued: Some(3) });
    s.admin.set_limits(&limits).await.expect("set");
    for n in 0..3 {
        s.bus.publish(echo(json!(n))).await.expect("there is room");
    }
    let error = s.bus.publish(echo(json!(3))).await.expect_err("full");
    let Error::Full { message, retry_after } = &error else { panic!("{error:?}") };
    assert!(message.contains("echo/default"), "{message}");
    assert!(*retry_after >= Duration::from_millis(1) && *retry_after <= Duration::from_secs(60));
    assert!(!error.is_transient());
    assert_eq!(count(&s.db, "agent_messages").await, 3);
}

fn megabyte(n: usize) -> Value {
    json!({"n": n, "text": "é".repeat(512 * 1024)})
}

pub(super) async fn megabytes_go_through_alone_and_many_at_once(s: Setting) {
    let ids = join_all((0..12).map(|n| s.bus.publish(echo(megabyte(n))))).await;
    let ids: Vec<MessageId> = ids.into_iter().map(|sent| sent.expect("published").id).collect();
    let claims = s.bus.claim(&request("w", 12)).await.expect("claimed");
    assert_eq!(claims.len(), 12);
    for claim in &claims {
        let n = ids.iter().position(|id| *id == claim.message().id).expect("one of them");
        assert!(claim.message().payload == megabyte(n), "message {n} came as it went");
    }
}

pub(super) async fn a_payload_over_the_limit_fails_alone(s: Setting) {
    let huge = json!("x".repeat(cogo::bus::MAX_PAYLOAD_BYTES + 1));
    let sent = join_all([json!(1), huge, json!(3)].map(|p| s.bus.publish(echo(p)))).await;
    assert!(sent[0].is_ok() && sent[2].is_ok(), "{sent:?}");
    let error = sent[1].as_ref().expect_err("too large");
    assert_eq!(error.code(), Code::PayloadTooLarge, "{error:?}");
    assert_eq!(count(&s.db, "agent_messages").await, 2);
}

pub(super) async fn what_is_cancelled_is_not_claimed(s: Setting) {
    let id = s.bus.publish(echo(json!(1))).await.expect("published").id;
    let other = cogo::message::NewMessage::new(
        &Topic::new("echo", "other").expect("a topic"),
        "echo",
        json!(2),
    );
    let other = s.bus.publish(other).await.expect("published").id;
    let cancelled = s.bus.cancel(&[id, MessageId::new()], Some("not needed")).await.expect("told");
    assert_eq!(cancelled[0].1, cogo::bus::dead_letter::Operated::Done);
    assert_eq!(cancelled[1].1, cogo::bus::dead_letter::Operated::NotFound);
    assert!(s.bus.claim(&request("w", 5)).await.expect("asked").is_empty());
    assert_eq!(s.bus.message(id).await.expect("found").status, Status::Cancelled);
    assert_eq!(s.bus.message(other).await.expect("found").status, Status::Queued);
}
