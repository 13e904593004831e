use std::path::{Path, PathBuf};

use cogo::breaker;
use cogo::bus::Limits;
use cogo::config::{self, Error, File, Source, Worker};
use cogo::hub;
use cogo::retry::Policies;

fn configs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("configs")
}

fn no_variables(dir: Option<PathBuf>) -> Source {
    Source::with_variables(dir, [])
}

fn written(name: &str, text: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(dir.path().join(name), text).expect("a file");
    dir
}

fn refusal<T: File + std::fmt::Debug>(text: &str) -> String {
    let dir = written(T::NAME, text);
    let source = no_variables(Some(dir.path().to_owned()));
    let error = source.load::<T>().expect_err("refused").to_string();
    error.replace(&format!("{}/", dir.path().display()), "")
}

#[test]
fn the_schemas_in_the_repository_are_those_of_the_types() {
    for (name, schema) in config::schemas() {
        let path = configs().join("schema").join(name);
        let wanted = format!("{:#}\n", schema.to_value());
        if std::env::var_os("COGO_REGENERATE").is_some() {
            std::fs::write(&path, &wanted).expect("a schema can be written");
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default().replace("\r\n", "\n");
        assert_eq!(found, wanted, "{} is stale: run COGO_REGENERATE=1 cargo test", path.display());
    }
}

#[test]
fn every_file_in_the_repository_loads_and_names_its_schema() {
    let source = no_variables(Some(configs()));
    let policies: Policies = source.load().expect("a good retry_policy.json");
    let breakers: breaker::Policies = source.load().expect("a good circuit_breaker.json");
    let worker: Worker = source.load().expect("a good worker.json");
    let hub_options: hub::Options = source.load().expect("a good hub.json");
    let limits: Limits = source.load().expect("a good limits.json");
    let routes: hub::Policies = source.load().expect("a good route_policies.json");
    let schemas = [
        (hub::Policies::NAME, routes.schema.clone()),
        (Limits::NAME, limits.schema.clone()),
        (Policies::NAME, policies.schema.clone()),
        (breaker::Policies::NAME, breakers.schema.clone()),
        (Worker::NAME, worker.schema.clone()),
        (hub::Options::NAME, hub_options.schema.clone()),
    ];
    for (name, schema) in schemas {
        assert_eq!(schema, Some(format!("schema/{}", config::schema_file(name))));
    }
    assert_eq!(Worker { schema: None, ..worker }, Worker::default(), "shown as they are built in");
    assert_eq!(hub::Options { schema: None, ..hub_options }, hub::Options::default());
    assert_eq!(Limits { schema: None, ..limits }, Limits::default());
    assert_eq!(hub::Policies { schema: None, ..routes }, hub::Policies::default());
    let browser = policies.resolve("mcp.call.browser.get_title.0");
    assert_eq!((browser.max_attempts, browser.timeout_ms), (4, 120_000));
    assert_eq!(breakers.resolve("other"), breaker::Policy::default(), "shown as it is built in");
    let figma = breakers.resolve("mcp.call.figma.get_document_info.0");
    assert_eq!((figma.min_requests, figma.open_ms), (5, 60_000));
}

#[test]
fn limits_and_tenants_are_checked_by_field() {
    let limit = "{\n  \"tenants\": {\n    \"a\": { \"max_queued\": 0 }\n  }\n}";
    let text = refusal::<Limits>(limit);
    assert!(text.starts_with("limits.json:3: tenants.a.max_queued: must be from 1"), "{text}");
    let text = refusal::<Limits>("{\"topics\": {\"r/s\": {\"weight\": 1}}}");
    assert!(text.contains("topics.r/s.weight: unknown field `weight`"), "{text}");
    let text = refusal::<Worker>("{\"tenant\": \"a*\"}");
    assert!(text.starts_with("worker.json:1: tenant: must be `*` or 1 to 64"), "{text}");
    let dir = written(Worker::NAME, "{\"tenant\": \"*\"}");
    let source = no_variables(Some(dir.path().to_owned()));
    assert_eq!(source.load::<Worker>().expect("all tenants").tenant, "*");
    assert!(
        source.has::<Worker>() && !source.has::<Limits>() && !no_variables(None).has::<Worker>()
    );
}

#[test]
fn a_missing_file_means_defaults() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for dir in [None, Some(dir.path().to_owned()), Some(dir.path().join("missing"))] {
        assert_eq!(no_variables(dir).load::<Worker>().expect("defaults"), Worker::default());
    }
}

#[test]
fn a_bad_file_is_refused_by_line_field_and_rule() {
    assert_eq!(
        refusal::<Worker>("{\n  \"concurrency\": \"many\"\n}"),
        "worker.json:2:23: concurrency: invalid type: string \"many\", expected usize"
    );
    let unknown = refusal::<Worker>("{\n  \"concurency\": 3\n}");
    assert!(
        unknown.starts_with("worker.json:2:14: concurency: unknown field `concurency`"),
        "{unknown}"
    );
    assert_eq!(
        refusal::<Worker>("{\"lease_ms\": 1}"),
        "worker.json:1: lease_ms: must be from 1000 to 3600000 (an hour)"
    );
    assert_eq!(refusal::<Worker>("{} {}"), "worker.json:1:4: trailing characters");
    let policy = "{\"policies\": {\"echo\": {\"retry_on\": [\"connect\", \"weather\"]}}}";
    let unknown = refusal::<Policies>(policy);
    assert!(
        unknown.starts_with(
            "retry_policy.json:1:56: policies.echo.retry_on[1]: unknown variant `weather`"
        ),
        "{unknown}"
    );
}

#[test]
fn variables_go_over_the_file_and_are_checked_like_it() {
    let dir = written(Worker::NAME, "{\"concurrency\": 2, \"drain_ms\": 5}");
    let load = |name: &str, value: &str| {
        let variable = (name.to_owned(), value.to_owned());
        Source::with_variables(Some(dir.path().to_owned()), [variable]).load::<Worker>()
    };
    let worker = load("COGO_WORKER_CONCURRENCY", "7").expect("a good variable");
    assert_eq!((worker.concurrency, worker.drain_ms, worker.lease_ms), (7, 5, 30_000));
    for (name, value) in [
        ("COGO_WORKER_CONCURRENCY", "0"),
        ("COGO_WORKER_CONCURRENCY", "many"),
        ("COGO_WORKER_CONCURENCY", "1"),
    ] {
        let error = load(name, value).expect_err("refused");
        assert!(matches!(&error, Error::Variable { name: told, .. } if told == name), "{error}");
    }
}

#[test]
fn a_route_policy_is_refused_by_its_entry() {
    let entry = |methods: &str, path: &str, who: &str| {
        format!("{{\"methods\": [{methods}], \"path\": \"{path}\", \"who\": \"{who}\"}}")
    };
    let file = |entries: &[String]| format!("{{\"routes\": [\n{}]}}", entries.join(",\n"));
    let good = entry("\"GET\"", "/a", "public");
    for (bad, place, rule) in [
        (
            entry("\"GET\"", "/b", "anyone"),
            "routes[1].who: ",
            "must be public, reader, token, admin",
        ),
        (entry("\"GET\"", "/b/*", "admin"), "routes[1].path: ", "one entry for each route"),
        (entry("\"FETCH\"", "/b", "admin"), "routes[1].methods[0]: ", "unknown variant `FETCH`"),
        (entry("", "/b", "admin"), "routes[1].methods: ", "must name a method"),
        (good.clone(), "routes[1].methods: ", "covered by routes[0] already"),
    ] {
        let text = refusal::<hub::Policies>(&file(&[good.clone(), bad]));
        assert!(text.starts_with("route_policies.json:3"), "{text}");
        assert!(text.contains(place) && text.contains(rule), "{text}");
    }
    assert!(refusal::<hub::Policies>("{}").contains("missing field `routes`"));
    let nobody = written(hub::Policies::NAME, "{\"routes\": []}");
    let policies: hub::Policies =
        no_variables(Some(nobody.path().to_owned())).load().expect("a file that lets nobody in");
    assert_eq!(policies.routes, []);
}

#[test]
fn the_variable_for_writes_has_a_name_of_its_own() {
    let load = |value: &str| {
        let variable = ("REQUIRE_ADMIN_FOR_NON_GET".to_owned(), value.to_owned());
        Source::with_variables(None, [variable]).load::<hub::Options>()
    };
    assert!(no_variables(None).load::<hub::Options>().expect("defaults").require_admin_for_non_get);
    assert!(load("true").expect("a good variable").require_admin_for_non_get);
    assert!(!load("false").expect("a good variable").require_admin_for_non_get);
    for bad in ["", "no", "0"] {
        let error = load(bad).expect_err(bad).to_string();
        assert!(
            error.starts_with("REQUIRE_ADMIN_FOR_NON_GET: ") && error.contains("boolean"),
            "{error}"
        );
    }
}
