use super::*;

const ROUTES: [Route; 3] = [
    Route { path: "/a/{*rest}", method: "GET" },
    Route { path: "/a/{*rest}", method: "PUT" },
    Route { path: "/b", method: "*" },
];

fn merged(fragments: &[&'static str]) -> Result<Value, Vec<String>> {
    let named: Vec<_> =
        fragments.iter().map(|json| Fragment { name: "planted.json", json }).collect();
    let components = crate::hub::openapi::FRAGMENTS[0];
    document(&[named, vec![components]].concat(), &ROUTES, false)
}

const GET: &str = r#"{"paths": {"/a/{rest}": {"get": {"operationId": "getA", "summary": "a", "tags": [],
    "responses": {"200": {"description": "x"}, "503": {"description": "ours"}}}}}}"#;

#[test]
fn what_is_served_is_described_and_what_is_not_described_is_told() {
    let put = r#"{"paths": {"/a/{rest}": {"put": {"operationId": "putA", "summary": "a", "tags": [], "security": [],
        "requestBody": {}, "responses": {}}},
        "/not/here": {"get": {"operationId": "x", "summary": "x", "tags": [], "responses": {}}}}}"#;
    let document = merged(&[GET, put]).expect("they fit");
    let paths: Vec<_> = document["paths"].as_object().expect("paths").keys().collect();
    assert_eq!(paths, ["/a/{rest}"]);
    assert_eq!(document["x-undescribed"], json!(["* /b"]));
    let statuses = |method: &str| -> Vec<String> {
        let responses = document["paths"]["/a/{rest}"][method]["responses"].as_object();
        responses.expect("responses").keys().cloned().collect()
    };
    assert_eq!(statuses("get"), ["200", "400", "401", "403", "429", "431", "500", "503", "504"]);
    // Public, and with a body.
    assert_eq!(statuses("put"), ["400", "403", "413", "415", "429", "431", "500", "503", "504"]);
    let own = &document["paths"]["/a/{rest}"]["get"]["responses"]["503"];
    assert_eq!(own["description"], "ours");
}

#[test]
fn reads_are_described_as_open_where_they_are() {
    let components = crate::hub::openapi::FRAGMENTS[0];
    let get = Fragment { name: "planted.json", json: GET };
    let security = |open| {
        let document = document(&[get, components], &ROUTES, open).expect("they fit");
        document["paths"]["/a/{rest}"]["get"].get("security").cloned()
    };
    assert_eq!(security(false), None);
    assert_eq!(security(true).expect("said")[0], json!({}));
}

#[test]
fn what_does_not_fit_together_is_told_by_name() {
    let other = r#"{"components": {"schemas": {"Error": {}}}}"#;
    let lost = r##"{"components": {"schemas": {"A": {"items": {"$ref": "#/components/schemas/Absent"}}}}}"##;
    let bare = r#"{"paths": {"/b": {"get": {}}}}"#;
    for (fragments, said) in [
        (&[GET, GET][..], "planted.json: get /a/{rest}: is described twice"),
        (&[GET, GET], "operationId getA is that of get /a/{rest}"),
        (&[other], "components.schemas.Error: is described twice"),
        (&[lost], "$ref #/components/schemas/Absent: leads nowhere"),
        (&[bare], "planted.json: get /b: has no operationId"),
        (&["{"], "planted.json: EOF"),
        (&[r#"{"servers": []}"#], "planted.json: servers: is no part of a fragment"),
    ] {
        let problems = merged(fragments).expect_err(said);
        assert!(problems.iter().any(|problem| problem.contains(said)), "{said}: {problems:?}");
    }
}

#[test]
fn every_fragment_beside_the_module_is_in_the_document() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/hub/openapi");
    let files =
        std::fs::read_dir(dir).expect("the directory").map(|entry| entry.expect("one").path());
    let mut names: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|end| end == "json"))
        .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    let mut listed: Vec<_> = crate::hub::openapi::FRAGMENTS.iter().map(|f| f.name).collect();
    listed.sort_unstable();
    assert_eq!(listed, names, "FRAGMENTS of src/hub/openapi.rs is to have each of them once");
}
