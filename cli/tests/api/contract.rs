//! Every route is described, and everything that is described is a route.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::hub::Hub;

/// Protocols with documents of their own.
const PROTOCOLS: [&str; 3] = ["/rest/v1", "/realtime/v1", "/mcp"];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every fragment that lies in the repository: those of the library, and those of roles.
fn fragments() -> Vec<(PathBuf, Value)> {
    let mut found = Vec::new();
    let mut left = vec![repository().join("src/hub/openapi"), repository().join("workers")];
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(&dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let is_fragment = name.ends_with(".json")
                && (dir.ends_with("openapi") || name.starts_with("openapi"));
            if path.is_dir() {
                left.push(path);
            } else if is_fragment {
                let text = std::fs::read_to_string(&path).expect("a file");
                let json = serde_json::from_str(&text)
                    .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                found.push((path, json));
            }
        }
    }
    found
}

fn operations(document: &Value) -> BTreeSet<String> {
    let paths = document["paths"].as_object().into_iter().flatten();
    let of = |(path, item): (&String, &Value)| {
        let methods: Vec<_> =
            item.as_object().into_iter().flat_map(|item| item.keys()).cloned().collect();
        methods
            .into_iter()
            .map(|method| format!("{} {path}", method.to_uppercase()))
            .collect::<Vec<_>>()
    };
    paths.flat_map(of).collect()
}

#[test]
fn every_route_is_described_and_everything_described_is_a_route() {
    let hub = Hub::start();
    let document = hub.description();
    let served = operations(&document);
    let is_protocol = |route: &&str| {
        let path = route.split(' ').nth(1).unwrap_or_default();
        let below = |root: &&str| {
            path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        PROTOCOLS.iter().any(below)
    };
    let undescribed = document["x-undescribed"].as_array().expect("a list").iter();
    let undescribed: Vec<&str> =
        undescribed.filter_map(Value::as_str).filter(|route| !is_protocol(route)).collect();
    assert!(
        undescribed.is_empty(),
        "these routes are served and no fragment describes them; add them to src/hub/openapi/<area>.json (listed in \
         FRAGMENTS of src/hub/openapi.rs) or to what their role describes:\n  {}",
        undescribed.join("\n  ")
    );
    let mut lost = Vec::new();
    for (path, fragment) in fragments() {
        let missing =
            operations(&fragment).into_iter().filter(|operation| !served.contains(operation));
        lost.extend(missing.map(|operation| format!("{operation}  ({})", path.display())));
    }
    assert!(
        lost.is_empty(),
        "these are described and the hub does not serve them, or their fragment is not in FRAGMENTS of \
         src/hub/openapi.rs:\n  {}",
        lost.join("\n  ")
    );
}
