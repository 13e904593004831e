//! Claiming and settling.

use std::time::Duration;

use cogo::breaker::Id;
use cogo::bus::circuit::CircuitAction;
use cogo::bus::{ClaimRequest, Error, Settle, Settled};
use cogo::error::Code;
use cogo::message::{Message, Status};
use serde_json::{Value, json};

use super::setting::Setting;
use crate::fixtures::{echo, request};

const LEASE: Duration = Duration::from_secs(30);

async fn one(s: &Setting, worker: &str) -> std::sync::Arc<Message> {
    let mut claims = s.bus.claim(&request(worker, 1)).await.expect("claimed");
    claims.pop().expect("there is one").into_message()
}

fn done(message: &Message, result: Value) -> Settle {
    Settle::complete(message, result, json!({"note": "kept"}))
}

pub(super) async fn a_claim_is_one_workers_alone(s: Setting) {
    let id = s.bus.publish(echo(json!(1))).await.expect("published").id;
    let message = one(&s, "w").await;
    assert_eq!((message.id, message.status, message.attempts), (id, Status::Claimed, 1));
    assert_eq!(message.claimed_by.as_deref(), Some("w"));
    assert!(s.bus.claim(&request("w.2", 5)).await.expect("asked").is_empty());
    assert_eq!(*message, s.admin.message(id).await.expect("found"));
    let settled = s.bus.settle(done(&message, json!({"ok": true}))).await.expect("settled");
    assert_eq!(settled, Settled::Settled);
    let message = s.bus.message(id).await.expect("found");
    assert_eq!((message.status, message.result), (Status::Done, Some(json!({"ok": true}))));
}

pub(super) async fn a_lease_that_ran_out_is_claimed_by_another_and_the_first_settle_is_stale(
    s: Setting,
) {
    s.db.freeze_time().await;
    let id = s.bus.publish(echo(json!(1))).await.expect("published").id;
    let first = one(&s, "w").await;
    s.later(LEASE + Duration::from_secs(1)).await;
    let message = s.bus.message(id).await.expect("found");
    if message.status == Status::Delayed {
        s.later(Duration::from_secs(3600)).await;
    }
    let second = one(&s, "w.2").await;
    assert!(second.claim_no > first.claim_no);
    let outcomes = s.bus.step(&[done(&first, json!(1))], &request("w", 0)).await.expect("told");
    assert_eq!(outcomes.outcomes, [Settled::Stale]);
    assert_eq!(s.bus.settle(done(&second, json!(2))).await.expect("told"), Settled::Settled);
    assert_eq!(s.bus.message(id).await.expect("found").result, Some(json!(2)));
}

pub(super) async fn a_settle_that_is_sent_again_is_told_as_repeated(s: Setting) {
    s.bus.publish(echo(json!(1))).await.expect("published");
    let settle = done(&*one(&s, "w").await, json!("once"));
    assert_eq!(s.bus.settle(settle.clone()).await.expect("told"), Settled::Settled);
    assert_eq!(s.bus.settle(settle).await.expect("told"), Settled::Repeated);
}

pub(super) async fn a_settle_whose_answer_was_lost_is_done_once(s: Setting) {
    let id = s.bus.publish(echo(json!(1))).await.expect("published").id;
    s.bus.publish(echo(json!(2))).await.expect("published");
    let (bus, proxy) = s.through_a_proxy().await;
    let (first, second) = (one(&s, "w").await, one(&s, "w").await);
    bus.settle(done(&second, json!("to warm up"))).await.expect("settled");
    proxy.lose_the_next_answer(&bus).await;
    assert_eq!(bus.settle(done(&first, json!(1))).await.expect("told"), Settled::Repeated);
    assert!(proxy.lost_one(), "the answer was to be lost");
    let events = s.bus.message_events(id, 100).await.expect("read");
    let succeeded = events.iter().filter(|event| event.event_type == "echo_succeeded");
    assert_eq!(succeeded.count(), 1);
}

pub(super) async fn a_claim_whose_answer_was_lost_is_not_made_again_by_itself(s: Setting) {
    s.db.freeze_time().await;
    let (bus, proxy) = s.through_a_proxy().await;
    bus.claim(&request("w", 1)).await.expect("asked, to warm up");
    for n in 0..2 {
        s.bus.publish(echo(json!(n))).await.expect("published");
    }
    proxy.lose_the_next_answer(&bus).await;
    let error = bus.claim(&request("w", 1)).await.expect_err("nobody knows");
    assert!(proxy.lost_one() && error.is_transient(), "{error:?}");
    let claimed = async || {
        let sql = "select count(*) from agent_messages where status = 'claimed'";
        sqlx::query_scalar::<_, i64>(sql).fetch_one(s.db.pool()).await.expect("counted")
    };
    assert_eq!(claimed().await, 1, "one claim was made, and one only");
    // The way is open again, and what was lost comes back with its lease.
    assert_eq!(bus.claim(&request("w", 5)).await.expect("claimed").len(), 1);
    s.later(LEASE + Duration::from_secs(1)).await;
    s.later(Duration::from_secs(3600)).await;
    assert_eq!(claimed().await, 0);
}

pub(super) async fn a_lease_that_is_extended_holds_and_a_stale_one_is_told(s: Setting) {
    s.db.freeze_time().await;
    for n in 0..2 {
        s.bus.publish(echo(json!(n))).await.expect("published");
    }
    let (kept, lost) = (one(&s, "w").await, one(&s, "w").await);
    s.db.advance(LEASE - Duration::from_secs(1)).await;
    let id = |message: &Message| (message.id, message.claim_no);
    assert_eq!(s.bus.extend(&[id(&kept)], LEASE).await.expect("extended"), []);
    s.later(Duration::from_secs(2)).await;
    let stale = s.bus.extend(&[id(&kept), id(&lost)], LEASE).await.expect("told");
    assert_eq!(stale, [id(&lost)]);
    assert_eq!(s.bus.message(kept.id).await.expect("found").status, Status::Claimed);
}

pub(super) async fn a_failure_with_a_delay_comes_back_when_it_is_due(s: Setting) {
    s.db.freeze_time().await;
    let id = s.bus.publish(echo(json!(1))).await.expect("published").id;
    let message = one(&s, "w").await;
    let retry_in = Some(Duration::from_secs(10));
    let error = json!({"class": "unavailable", "message": "not now"});
    let settle = Settle::fail(&message, error.clone(), retry_in, None, json!({}));
    assert_eq!(s.bus.settle(settle).await.expect("told"), Settled::Settled);
    let message = s.bus.message(id).await.expect("found");
    assert_eq!((message.status, message.error), (Status::Delayed, Some(error)));
    assert!(s.bus.claim(&request("w", 1)).await.expect("asked").is_empty());
    s.later(Duration::from_secs(11)).await;
    assert_eq!(one(&s, "w").await.attempts, 2);
}

pub(super) async fn a_delayed_message_waits_until_it_is_due(s: Setting) {
    s.db.freeze_time().await;
    let message = echo(json!(1)).with_delay(Duration::from_secs(60));
    let id = s.bus.publish(message).await.expect("published").id;
    let reaped = s.bus.reap(10).await.expect("reaped");
    assert_eq!((reaped.promoted, reaped.expired), (0, 0));
    assert!(reaped.next_due_ms.is_none_or(|ms| (1..=60_000).contains(&ms)), "{reaped:?}");
    assert!(s.bus.claim(&request("w", 1)).await.expect("asked").is_empty());
    s.later(Duration::from_secs(61)).await;
    assert_eq!(one(&s, "w").await.id, id);
}

pub(super) async fn messages_of_an_ordering_key_go_one_after_the_other(s: Setting) {
    for n in 0..3 {
        s.bus.publish(echo(json!(n)).with_ordering_key("k")).await.expect("published");
    }
    for n in 0..3 {
        let claims = s.bus.claim(&request("w", 5)).await.expect("claimed");
        assert_eq!(claims.len(), 1, "one is under way");
        assert_eq!(claims[0].message().payload, json!(n));
        for claim in claims {
            claim.complete(json!(null)).await.expect("settled");
        }
    }
}

pub(super) async fn what_is_parked_for_a_breaker_goes_on_when_it_closes(s: Setting) {
    let circuit = Id::new("default", "echo.default");
    s.admin.circuit_set(&circuit, CircuitAction::Open(None), None, None).await.expect("opened");
    let id = s.bus.publish(echo(json!(1))).await.expect("published").id;
    let message = one(&s, "w").await;
    let settled = s.bus.settle(Settle::park(&message, &circuit.key)).await.expect("told");
    assert_eq!(settled, Settled::Settled);
    let parked = s.bus.message(id).await.expect("found");
    assert_eq!(parked.parked_for.as_deref(), Some("circuit:echo.default"));
    assert_eq!(parked.attempts, 0, "it was not tried");
    assert!(s.bus.claim(&request("w", 1)).await.expect("asked").is_empty());
    s.admin.circuit_set(&circuit, CircuitAction::Close, None, None).await.expect("closed");
    s.bus.reap(10).await.expect("reaped");
    assert_eq!(one(&s, "w").await.id, id);
}

pub(super) async fn a_payload_that_cannot_be_read_is_a_dead_letter_and_holds_nobody_up(s: Setting) {
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    for payload in [deep.as_str(), "1e400"] {
        sqlx::query(
            "select * from bus_enqueue(jsonb_build_array(jsonb_build_object(
                'role', 'echo', 'service', 'default', 'intent', 'echo', 'payload', $1::jsonb)))",
        )
        .bind(payload)
        .execute(s.db.pool())
        .await
        .expect("Postgres can store it");
    }
    // It says of itself what is said of the others.
    let honest = json!({"unreadable": "so I say"});
    let good = s.bus.publish(echo(honest.clone())).await.expect("published").id;
    let claims = s.bus.claim(&request("w", 5)).await.expect("claimed");
    assert_eq!(claims.len(), 1);
    assert_eq!((claims[0].message().id, &claims[0].message().payload), (good, &honest));
    let dead = s.admin.dead_letters(&Default::default(), 10).await.expect("listed");
    assert_eq!(dead.len(), 2);
    for letter in dead {
        assert_eq!(letter.reason.as_deref(), Some("unreadable"));
        let seen = s.bus.message(letter.message.id).await.expect("the rest of it can be read");
        assert!(seen.payload["unreadable"].is_string());
        assert_eq!(seen, letter.message);
    }
}

pub(super) async fn many_large_results_are_settled_with_one_call(s: Setting) {
    for n in 0..9 {
        s.bus.publish(echo(json!(n))).await.expect("published");
    }
    let claims = s.bus.claim(&request("w", 9)).await.expect("claimed");
    let result = json!("x".repeat(1024 * 1024));
    let settles: Vec<_> = claims.iter().map(|c| done(c.message(), result.clone())).collect();
    let step = s.bus.step(&settles, &request("w", 1)).await.expect("settled");
    assert_eq!(step.outcomes, [Settled::Settled; 9]);
    assert!(step.claims.is_empty());
    for claim in claims {
        assert!(
            s.bus.message(claim.message().id).await.expect("found").result == Some(result.clone())
        );
    }
}

pub(super) async fn a_claim_with_bad_arguments_names_the_argument(s: Setting) {
    for (wrong, argument) in [
        (ClaimRequest { worker: String::new(), ..request("w", 1) }, "worker"),
        (ClaimRequest { lease: Duration::ZERO, ..request("w", 1) }, "lease_ms"),
        (ClaimRequest { max: 1_000_000, ..request("w", 1) }, "max"),
    ] {
        let error = s.bus.claim(&wrong).await.expect_err(argument);
        assert!(matches!(error, Error::Refused { .. }), "{error:?}");
        assert!(
            matches!(error.code(), Code::InvalidArgument | Code::Forbidden),
            "{argument}: {error:?}"
        );
        assert!(error.to_string().contains(argument), "{argument}: {error}");
    }
}
