//! The table of routes in docs/api.md is that of the description.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use crate::hub::Hub;

const BEGIN: &str = "<!-- routes: `just docs-api` writes what follows -->\n";
const END: &str = "<!-- routes: end -->\n";

#[test]
fn the_table_of_routes_is_that_of_the_description() {
    let table = table(&Hub::start().description());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/api.md");
    let text = std::fs::read_to_string(&path).expect("docs/api.md").replace("\r\n", "\n");
    let (before, rest) = text.split_once(BEGIN).expect("docs/api.md says where the table begins");
    let (found, after) = rest.split_once(END).expect("docs/api.md says where the table ends");
    if std::env::var_os("COGO_REGENERATE").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}")).expect("docs/api.md");
        return;
    }
    assert_eq!(found, table, "docs/api.md is stale: run `just docs-api`");
}

fn table(document: &Value) -> String {
    let mut table = String::new();
    let tags = document["tags"].as_array().expect("tags");
    for tag in tags.iter().filter_map(|tag| tag["name"].as_str()) {
        let mut rows = String::new();
        for (path, item) in document["paths"].as_object().expect("paths") {
            for (method, operation) in item.as_object().expect("methods") {
                if operation["tags"][0] == tag {
                    let statuses: Vec<_> = operation["responses"]
                        .as_object()
                        .expect("responses")
                        .keys()
                        .cloned()
                        .collect();
                    let _infallible = writeln!(
                        rows,
                        "| `{} {path}` | {} | {} | {} |",
                        method.to_uppercase(),
                        operation["summary"].as_str().expect("a summary"),
                        who(method, operation),
                        own(&statuses)
                    );
                }
            }
        }
        if !rows.is_empty() {
            let head = "| route | what | who | answers |\n|---|---|---|---|\n";
            let _infallible = write!(table, "\n### {tag}\n\n{head}{rows}");
        }
    }
    table + "\n"
}

fn who(method: &str, operation: &Value) -> &'static str {
    match (operation.get("security"), method) {
        (Some(ways), _) if ways.as_array().is_some_and(Vec::is_empty) => "anybody",
        (Some(_), _) => "admin or key",
        (None, "get") => "reader",
        (None, _) => "admin",
    }
}

/// The statuses that say something of this route; the others may come of any.
fn own(statuses: &[String]) -> String {
    const ANY: [&str; 10] = ["400", "401", "403", "413", "415", "429", "431", "500", "503", "504"];
    let own: Vec<_> =
        statuses.iter().map(String::as_str).filter(|status| !ANY.contains(status)).collect();
    own.join(", ")
}
