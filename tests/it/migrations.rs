use cogo::bus::Bus;
use cogo::db::MIGRATOR;
use cogo::testing::TestDb;

#[tokio::test]
async fn migrating_again_changes_nothing_whatever_the_user_is_called() {
    let db = TestDb::new().await;
    assert_eq!(db.connect_options().get_username(), "cogo", "whose own schema would come first");
    MIGRATOR.run(db.pool()).await.expect("nothing to do");
    let version = Bus::new(db.pool().clone()).schema_version().await.expect("a schema");
    assert_eq!(version, MIGRATOR.iter().map(|migration| migration.version).max());
}
