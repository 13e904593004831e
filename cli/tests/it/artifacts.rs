//! `cogo artifact`: in a folder, without a hub or a database.

use crate::support::{Cogo, temp_dir, write};

fn cogo(dir: &std::path::Path) -> Cogo {
    Cogo::new().with("COGO_ARTIFACTS_DIR", dir.display().to_string())
}

#[test]
fn what_is_put_is_listed_and_got_again() {
    let dir = temp_dir();
    let cogo = cogo(dir.path());
    let picture = temp_dir();
    write(picture.path(), "a.png", "no real picture");
    let file = picture.path().join("a.png").display().to_string();
    let kept = cogo.json(&["artifact", "put", &file, "--tenant", "acme"]);
    assert_eq!((&kept["mime"], &kept["bytes"]), (&"image/png".into(), &15.into()), "{kept}");
    let uri = kept["uri"].as_str().expect("a URI");
    assert_eq!(cogo.ok(&["artifact", "put", &file, "--tenant", "acme"]).line(), uri);
    std::fs::create_dir_all(dir.path().join("mcp/demo/1")).expect("a directory");
    write(&dir.path().join("mcp/demo/1"), "summary.json", r#"{"tenant":"acme"}"#);
    let listed = cogo.json(&["artifact", "list", "--tenant", "acme"]);
    let names: Vec<_> =
        listed["artifacts"].as_array().expect("a list").iter().map(|a| &a["name"]).collect();
    assert_eq!(names, [&kept["name"], &"mcp/demo/1/summary.json".into()], "{listed}");
    for name in [uri, kept["name"].as_str().expect("a name")] {
        assert_eq!(cogo.ok(&["artifact", "get", name]).stdout, "no real picture");
    }
    assert_eq!(
        cogo.ok(&["artifact", "get", "mcp/demo/1/summary.json"]).stdout,
        r#"{"tenant":"acme"}"#
    );
    let out = picture.path().join("out").display().to_string();
    let got = cogo.json(&["artifact", "get", uri, "--out", &out]);
    assert_eq!((&got["sha256"], &got["tenant"]), (&kept["sha256"], &"acme".into()), "{got}");
    assert_eq!(std::fs::read_to_string(out).expect("a file"), "no real picture");
}

#[test]
fn what_is_no_name_or_not_there_is_refused() {
    let dir = temp_dir();
    write(dir.path(), ".secret", "secret");
    let cogo = cogo(dir.path());
    for bad in [
        "../x",
        "mcp/../../x",
        "/etc/passwd",
        ".secret",
        "cogo://artifacts/../x",
        "blobs/acme/x",
        "mcp/",
    ] {
        cogo.run(&["artifact", "get", bad]).refused(2, &["is no name of an artifact"]);
    }
    cogo.run(&["artifact", "get", "mcp/demo/absent.json"]).refused(3, &["no artifact"]);
    let absent = format!("cogo://artifacts/acme/{}", "0".repeat(64));
    cogo.run(&["artifact", "get", &absent]).refused(3, &["has no artifact"]);
    cogo.run(&["artifact", "list", "--prefix", "../"]).refused(2, &["prefix: "]);
    cogo.run(&["artifact", "put", "-", "--tenant", "../x"]).refused(2, &["--tenant"]);
}

#[test]
fn a_bucket_that_is_not_set_up_names_what_lacks() {
    let dir = temp_dir();
    let s3 = r#"{"store":"s3","s3":{"endpoint":"https://s3.invalid","bucket":"artifacts"}}"#;
    let cogo = cogo(dir.path()).with("COGO_HUB_ARTIFACTS", s3);
    cogo.run(&["artifact", "list"]).refused(2, &["COGO_S3_ACCESS_KEY_ID"]);
    let cogo =
        cogo.with("COGO_S3_ACCESS_KEY_ID", "id").with("COGO_HUB_ARTIFACTS", r#"{"store":"s3"}"#);
    cogo.run(&["artifact", "list"]).refused(2, &["COGO_HUB_ARTIFACTS"]);
}
