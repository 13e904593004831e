//! What the real clients sent, replayed: `tests/fixtures/rest/requests.json` has the requests of
//! supabase-js 2.109 and 2.49 and of supabase-py 2.34 and 2.15. Their tables were others; columns are renamed
//! to ours where a request is to be understood.

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::json;

use crate::hub::TestHub;
use crate::hub::rest::{Sent, published, service};

#[derive(Debug, Deserialize)]
struct Recorded {
    client: String,
    scenario: String,
    method: String,
    path: String,
    query: String,
    headers: Vec<(String, String)>,
    body: Option<String>,
}

fn recorded() -> Result<Vec<Recorded>> {
    let text = include_str!("../../../fixtures/rest/requests.json");
    Ok(serde_json::from_str(text)?)
}

impl Recorded {
    async fn send(&self, hub: &TestHub, path: &str) -> Result<crate::hub::Answer> {
        let key = service();
        let mut sent = Sent::get(path, &key).method(&self.method);
        for (name, value) in &self.headers {
            sent = sent.header(name, value);
        }
        sent.body = self.body.clone();
        // The recording has its own content type.
        if sent.body.is_some() {
            sent.headers.retain(|(name, _)| *name != "content-type");
        }
        sent.to(hub).await
    }

    fn says(&self, name: &str, part: &str) -> bool {
        self.headers.iter().any(|(header, value)| header == name && value.contains(part))
    }

    /// The query with columns of ours; parameters of others are left out.
    fn with_columns(&self, columns: &[(&str, &str)]) -> String {
        let ours =
            |name: &str| columns.iter().find(|(theirs, _)| *theirs == name).map(|(_, ours)| *ours);
        let list = |value: &str| {
            let one = |item: &str| {
                let end = item.find(['.', '-', '%']).unwrap_or(item.len());
                let (name, rest) = item.split_at(end);
                match (name, ours(name)) {
                    ("*" | "", _) => Some(item.to_owned()),
                    (_, Some(ours)) => Some(format!("{ours}{rest}")),
                    (_, None) if rest.starts_with("%3A") => Some(item.to_owned()),
                    _ => None,
                }
            };
            value.split("%2C").filter_map(one).collect::<Vec<_>>().join("%2C")
        };
        let pair = |(name, value): (&str, &str)| match name {
            "select" | "order" => Some(format!("{name}={}", list(value))),
            "limit" | "offset" => Some(format!("{name}={value}")),
            "or" => Some(format!(
                "or={}",
                value.replace("%28r.", "%28attempts.").replace("%2Cs.", "%2Cpriority.")
            )),
            _ => {
                let end = name.find("-%3E").unwrap_or(name.len());
                let (column, path) = name.split_at(end);
                Some(format!("{}{path}={value}", ours(column)?))
            }
        };
        self.query
            .split('&')
            .filter_map(|text| text.split_once('='))
            .filter_map(pair)
            .collect::<Vec<_>>()
            .join("&")
    }
}

#[tokio::test]
async fn what_is_not_of_the_bus_is_refused_in_postgrests_words() -> Result<()> {
    let hub = TestHub::new().await?;
    let mut seen = 0;
    for request in recorded()? {
        let path = format!("{}?{}", request.path, request.query);
        let answer = request.send(&hub, &path).await?;
        let name = request.path.rsplit('/').next().context("a name")?;
        let writes = !matches!(request.method.as_str(), "GET" | "HEAD");
        let profile = if writes { "content-profile" } else { "accept-profile" };
        let wanted = if request.says(profile, "bus") {
            (406, "PGRST106")
        } else if request.says("prefer", "handling=strict") && name != "t" {
            (400, "PGRST122")
        } else if request.path.contains("/rpc/") {
            (404, "PGRST202")
        } else if name != "agent_messages" {
            (404, "PGRST205")
        } else if writes {
            (405, "PGRST117")
        } else {
            continue;
        };
        seen += 1;
        if request.method == "HEAD" {
            assert_eq!(answer.status.as_u16(), wanted.0, "{request:?}");
            continue;
        }
        answer.refusal(wanted.0, wanted.1).with_context(|| format!("{request:?}"))?;
    }
    assert!(seen > 40, "{seen} requests of the recordings were replayed");
    Ok(())
}

#[tokio::test]
async fn every_read_of_either_client_is_understood() -> Result<()> {
    let hub = TestHub::new().await?;
    published(&hub, 15).await?;
    let worker = json!({"worker": {"id": "m", "tenant": "acme", "role": "r", "topics": ["r/m"]}});
    Sent::post("/rest/v1/rpc/bus_worker_seen", &service(), worker).to(&hub).await?;
    let messages = &[
        ("id", "id"),
        ("status", "status"),
        ("payload", "payload"),
        ("priority", "priority"),
        ("created_at", "created_at"),
        ("to_agent", "claimed_by"),
        ("meta", "payload"),
        ("ok", "done_at"),
        ("a", "attempts"),
        ("b", "priority"),
        ("c", "shard"),
        ("d", "max_attempts"),
        ("e", "claim_no"),
        ("f", "status"),
        ("g", "role"),
        ("h", "done_at"),
        ("i", "service"),
        ("j", "payload"),
        ("p", "tenant"),
        ("w", "shard"),
        ("x", "intent"),
        ("username", "tenant"),
        ("tenant_id", "tenant"),
    ];
    let (mut seen, object) = (0, "application/vnd.pgrst.object+json");
    for request in recorded()? {
        let reads =
            matches!(request.method.as_str(), "GET" | "HEAD") && !request.path.contains("/rpc/");
        if !reads || request.says("accept-profile", "bus") {
            continue;
        }
        let (scenario, mut query) = (request.scenario.as_str(), request.with_columns(messages));
        let wanted = match scenario {
            "rest_explain" => (406, "PGRST107"),
            "rest_select_embedded" => {
                query = request.query.clone();
                (400, "PGRST200")
            }
            // An id that is a number is none of ours; and what is no boolean is not true.
            _ if query.contains("id=eq.1") => (400, "22P02"),
            "rest_select_is_true_and_json_path" => (400, "42804"),
            "rest_select_textsearch_csv" => {
                query = request.query.replace("body", "payload");
                (400, "PGRST100")
            }
            _ if request.says("accept", object) => (406, "PGRST116"),
            _ => (200, ""),
        };
        let answer = request.send(&hub, &format!("/rest/v1/agent_messages?{query}")).await?;
        seen += 1;
        if wanted.0 == 200 {
            let good = matches!(answer.status.as_u16(), 200 | 206);
            assert!(good, "{} {scenario} {query}: {answer:?}", request.client);
        } else {
            answer
                .refusal(wanted.0, wanted.1)
                .with_context(|| format!("{query} of {request:?}"))?;
        }
        if scenario == "rest_select_filters_all" {
            let arrays = request.with_columns(&[("l", "topics"), ("n", "topics"), ("u", "topics")]);
            let arrays = arrays
                .split('&')
                .filter(|pair| !pair.starts_with("or="))
                .collect::<Vec<_>>()
                .join("&");
            let answer = request.send(&hub, &format!("/rest/v1/workers?{arrays}")).await?;
            assert_eq!(
                (answer.status.as_u16(), answer.text.as_str()),
                (200, "[]"),
                "{arrays}: {answer:?}"
            );
        }
    }
    assert!(seen > 25, "{seen} requests of the recordings were replayed");
    Ok(())
}
