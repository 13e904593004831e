//! `cogo migrate --source`.

use std::path::Path;

use cogo::testing::TestDb;

use crate::support::{Cogo, temp_dir, write};

/// The migrations of this repository, and one more.
fn with(name: &str, text: &str) -> tempfile::TempDir {
    let dir = temp_dir();
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations");
    for entry in std::fs::read_dir(ours).expect("a directory").flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "sql") {
            std::fs::copy(entry.path(), dir.path().join(entry.file_name())).expect("a copy");
        }
    }
    write(dir.path(), name, text);
    dir
}

#[tokio::test]
async fn a_migration_is_tried_from_its_directory_and_told_with_its_place() {
    let db = TestDb::new().await;
    let cogo = Cogo::on(&db);
    let table = async || {
        let found: Option<String> = sqlx::query_scalar("select to_regclass('public.tried')::text")
            .fetch_one(db.pool())
            .await
            .expect("an answer");
        found
    };
    let bad =
        with("209912310000_tried.sql", "create table public.tried ();\nselect 1;\n  selec 2;\n");
    let source = bad.path().display().to_string();
    let done = cogo.run(&["migrate", "--source", &source]);
    let place = format!("{source}/209912310000_tried.sql:3:3: syntax error at or near \"selec\"");
    done.refused(1, &[&place, "Nothing of that migration was done"]);
    assert_eq!(table().await, None);

    write(bad.path(), "209912310000_tried.sql", "create table public.tried ();\n");
    let done = cogo.ok(&["migrate", "--source", &source]);
    assert!(done.stderr.contains("to 209912310000"), "{done:?}");
    assert_eq!(table().await.as_deref(), Some("tried"));
    // Programs that do not know it live with it.
    cogo.ok(&["migrate"]);
}

#[tokio::test]
async fn a_source_that_is_none_is_refused() {
    let db = TestDb::new().await;
    let cogo = Cogo::on(&db);
    cogo.run(&["migrate", "--source", "/nonexistent/migrations"])
        .refused(2, &["--source /nonexistent/migrations"]);
}
