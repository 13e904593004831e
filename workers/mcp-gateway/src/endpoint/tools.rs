//! `tools/list`, and which tool a name means.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::asked::Asked;
use super::rpc::{Answer, RpcError};
use super::{Endpoint, Inner};
use crate::catalogue::Offer;
use crate::config::SEPARATOR;
use crate::platform;

/// How many tools a page has at most.
const PAGE_TOOLS: usize = 200;
/// How large a page is at most, in bytes; a tool that is larger is a page by itself.
const PAGE_BYTES: usize = 512 * 1024;
/// What a cursor begins with: it is the name that the page before ended with.
const CURSOR: &str = "after:";

impl Endpoint {
    /// One page of the tools that the caller may call, sorted by name, as their servers described them.
    pub(super) async fn list_tools(&self, asked: &Asked, params: Map<String, Value>) -> Answer {
        let after = match params.get("cursor") {
            None | Some(Value::Null) => None,
            Some(Value::String(cursor)) => match cursor.strip_prefix(CURSOR) {
                Some(name) => Some(name),
                None => return Err(RpcError::invalid("cursor", "is none that was given out here")),
            },
            Some(_) => return Err(RpcError::invalid("cursor", "must be a string")),
        };
        let mut tools = self.offered(asked).await?;
        tools.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut page: Vec<Value> = Vec::new();
        let mut bytes = 0;
        for (name, definition) in
            tools.into_iter().filter(|(name, _)| after.is_none_or(|after| name.as_str() > after))
        {
            let mut definition = Value::clone(&definition);
            definition["name"] = json!(name);
            bytes += definition.to_string().len();
            if page.len() == PAGE_TOOLS || (bytes > PAGE_BYTES && !page.is_empty()) {
                let last = page.last().and_then(|tool| tool["name"].as_str());
                let cursor = last.map(|name| format!("{CURSOR}{name}"));
                return Ok(listed(asked, page, cursor));
            }
            page.push(definition);
        }
        Ok(listed(asked, page, None))
    }

    /// What the caller is offered, by the names that it calls it.
    async fn offered(&self, asked: &Asked) -> Result<Vec<(String, Arc<Value>)>, RpcError> {
        let inner: &Inner = &self.0;
        let only = asked.toolset.as_deref();
        let offers = inner.mesh.tools(&asked.who, only).await?;
        let name = |offer: &Offer| match only {
            Some(_) => offer.tool.clone(),
            None => offer.name(),
        };
        let mut all: Vec<_> =
            offers.iter().map(|offer| (name(offer), Arc::clone(&offer.definition))).collect();
        if only.is_none_or(|only| only == platform::TOOLSET) {
            all.extend(platform::tools(&asked.who).into_iter().map(|definition| {
                let tool = definition["name"].as_str().unwrap_or_default();
                let name = match only {
                    Some(_) => tool.to_owned(),
                    None => format!("{}{SEPARATOR}{tool}", platform::TOOLSET),
                };
                (name, Arc::new(definition))
            }));
        }
        Ok(all)
    }

    /// The toolset and the tool that a name means.
    pub(super) async fn named(
        &self,
        asked: &Asked,
        name: &str,
    ) -> Result<(String, String, Option<Arc<Offer>>), RpcError> {
        let snapshot = self.0.mesh.catalogue().snapshot(asked.who.tenant()).await;
        let snapshot = snapshot.map_err(|error| RpcError::of_bus(&error))?;
        if let Some(toolset) = &asked.toolset {
            let offer = snapshot.get(toolset, name).cloned();
            return Ok((toolset.to_string(), name.to_owned(), offer));
        }
        // A toolset's own name may have the separator in it: the first reading that there is counts.
        let readings = name.match_indices(SEPARATOR);
        for (at, _) in readings {
            let (toolset, tool) = (&name[..at], &name[at + SEPARATOR.len()..]);
            if let Some(offer) = snapshot.get(toolset, tool) {
                return Ok((toolset.to_owned(), tool.to_owned(), Some(offer.clone())));
            }
        }
        let (toolset, tool) = name.split_once(SEPARATOR).unwrap_or(("", name));
        Ok((toolset.to_owned(), tool.to_owned(), None))
    }
}

fn listed(asked: &Asked, tools: Vec<Value>, cursor: Option<String>) -> Value {
    let mut result = json!({ "tools": tools });
    if let Some(cursor) = cursor {
        result["nextCursor"] = json!(cursor);
    }
    if asked.client.modern {
        result["resultType"] = json!("complete");
        // Whoever wants to know of changes is told of them; how long nothing changes, nobody knows.
        result["ttlMs"] = json!(0);
        result["cacheScope"] = json!("private");
    }
    result
}
