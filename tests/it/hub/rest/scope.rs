//! Whose rows, whose messages: as the token says, and by the database's word.

use anyhow::Result;
use cogo::hub::Options;
use serde_json::{Value, json};

use crate::hub::rest::{Sent, key, published, service, signed_by, worker_of};
use crate::hub::{Setup, TestHub};

#[tokio::test]
async fn tenants_never_see_each_other() -> Result<()> {
    let hub = TestHub::new().await?;
    published(&hub, 3).await?;
    for (own, other) in [("acme", "globex"), ("globex", "acme")] {
        let mine = worker_of(own);
        for path in ["agent_messages", "bus_events"] {
            let answer = Sent::get(&format!("/rest/v1/{path}"), &mine)
                .header("prefer", "count=exact")
                .to(&hub)
                .await?;
            assert_eq!(answer.header("content-range"), "0-2/3", "{answer:?}");
            assert!(answer.text.contains(own) && !answer.text.contains(other), "{answer:?}");
            for query in
                [format!("tenant=eq.{other}"), format!("or=(tenant.eq.{other},tenant.eq.{other})")]
            {
                let answer = Sent::get(&format!("/rest/v1/{path}?{query}"), &mine).to(&hub).await?;
                assert_eq!(answer.text, "[]");
            }
        }
        let claim = json!({"worker": "w", "topics": ["hub-test/here"], "tenant": other});
        let told = Sent::post("/rest/v1/rpc/bus_claim", &mine, claim).to(&hub).await?;
        let told = told.refusal(403, "CG403")?;
        assert!(told.contains(&format!("this token is for tenant \\\"{own}\\\"")), "{told}");
        let events = Sent::post("/rest/v1/rpc/bus_read_events", &mine, "{}").to(&hub).await?;
        assert!(events.text.contains(own) && !events.text.contains(other), "{events:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_key_reaches_no_further_than_its_claims() -> Result<()> {
    let hub = TestHub::new().await?;
    published(&hub, 1).await?;
    let claim = |worker: &str, topic: &str| json!({"worker": worker, "topics": [topic]});
    let acme = |more: Value| {
        let mut claims = json!({"role": "authenticated", "tenant": "acme"});
        if let (Some(all), Value::Object(more)) = (claims.as_object_mut(), more) {
            all.extend(more);
        }
        key(claims)
    };
    let good = json!({"worker": "w", "topics": ["hub-test/here"]});
    for (token, body, part) in [
        (acme(good.clone()), claim("w", "other/here"), "may not claim"),
        (acme(good.clone()), claim("w2", "hub-test/here"), "this token is for worker"),
        (
            acme(json!({"worker": "w", "send": ["hub-test/*"]})),
            claim("w", "hub-test/here"),
            "may not claim",
        ),
        (
            key(json!({"role": "authenticated", "topics": ["*"]})),
            claim("w", "hub-test/here"),
            "tenant",
        ),
    ] {
        let told = Sent::post("/rest/v1/rpc/bus_claim", &token, body)
            .to(&hub)
            .await?
            .refusal(403, "CG403")?;
        assert!(told.contains(part), "{told}");
    }
    for (function, code, words) in
        [("bus_requeue", "CG403", "--operate"), ("bus_drop", "42501", "bus_drop")]
    {
        let path = format!("/rest/v1/rpc/{function}");
        let operate =
            Sent::post(&path, &acme(good.clone()), json!({"messages": []})).to(&hub).await?;
        let told = operate.refusal(403, code)?;
        assert!(told.contains(words), "{told}");
    }
    let own = Sent::post("/rest/v1/rpc/bus_claim", &acme(good), claim("w.1", "hub-test/here"))
        .to(&hub)
        .await?;
    assert_eq!(own.json()?.as_array().map(Vec::len), Some(1));
    Ok(())
}

#[tokio::test]
async fn nobody_gets_anywhere_without_a_good_key() -> Result<()> {
    let hub = TestHub::new().await?;
    published(&hub, 1).await?;
    let claims = json!({"role": "service_role"});
    let foreign = signed_by("another-secret-of-at-least-32-bytes-length", claims.clone());
    let expired = key(json!({"role": "service_role", "exp": 1_000_000_000}));
    let nobody = key(json!({"role": "service_role"})).replace('.', "x");
    let (head, rest) =
        service().split_once('.').map(|(a, b)| (a.to_owned(), b.to_owned())).expect("parts");
    let _ = head;
    let unsigned = format!("eyJhbGciOiJub25lIn0.{rest}");
    let mut changed = service();
    changed.pop();
    for (token, code, part) in [
        ("", "PGRST302", "cogo token mint"),
        (foreign.as_str(), "PGRST301", "signature"),
        (expired.as_str(), "PGRST303", "expired"),
        (nobody.as_str(), "PGRST301", "no JSON Web Token"),
        (unsigned.as_str(), "PGRST301", "HS256"),
        (changed.as_str(), "PGRST301", "signature"),
        ("nonsense", "PGRST301", "no JSON Web Token"),
        ("sb_publishable_abc", "PGRST301", "sb_"),
        (crate::hub::TOKEN, "PGRST301", "no JSON Web Token"),
    ] {
        for path in ["/rest/v1/agent_messages", "/rest/v1/nope", "/rest/v1/rpc/bus_stats"] {
            let told = Sent::get(path, token).to(&hub).await?.refusal(401, code)?;
            assert!(told.contains(part), "{token}: {told}");
        }
        Sent::post("/rest/v1/rpc/bus_reap", token, "{}").to(&hub).await?.refusal(401, code)?;
    }
    let anon = key(json!({"role": "anon"}));
    for path in ["agent_messages", "bus_events", "workers", "rpc/bus_stats", "rpc/bus_log_end"] {
        Sent::get(&format!("/rest/v1/{path}"), &anon).to(&hub).await?.status.as_u16();
        let answer = Sent::get(&format!("/rest/v1/{path}"), &anon).to(&hub).await?;
        assert_eq!(
            (answer.status.as_u16(), answer.json()?["code"].as_str()),
            (401, Some("42501")),
            "{answer:?}"
        );
    }
    // The other way round: what is not below these paths does not take a caller's key.
    let answer = Sent::post("/api/dead-letters/requeue", &service(), "{}").to(&hub).await?;
    answer.error(401, "unauthorized")?;
    Ok(())
}

#[tokio::test]
async fn the_bearer_counts_unless_it_says_nothing() -> Result<()> {
    let hub = TestHub::new().await?;
    let (good, bad) = (service(), key(json!({"role": "anon"})));
    let path = "/rest/v1/rpc/bus_stats";
    let bearer = |token: &str| format!("Bearer {token}");
    for (headers, query, status) in [
        (vec![("authorization", bearer(&good))], String::new(), 200),
        (vec![("apikey", good.clone())], String::new(), 200),
        (vec![("x-api-key", good.clone())], String::new(), 200),
        (vec![], format!("?apikey={good}"), 200),
        (vec![("apikey", bad.clone()), ("authorization", bearer(&good))], String::new(), 200),
        (vec![("apikey", good.clone()), ("authorization", bearer(&bad))], String::new(), 401),
        (
            vec![("apikey", good.clone()), ("authorization", bearer("sb_publishable_x"))],
            String::new(),
            200,
        ),
        (
            vec![("apikey", "sb_publishable_x".to_owned()), ("authorization", bearer(&good))],
            String::new(),
            200,
        ),
        (
            vec![("apikey", good.clone()), ("authorization", "Basic eDp5".to_owned())],
            String::new(),
            200,
        ),
        (
            vec![("apikey", good.clone()), ("authorization", "Bearer ".to_owned())],
            String::new(),
            200,
        ),
        (vec![("apikey", good.clone()), ("apikey", bad.clone())], String::new(), 401),
        (
            vec![("authorization", bearer(&good)), ("authorization", bearer(&bad))],
            String::new(),
            401,
        ),
        (vec![], format!("?apikey={good}&apikey={bad}"), 401),
        (vec![("x-admin-token", crate::hub::TOKEN.to_owned())], String::new(), 401),
    ] {
        let path = format!("{path}{query}");
        let mut sent = Sent::get(&path, "");
        sent.headers = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = sent.to(&hub).await?;
        assert_eq!(answer.status.as_u16(), status, "{headers:?}{query}: {answer:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_page_of_a_stranger_is_refused_and_an_allowed_one_can_read() -> Result<()> {
    let options =
        Options { allowed_origins: vec!["https://app.example".to_owned()], ..Options::default() };
    let hub = TestHub::with(Setup { options, ..Setup::default() }).await?;
    let key = service();
    let path = "/rest/v1/agent_messages";
    let stranger = Sent::get(path, &key).header("origin", "https://evil.example").to(&hub).await?;
    assert!(stranger.refusal(403, "CG403")?.contains("allowed_origins"));
    assert_eq!(stranger.header("access-control-allow-origin"), "");
    let asked = |origin| {
        Sent::get(path, "")
            .method("OPTIONS")
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header(
                "access-control-request-headers",
                "apikey,authorization,content-profile,x-client-info",
            )
    };
    asked("https://evil.example").to(&hub).await?.refusal(403, "CG403")?;
    let preflight = asked("https://app.example").to(&hub).await?;
    assert_eq!(preflight.status, 204);
    assert_eq!(preflight.header("access-control-allow-origin"), "https://app.example");
    assert_eq!(preflight.header("access-control-allow-methods"), "GET, HEAD, POST, OPTIONS");
    assert!(preflight.header("access-control-allow-headers").contains("content-profile"));
    let read = Sent::get(path, &key).header("origin", "https://app.example").to(&hub).await?;
    assert_eq!((read.status.as_u16(), read.header("vary")), (200, "Origin"));
    assert!(read.header("access-control-expose-headers").contains("Content-Range"));
    // Errors can be read as well, or a page could not say what is wrong.
    let refused = Sent::get(path, "").header("origin", "https://app.example").to(&hub).await?;
    refused.refusal(401, "PGRST302")?;
    assert_eq!(refused.header("access-control-allow-origin"), "https://app.example");
    let own = Sent::get(path, &key).header("origin", "http://localhost:8787").to(&hub).await?;
    assert_eq!(own.status, 200);
    Ok(())
}
