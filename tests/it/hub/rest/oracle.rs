//! Statuses, codes and ranges, beside those of another server that works like PostgREST:
//! `tests/fixtures/rest/oracle.json` has what it answered to the same questions about twelve rows.

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::hub::TestHub;
use crate::hub::rest::{Sent, key, published, signed_by, worker_of};

#[derive(Debug, Deserialize)]
struct Answered {
    id: String,
    status: u16,
    code: Option<String>,
    content_range: Option<String>,
}

const OBJECT: (&str, &str) = ("accept", "application/vnd.pgrst.object+json");
const COUNT: (&str, &str) = ("prefer", "count=exact");

/// Method, path and headers.
type Question = (&'static str, &'static str, Vec<(&'static str, &'static str)>);

/// The question again, about twelve messages of ours whose priorities count from 0.
fn asked(id: &str) -> Option<Question> {
    let all = "agent_messages?select=id&order=id";
    Some(match id {
        "sel_cols" => (
            "GET",
            "agent_messages?select=id,status&role=eq.hub-test&order=priority.desc&limit=2",
            vec![],
        ),
        "sel_offset_limit" => {
            ("GET", "agent_messages?select=id&order=id&offset=10&limit=10", vec![])
        }
        "sel_count_exact" => {
            ("GET", "agent_messages?select=id&order=id&offset=0&limit=5", vec![COUNT])
        }
        "sel_count_full" => ("GET", all, vec![COUNT]),
        "sel_head_count" => ("HEAD", "agent_messages?select=*", vec![COUNT]),
        "sel_range_header" => ("GET", all, vec![("range-unit", "items"), ("range", "0-1")]),
        "sel_range_unsat" => ("GET", "agent_messages?select=id&offset=100&limit=5", vec![COUNT]),
        "sel_empty" => ("GET", "agent_messages?select=id&priority=eq.99", vec![]),
        "sel_single_ok" => ("GET", "agent_messages?select=*&priority=eq.1", vec![OBJECT]),
        "sel_single_0" => ("GET", "agent_messages?select=*&priority=eq.99", vec![OBJECT]),
        "sel_single_many" => ("GET", "agent_messages?select=*&priority=lt.2", vec![OBJECT]),
        "sel_in" => ("GET", "agent_messages?select=id&priority=in.(1,2,3)", vec![]),
        "sel_in_quoted" => {
            ("GET", "agent_messages?select=id&payload->>n=in.(\"1\",\"a,b\")", vec![])
        }
        "sel_not_in" => {
            ("GET", "agent_messages?select=id&priority=not.in.(0,1,2,3,4,5,6,7,8,9)", vec![])
        }
        "sel_or" => (
            "GET",
            "agent_messages?select=id&or=(priority.eq.1,and(status.eq.queued,priority.gt.10))",
            vec![],
        ),
        "sel_like" => ("GET", "agent_messages?select=id&role=like.h*&limit=2", vec![]),
        "sel_ilike" => ("GET", "agent_messages?select=id&role=ilike.%25H%25&limit=2", vec![]),
        "sel_json_path" => {
            ("GET", "agent_messages?select=id,payload->>of,v:payload->n&payload->>n=eq.3", vec![])
        }
        "sel_cs" => ("GET", "agent_messages?select=id&payload=cs.{\"n\":4}", vec![]),
        "sel_cast" => {
            ("GET", "agent_messages?select=id::text,claim_no,shard&priority=eq.1", vec![])
        }
        "sel_order_nulls" => (
            "GET",
            "agent_messages?select=id&order=idempotency_key.desc.nullslast,id.asc&limit=2",
            vec![],
        ),
        "err_no_table" => ("GET", "nope?select=*", vec![]),
        "err_filter_col" => ("GET", "agent_messages?nope=eq.1", vec![]),
        "err_bad_op" => ("GET", "agent_messages?id=foo.1", vec![]),
        "err_bad_type" => ("GET", "agent_messages?priority=eq.abc", vec![]),
        "err_bad_embed" => ("GET", "agent_messages?select=id,nope(id)", vec![]),
        "schema_bad" => ("GET", "agent_messages?select=id", vec![("accept-profile", "nope")]),
        "auth_expired" | "auth_badsig" | "auth_garbage" | "auth_anon_denied" => {
            ("GET", all, vec![])
        }
        "rpc_missing" => ("POST", "rpc/nope", vec![]),
        "rpc_wrong_arg" | "rpc_extra_arg" | "rpc_badtype" => ("POST", "rpc/bus_extend", vec![]),
        _ => return None,
    })
}

#[tokio::test]
async fn statuses_codes_and_ranges_are_those_of_a_server_like_postgrest() -> Result<()> {
    let hub = TestHub::new().await?;
    published(&hub, 12).await?;
    let answered: Vec<Answered> =
        serde_json::from_str(include_str!("../../../fixtures/rest/oracle.json"))?;
    for wanted in answered {
        let (method, path, headers) = asked(&wanted.id).with_context(|| wanted.id.clone())?;
        let claims = json!({"role": "service_role"});
        let token = match wanted.id.as_str() {
            "auth_expired" => key(json!({"role": "service_role", "exp": 1_000_000_000})),
            "auth_badsig" => signed_by("another-secret-of-at-least-32-bytes-length", claims),
            "auth_garbage" => "not.a.jwt".to_owned(),
            "auth_anon_denied" => key(json!({"role": "anon"})),
            _ => worker_of("acme"),
        };
        let path = format!("/rest/v1/{path}");
        let mut sent = Sent::get(&path, &token).method(method);
        sent.headers = headers;
        let args = match wanted.id.as_str() {
            "rpc_wrong_arg" => json!({"lease_ms": 1000}),
            "rpc_extra_arg" => json!({"claims": [], "lease_ms": 1000, "c": 3}),
            "rpc_badtype" => json!({"claims": [], "lease_ms": "x"}),
            _ => json!({}),
        };
        sent.body = (method == "POST").then(|| args.to_string());
        let answer = sent.to(&hub).await?;
        assert_eq!(answer.status.as_u16(), wanted.status, "{}: {answer:?}", wanted.id);
        if let Some(code) = &wanted.code {
            answer.refusal(wanted.status, code).context(wanted.id)?;
        } else {
            assert_eq!(
                Some(answer.header("content-range")),
                wanted.content_range.as_deref(),
                "{}",
                wanted.id
            );
            let is_json = method == "HEAD" || serde_json::from_str::<Value>(&answer.text).is_ok();
            assert!(is_json, "{answer:?}");
        }
    }
    Ok(())
}
