//! Dead letters over HTTP: list, show, requeue and drop, by id and by filter.

use anyhow::{Context, Result};
use cogo::bus::Settle;
use cogo::message::{MessageId, NewMessage};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::hub::{TestHub, topic};

impl TestHub {
    async fn dead(&self, class: &str) -> Result<MessageId> {
        let id = self.publish().await?;
        let claim = self.claim(1).await?.pop().context("a claim")?;
        let error = json!({"class": class, "message": "no"});
        let meta = json!({"artifacts": format!("mcp/here/{id}"), "duration_ms": 5});
        let end = Settle::fail(claim.message(), error, None, Some("not_retried"), meta);
        self.bus.settle(end).await?;
        Ok(id)
    }

    async fn listed(&self, query: &str) -> Result<Value> {
        Ok(self.get(&format!("/api/dead-letters{query}")).await?.json()?["messages"].clone())
    }
}

#[tokio::test]
async fn dead_letters_are_listed_and_brought_back() -> Result<()> {
    let hub = TestHub::new().await?;
    let id = hub.dead("permanent").await?;
    let trace = hub.bus.message(id).await?.trace_id;
    let all = format!(
        "?tenant=default&role=hub-test&service=here&intent=echo.say&class=permanent\
         &reason=not_retried&trace_id={trace}&since=2026-01-01T00:00:00Z\
         &until=2999-01-01T00:00:00%2B01:00&limit=1"
    );
    for query in ["", &all] {
        let listed = hub.listed(query).await?;
        assert_eq!(listed[0]["id"], json!(id), "{query}");
        assert_eq!(listed[0]["reason"], "not_retried");
        assert_eq!(listed[0]["class"], "permanent");
        assert_eq!(listed[0]["error"]["message"], "no");
        assert_eq!(listed[0]["artifacts"], json!([format!("mcp/here/{id}")]));
    }
    assert_eq!(hub.listed("?class=transient").await?, json!([]));
    assert_eq!(hub.listed("?until=2026-01-01T00:00:00Z").await?, json!([]));

    let unknown = Uuid::now_v7();
    let body = json!({"ids": [id, unknown], "reason": "mended"}).to_string();
    let answer = hub.post("/api/dead-letters/requeue", body).await?.json()?;
    let results = json!([
        {"id": id, "outcome": "requeued"},
        {"id": unknown, "outcome": "not_found"},
    ]);
    assert_eq!(answer["results"], results);
    let answer = hub.get(&format!("/api/messages/{id}")).await?.json()?;
    assert_eq!(answer["message"]["status"], "queued");
    let last = answer["events"].as_array().and_then(|events| events.last()).context("events")?;
    assert_eq!(
        (&last["event_type"], &last["reason"]),
        (&json!("echo_say_requeued"), &json!("mended"))
    );
    Ok(())
}

#[tokio::test]
async fn a_list_of_large_ones_ends_at_a_bound_and_says_so() -> Result<()> {
    let hub = TestHub::new().await?;
    let mut ids = Vec::new();
    for _ in 0..7 {
        let payload = json!({"text": "x".repeat(3 << 20)});
        ids.push(hub.bus.publish(NewMessage::new(&topic()?, "echo.say", payload)).await?.id);
        let claim = hub.claim(1).await?.pop().context("a claim")?;
        claim.fail(json!({"class": "permanent", "message": "no"}), None).await?;
    }
    ids.reverse();
    for (query, count, truncated) in
        [("", 6, true), ("?limit=7", 6, true), ("?limit=6", 6, false), ("?limit=1", 1, false)]
    {
        let answer = hub.get(&format!("/api/dead-letters{query}")).await?;
        assert!(answer.text.len() < 20 << 20, "{query}: {} bytes", answer.text.len());
        let answer = answer.json()?;
        let listed = answer["messages"].as_array().context("messages")?;
        let listed: Vec<_> = listed.iter().map(|letter| letter["id"].clone()).collect();
        let wanted: Vec<_> = ids.iter().take(count).map(|id| json!(id)).collect();
        assert_eq!((listed, &answer["truncated"]), (wanted, &json!(truncated)), "{query}");
    }
    // None is too large to be told at all.
    let one = hub.get("/api/dead-letters?limit=1").await?.json()?;
    assert_eq!(one["messages"][0]["payload"]["text"].as_str().map(str::len), Some(3 << 20));
    Ok(())
}

#[tokio::test]
async fn one_is_shown_with_its_attempts_across_a_requeue_with_new_params() -> Result<()> {
    let hub = TestHub::new().await?;
    let id = hub.dead("timeout").await?;
    let path = format!("/api/dead-letters/{id}");
    let body = json!({"ids": [id], "params": {"a": 1}, "max_attempts": 1}).to_string();
    hub.post("/api/dead-letters/requeue", body).await?.json()?;
    let gone = hub.get(&path).await?.error(404, "not_found")?;
    assert!(gone.contains("is queued"), "{gone}");
    let claim = hub.claim(1).await?.pop().context("a claim")?;
    assert_eq!(claim.message().payload, json!({"text": "hello", "params": {"a": 1}}));
    claim.fail(json!({"class": "timeout", "message": "still not"}), None).await?;

    let shown = hub.get(&path).await?.json()?["message"].clone();
    let steps: Vec<_> = shown["history"].as_array().context("a history")?.iter().collect();
    let what: Vec<_> = steps.iter().map(|step| step["what"].as_str().unwrap_or_default()).collect();
    let wanted = ["attempt", "dead_lettered", "requeued", "attempt", "dead_lettered"];
    assert_eq!(what, wanted, "{shown}");
    assert_eq!((&steps[0]["attempt"], &steps[0]["duration_ms"]), (&json!(1), &json!(5)));
    assert_eq!(steps[0]["worker_id"], "a-worker");
    assert_eq!(steps[2]["previous"]["event"], steps[1]["event"]);
    assert_eq!(steps[2]["changed"], true);
    assert_eq!(steps[3]["message"], "still not");
    assert_eq!((&shown["reason"], &shown["attempts"]), (&json!("not_retried"), &json!(1)));
    hub.get(&format!("/api/dead-letters/{}", Uuid::now_v7())).await?.error(404, "not_found")?;
    Ok(())
}

#[tokio::test]
async fn what_fits_a_filter_is_requeued_or_dropped_up_to_a_limit() -> Result<()> {
    let hub = TestHub::new().await?;
    let mut ids = Vec::new();
    for class in ["timeout", "timeout", "timeout", "connect"] {
        ids.push(hub.dead(class).await?);
    }
    let body = json!({"filter": {"class": "timeout"}, "max": 2}).to_string();
    let answer = hub.post("/api/dead-letters/requeue", body).await?.json()?;
    let results = json!([
        {"id": ids[2], "outcome": "requeued"},
        {"id": ids[1], "outcome": "requeued"},
    ]);
    assert_eq!((&answer["results"], &answer["more"]), (&results, &json!(true)));
    let body = json!({"filter": {"class": "timeout"}, "confirm": true}).to_string();
    let answer = hub.post("/api/dead-letters/drop", body).await?.json()?;
    let results = json!([{"id": ids[0], "outcome": "dropped"}]);
    assert_eq!((&answer["results"], &answer["more"]), (&results, &json!(false)));
    hub.get(&format!("/api/messages/{}", ids[0])).await?.error(404, "not_found")?;
    let body = json!({"ids": [ids[3], ids[2]], "confirm": true, "reason": "old"}).to_string();
    let answer = hub.post("/api/dead-letters/drop", body).await?.json()?;
    let results = json!([
        {"id": ids[3], "outcome": "dropped"},
        {"id": ids[2], "outcome": "not_allowed"},
    ]);
    assert_eq!(answer["results"], results);
    assert_eq!(hub.listed("").await?, json!([]));
    Ok(())
}

#[tokio::test]
async fn a_payload_without_a_place_for_params_is_told_and_left_alone() -> Result<()> {
    let hub = TestHub::new().await?;
    let id = hub.dead("timeout").await?;
    let post = async |body: Value| {
        let path = "/api/dead-letters/requeue";
        anyhow::Ok(hub.post(path, body.to_string()).await?.json()?["results"][0]["outcome"].clone())
    };
    assert_eq!(post(json!({"ids": [id], "payload": null})).await?, "requeued");
    let claim = hub.claim(1).await?.pop().context("a claim")?;
    assert_eq!(claim.message().payload, Value::Null);
    claim.fail(json!({"class": "timeout", "message": "no"}), None).await?;
    let written = hub.written().await?;
    assert_eq!(post(json!({"ids": [id], "params": {}})).await?, "no_place_for_params");
    assert_eq!(hub.written().await?, written);
    assert_eq!(hub.listed("").await?[0]["id"], json!(id));
    Ok(())
}

#[tokio::test]
async fn a_bad_call_names_its_field_and_changes_nothing() -> Result<()> {
    let hub = TestHub::new().await?;
    let id = hub.dead("timeout").await?;
    let before = hub.written().await?;
    let both = ["requeue", "drop"];
    for (calls, body, part) in [
        (&both[..], json!({"confirm": true}), "confirm"),
        (&both, json!({}), "ids: either ids or a filter"),
        (&both, json!({"ids": [id], "filter": {}}), "filter: must not stand beside ids"),
        (&both, json!({"ids": [id], "max": 1}), "max: goes with a filter"),
        (&both, json!({"ids": [id, id]}), "ids[1]: stands twice"),
        (&both, json!({"ids": ["x"]}), "ids[0]: "),
        (&both, json!({"ids": []}), "ids: must be 1 to 1000"),
        (&both, json!({"filter": {}, "max": 0}), "max: must be from 1 to 10000"),
        (&both, json!({"filter": {}, "max": 10_001}), "max: must be from 1 to 10000"),
        (&both, json!({"filter": {"role": "a b"}}), "filter.role: must be "),
        (&both, json!({"filter": {"colour": 1}}), "filter.colour: unknown field"),
        (&both, json!({"filter": {"since": "now"}}), "filter.since: "),
        (&both[..1], json!({"ids": [id], "params": [1]}), "params: "),
        (&both[..1], json!({"ids": [id], "params": "x"}), "params: "),
        (&both[..1], json!({"ids": [id], "params": {}, "payload": 1}), "params: must not stand"),
        (&both[..1], json!({"ids": [id], "params": {"a": "\0"}}), "params: must not hold"),
        (&both[..1], json!({"ids": [id], "payload": "\0"}), "payload: must not hold"),
        (&both[..1], json!({"ids": [id], "max_attempts": 0}), "max_attempts: must be from 1"),
        (&both[..1], json!({"ids": [id], "max_attempts": "2"}), "max_attempts: "),
        (&both[..1], json!({"ids": [id], "reason": "x".repeat(201)}), "reason: must be at most"),
        (&both[1..], json!({"ids": [id]}), "confirm: must be true"),
        (&both[1..], json!({"ids": [id], "confirm": false}), "confirm: must be true"),
        (&both[1..], json!({"ids": [id], "confirm": "yes"}), "confirm: "),
        (&both[1..], json!({"ids": [id], "confirm": true, "params": {}}), "params: unknown field"),
    ] {
        for call in calls {
            let answer = hub.post(&format!("/api/dead-letters/{call}"), body.to_string()).await?;
            let message = answer.error(400, "invalid_argument")?;
            if part != "confirm" {
                assert!(message.contains(part), "{call} {body}: {message}");
            }
        }
    }
    assert_eq!(hub.written().await?, before);
    Ok(())
}
