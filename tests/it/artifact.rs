//! The store of artifacts, as a folder: what stands on the disk. What every store promises is in `stores.rs`.

use std::path::Path;
use std::time::Duration;

use cogo::artifact::{Artifact, Digest, Error, Limits, OCTETS, Store, Swept};
use futures_util::future::join_all;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn store(limits: Limits) -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::folder(dir.path(), limits);
    (dir, store)
}

fn files(dir: &Path) -> Vec<String> {
    let Ok(found) = std::fs::read_dir(dir) else { return Vec::new() };
    let name = |file: std::io::Result<std::fs::DirEntry>| {
        file.expect("a file").file_name().to_string_lossy().into_owned()
    };
    let mut names: Vec<_> = found.map(name).collect();
    names.sort();
    names
}

#[tokio::test]
async fn what_is_put_is_given_back_and_kept_once() {
    let (dir, store) = store(Limits::default());
    let bytes = vec![7; 200_000];
    let first = store.put("acme", bytes.clone(), "image/png").await.expect("kept");
    assert_eq!((first.bytes, first.mime.as_str()), (200_000, "image/png"));
    assert_eq!(first.uri(), format!("cogo://artifacts/acme/{}", Digest::of(&bytes)));
    assert_eq!(store.put("acme", bytes.clone(), "image/png").await.expect("kept"), first);
    let found = store.get("acme", first.sha256).await.expect("there");
    assert_eq!(found, Artifact { mime: "image/png".to_owned(), bytes });
    let blobs = dir.path().join("blobs/acme");
    assert_eq!(files(&blobs), [first.sha256.to_string(), format!("{}.json", first.sha256)]);
    let odd = store.put("acme", b"x".to_vec(), "text/html\r\nX: y").await.expect("kept");
    assert_eq!(odd.mime, OCTETS);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = |path: &Path| path.metadata().expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&blobs), 0o700);
        assert_eq!(mode(&blobs.join(first.sha256.to_string())), 0o600);
    }
}

#[tokio::test]
async fn a_tenant_has_its_own_and_none_but_a_name_is_one() {
    let (dir, store) = store(Limits::default());
    let kept = store.put("acme", b"secret".to_vec(), "text/plain").await.expect("kept");
    for other in ["other", "Acme", "ACME"] {
        let found = store.get(other, kept.sha256).await;
        assert!(matches!(found, Err(Error::Missing { .. })), "{other}: {found:?}");
    }
    for bad in ["", ".", "..", "../acme", "a/b", "acme/", "*", "a\0", ".acme"] {
        let put = store.put(bad, b"x".to_vec(), "text/plain").await;
        assert!(matches!(put, Err(Error::Tenant(_))), "{bad:?}: {put:?}");
        let got = store.get(bad, kept.sha256).await;
        assert!(matches!(got, Err(Error::Tenant(_))), "{bad:?}: {got:?}");
    }
    store.put("Acme", b"other".to_vec(), "text/plain").await.expect("kept");
    assert_eq!(files(&dir.path().join("blobs")).len(), 2, "also where cases are not told apart");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_may_put_at_once() {
    let (dir, store) = store(Limits::default());
    let one = |number: u8| {
        let store = store.clone();
        async move { store.put("acme", vec![number % 4; 100_000], OCTETS).await.expect("kept") }
    };
    let kept = join_all((0..64).map(one)).await;
    for artifact in kept {
        assert_eq!(store.get("acme", artifact.sha256).await.expect("whole").bytes.len(), 100_000);
    }
    assert_eq!(files(&dir.path().join("blobs/acme")).len(), 8, "four, with their types");
}

#[tokio::test]
async fn the_old_goes_and_what_was_put_again_stays() {
    let (dir, store) = store(Limits { max_bytes: 1000, tenant_bytes: 1500 });
    assert_eq!(store.sweep(DAY).await.expect("nothing is there"), Swept::default());
    let old = store.put("acme", vec![1; 500], OCTETS).await.expect("kept");
    let again = store.put("acme", vec![2; 500], OCTETS).await.expect("kept");
    let blobs = dir.path().join("blobs/acme");
    let age = |name: String| {
        let file = std::fs::File::options().append(true).open(blobs.join(name)).expect("a file");
        let then = cogo::clock::utc_now() - DAY * 3;
        file.set_modified(then.into()).expect("set");
    };
    age(old.sha256.to_string());
    age(again.sha256.to_string());
    std::fs::write(blobs.join(".tmp-left"), "x").expect("written");
    age(".tmp-left".to_owned());
    store.put("acme", vec![2; 500], OCTETS).await.expect("kept");
    let swept = store.sweep(DAY).await.expect("swept");
    assert_eq!(swept, Swept { artifacts: 1, bytes: 500, more: false });
    assert!(matches!(store.get("acme", old.sha256).await, Err(Error::Missing { .. })));
    store.get("acme", again.sha256).await.expect("still there");
    assert_eq!(files(&blobs).len(), 2);
    store.put("acme", vec![3; 900], OCTETS).await.expect("there is room again");
}
