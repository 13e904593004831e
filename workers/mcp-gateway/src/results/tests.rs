use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use cogo::artifact::{Limits, parse_uri};

use super::*;

struct Place {
    _dir: tempfile::TempDir,
    store: Store,
}

impl Place {
    fn new(limits: Limits) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::folder(dir.path(), limits);
        Self { _dir: dir, store }
    }

    async fn fit(&self, result: &Value, max_bytes: usize) -> Result<Value, Error> {
        let keep = Keep { store: &self.store, tenant: "acme", max_bytes };
        keep.fit(result.clone()).await
    }

    async fn bytes(&self, link: &Value) -> Vec<u8> {
        let (tenant, sha256) = parse_uri(link["uri"].as_str().expect("a URI")).expect("ours");
        assert_eq!(tenant, "acme");
        self.store.get(tenant, sha256).await.expect("kept").bytes
    }
}

#[tokio::test]
async fn what_is_small_enough_stays_as_it_is() {
    let place = Place::new(Limits::default());
    let result = json!({"content": [{"type": "text", "text": "x".repeat(5000)}], "extra": 1});
    let size = size(&result);
    assert_eq!(place.fit(&result, size).await.expect("fits"), result);
    assert_ne!(place.fit(&result, size - 1).await.expect("kept"), result);
}

#[tokio::test]
async fn the_largest_parts_become_links_in_their_places_until_it_fits() {
    let place = Place::new(Limits::default());
    let image: Vec<u8> = (0..100_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let result = json!({
        "content": [
            {"type": "text", "text": "first"},
            {"type": "image", "data": BASE64_STANDARD.encode(&image), "mimeType": "image/png",
                "annotations": {"audience": ["user"]}},
            {"type": "text", "text": "y".repeat(20_000)},
            {"type": "resource", "resource": {"uri": "file:///a.txt", "mimeType": "text/csv", "text": "z".repeat(30_000)}},
            {"type": "text", "text": "w".repeat(3000)},
        ],
        "structuredContent": {"a": "b".repeat(2000)},
        "_meta": {"theirs": 1},
    });
    let fitted = place.fit(&result, 10_000).await.expect("kept");
    assert!(size(&fitted) <= 10_000, "{}", size(&fitted));
    let content = fitted["content"].as_array().expect("content");
    let kinds: Vec<_> = content.iter().map(|item| item["type"].as_str().expect("a type")).collect();
    assert_eq!(kinds, ["text", "resource_link", "resource_link", "resource_link", "text"]);
    assert_eq!(content[0]["text"], "first");
    assert_eq!(content[4]["text"], "w".repeat(3000), "no more than it takes");
    assert_eq!(fitted["structuredContent"], result["structuredContent"], "last");
    let link = &content[1];
    assert_eq!((&link["mimeType"], &link["size"]), (&json!("image/png"), &json!(100_000)));
    assert_eq!(link["name"], "image-2.png");
    assert_eq!(link["annotations"]["audience"], json!(["user"]));
    assert_eq!(place.bytes(link).await, image);
    assert_eq!(place.bytes(&content[2]).await, "y".repeat(20_000).into_bytes());
    assert_eq!(
        (&content[3]["name"], &content[3]["mimeType"]),
        (&json!("file:///a.txt"), &json!("text/csv"))
    );
    assert_eq!(fitted["_meta"]["theirs"], 1);
    let told = fitted["_meta"][META].as_array().expect("told");
    let replaced: Vec<_> =
        told.iter().map(|told| told["replaced"].as_str().expect("a path")).collect();
    assert_eq!(replaced, ["/content/1", "/content/3", "/content/2"], "the largest first");
}

#[tokio::test]
async fn structured_content_goes_as_a_whole_and_is_said_to_be_gone() {
    let place = Place::new(Limits::default());
    let result = json!({
        "content": [{"type": "text", "text": "short"}],
        "structuredContent": {"rows": vec!["row"; 5000]}, "isError": false,
    });
    let fitted = place.fit(&result, 4096).await.expect("kept");
    assert!(fitted.get("structuredContent").is_none());
    let link = &fitted["content"][1];
    assert_eq!(link["mimeType"], "application/json");
    let kept: Value = serde_json::from_slice(&place.bytes(link).await).expect("JSON");
    assert_eq!(kept, result["structuredContent"]);
    assert_eq!(fitted["_meta"][META][0]["replaced"], "/structuredContent");
    assert_eq!(fitted["isError"], false);
}

#[tokio::test]
async fn very_many_small_parts_go_together_and_what_failed_has_failed() {
    let place = Place::new(Limits::default());
    let item = json!({"type": "text", "text": "some words"});
    let result = json!({"content": vec![item; 10_000], "isError": true});
    let fitted = place.fit(&result, 1024).await.expect("kept");
    assert!(size(&fitted) <= 1024, "{}", size(&fitted));
    assert_eq!(fitted["isError"], true);
    assert_eq!(fitted["content"].as_array().map(Vec::len), Some(1));
    let kept: Value =
        serde_json::from_slice(&place.bytes(&fitted["content"][0]).await).expect("JSON");
    assert_eq!(kept, result);
}

#[tokio::test]
async fn what_cannot_be_decoded_is_kept_as_it_came() {
    let place = Place::new(Limits::default());
    let odd = json!({"type": "image", "data": "!".repeat(9000), "mimeType": "image/png"});
    let fitted = place.fit(&json!({"content": [odd]}), 2000).await.expect("kept");
    let link = &fitted["content"][0];
    assert_eq!(link["mimeType"], "application/json");
    assert_eq!(serde_json::from_slice::<Value>(&place.bytes(link).await).expect("JSON"), odd);
}

#[tokio::test]
async fn a_part_that_the_store_does_not_take_is_an_error_and_nothing_is_lost_without_a_word() {
    let place = Place::new(Limits { max_bytes: 5000, tenant_bytes: 8000 });
    let result = |bytes| json!({"content": [{"type": "text", "text": "x".repeat(bytes)}]});
    let refused = place.fit(&result(6000), 1024).await;
    assert!(matches!(refused, Err(Error::TooLarge { bytes: 6000, most: 5000 })), "{refused:?}");
    place.fit(&result(4000), 1024).await.expect("room for one");
    let refused = place.fit(&result(4500), 1024).await;
    assert!(matches!(refused, Err(Error::Full { .. })), "{refused:?}");
}
