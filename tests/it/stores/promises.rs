//! The promises.

use std::collections::BTreeSet;
use std::time::Duration;

use cogo::artifact::{
    Artifact, Digest, Error, Limits, Name, OCTETS, Opened, Range, Store, Swept, Usage,
};
use cogo::clock::utc_now;
use futures_util::future::join_all;
use futures_util::stream::TryStreamExt as _;

use super::Setting;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn name(tenant: &str, bytes: &[u8]) -> Name {
    Name::new(tenant, Digest::of(bytes))
}

async fn read(opened: Opened) -> Result<Vec<u8>, Error> {
    let pieces: Vec<Vec<u8>> = opened.body.try_collect().await?;
    Ok(pieces.concat())
}

pub(super) async fn what_is_put_is_given_back_with_its_type(s: Setting) {
    for bytes in [Vec::new(), b"x".to_vec(), vec![7; 200_000]] {
        let put = s.store.put("acme", bytes.clone(), "image/png; x=\"a b\"").await.expect("kept");
        assert_eq!((put.bytes, put.sha256), (bytes.len() as u64, Digest::of(&bytes)));
        let got = s.store.get("acme", put.sha256).await.expect("there");
        assert_eq!(got, Artifact { mime: "image/png; x=\"a b\"".to_owned(), bytes: bytes.clone() });
        let stat = s.store.stat("acme", put.sha256).await.expect("there");
        assert_eq!((stat.bytes, stat.mime), (bytes.len() as u64, put.mime));
        assert!((utc_now() - stat.modified).num_seconds().abs() < 60, "{:?}", stat.modified);
        let opened = s.store.open("acme", put.sha256, None).await.expect("there");
        assert_eq!(read(opened).await.expect("whole"), bytes);
    }
    let odd = s.store.put("acme", b"odd".to_vec(), "text/html\r\nX: y").await.expect("kept");
    assert_eq!(s.store.get("acme", odd.sha256).await.expect("there").mime, OCTETS);
}

pub(super) async fn the_same_bytes_are_kept_once_and_count_once(s: Setting) {
    assert_eq!(s.store.usage("acme").await.expect("counted"), Usage::default());
    for _ in 0..3 {
        s.store.put("acme", vec![1; 1000], OCTETS).await.expect("kept");
    }
    s.store.put("acme", vec![2; 500], OCTETS).await.expect("kept");
    s.store.put("acme-2", vec![2; 500], OCTETS).await.expect("kept");
    assert_eq!(s.store.usage("acme").await.expect("counted"), Usage { count: 2, bytes: 1500 });
}

pub(super) async fn a_tenant_has_its_own_and_none_but_a_name_is_one(s: Setting) {
    let kept = s.store.put("acme", b"secret".to_vec(), "text/plain").await.expect("kept");
    for other in ["other", "Acme", "acm", "acmee"] {
        let found = s.store.get(other, kept.sha256).await;
        assert!(matches!(found, Err(Error::Missing { .. })), "{other}: {found:?}");
        let found = s.store.open(other, kept.sha256, None).await;
        assert!(matches!(found, Err(Error::Missing { .. })), "{other}");
        assert!(!s.store.delete(other, kept.sha256).await.expect("asked"), "{other}");
        assert_eq!(s.store.usage(other).await.expect("counted").count, 0, "{other}");
    }
    let escapes =
        ["", ".", "..", "../acme", "a/b", "acme/", "*", "a\0", ".acme", "a?b", "%2e%2e", "a\\b"];
    for bad in escapes {
        let tenant = |error: &Error| matches!(error, Error::Tenant(_));
        let put = s.store.put(bad, b"x".to_vec(), "text/plain").await;
        assert!(put.is_err_and(|error| tenant(&error)), "{bad:?}");
        let got = s.store.get(bad, kept.sha256).await;
        assert!(got.is_err_and(|error| tenant(&error)), "{bad:?}");
        let gone = s.store.delete(bad, kept.sha256).await;
        assert!(gone.is_err_and(|error| tenant(&error)), "{bad:?}");
        let found = s.store.open(bad, kept.sha256, None).await;
        assert!(found.is_err_and(|error| tenant(&error)), "{bad:?}");
    }
    s.store.get("acme", kept.sha256).await.expect("still there");
}

pub(super) async fn a_part_is_given_alone(s: Setting) {
    let bytes: Vec<u8> = (0..=255).cycle().take(10_000).collect();
    let kept = s.store.put("acme", bytes.clone(), OCTETS).await.expect("kept");
    for (first, last) in [(0, 0), (0, 9_999), (17, 4_000), (9_999, 9_999)] {
        let range = Some(Range { first, last });
        let opened = s.store.open("acme", kept.sha256, range).await.expect("there");
        assert_eq!(opened.stat.bytes, 10_000, "of the whole");
        let part = read(opened).await.expect("read");
        assert_eq!(part, bytes[usize::try_from(first).unwrap()..=usize::try_from(last).unwrap()]);
    }
}

pub(super) async fn a_large_artifact_comes_in_pieces(s: Setting) {
    let bytes: Vec<u8> = (0_u32..2_000_000).flat_map(u32::to_le_bytes).collect();
    let kept = s.store.put("acme", bytes.clone(), OCTETS).await.expect("kept");
    let opened = s.store.open("acme", kept.sha256, None).await.expect("there");
    let pieces: Vec<Vec<u8>> = opened.body.try_collect().await.expect("whole");
    let largest = pieces.iter().map(Vec::len).max().expect("some");
    assert!(largest <= 1 << 20, "{largest} bytes of 8 MB are held at once");
    assert!(pieces.concat() == bytes, "what came is not what was put");
}

async fn all(store: &Store, prefix: &str, limit: usize) -> Vec<String> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let (page, next) = store.list(prefix, after.as_ref(), limit).await.expect("a list");
        assert!(page.len() <= limit, "{} of {limit}", page.len());
        found.extend(page.into_iter().map(|(listed, mime)| {
            assert_eq!((listed.bytes, mime.as_str()), (3, "text/plain"));
            listed.name.path()
        }));
        match next {
            Some(next) => after = Some(next),
            None => return found,
        }
    }
}

pub(super) async fn a_list_goes_on_where_it_ended(s: Setting) {
    assert_eq!(all(&s.store, "", 2).await, Vec::<String>::new());
    let mut wanted = BTreeSet::new();
    for tenant in ["acme", "acme-2", "Acme", "b"] {
        for number in 100..107 {
            let kept = s.store.put(tenant, format!("{number}").into_bytes(), "text/plain").await;
            wanted.insert(format!("{tenant}/{}", kept.expect("kept").sha256));
        }
    }
    let order = all(&s.store, "", 500).await;
    assert_eq!(order.iter().cloned().collect::<BTreeSet<_>>(), wanted);
    for limit in [1, 2, 3, 7, 8, 28, 29] {
        assert_eq!(all(&s.store, "", limit).await, order, "{limit} at once");
    }
    let one = order.iter().find(|path| path.starts_with("acme/")).expect("one");
    let of = |prefix: &str| {
        order.iter().filter(|path| path.starts_with(prefix)).cloned().collect::<Vec<_>>()
    };
    for prefix in ["acme/", "acme", "A", &one[..8], one, "nobody/", "acme/zz"] {
        assert_eq!(all(&s.store, prefix, 2).await, of(prefix), "{prefix}");
    }
}

pub(super) async fn an_artifact_and_a_tenant_have_their_limits(s: Setting) {
    let limits = Limits { max_bytes: 1000, tenant_bytes: 2500 };
    let store = s.again(limits);
    let put = async |tenant, byte, len| store.put(tenant, vec![byte; len], OCTETS).await;
    let refused = put("acme", 0, 1001).await;
    assert!(matches!(refused, Err(Error::TooLarge { bytes: 1001, most: 1000 })), "{refused:?}");
    put("acme", 1, 1000).await.expect("room");
    put("acme", 2, 1000).await.expect("room");
    let full = put("acme", 3, 1000).await;
    assert!(matches!(full, Err(Error::Full { .. })), "{full:?}");
    put("acme", 1, 1000).await.expect("what is there takes no room");
    s.age(&name("acme", &[1; 1000]), DAY * 2);
    put("acme", 1, 1000).await.expect("nor does it where it is made new");
    put("other", 3, 1000).await.expect("each has its own");
    let full = s.again(limits).put("acme", vec![3; 1000], OCTETS).await;
    assert!(matches!(full, Err(Error::Full { .. })), "counted where it lies: {full:?}");
    // Once it was allowed.
    let large = s.store.put("acme", vec![9; 2000], OCTETS).await.expect("kept");
    let refused = store.get("acme", large.sha256).await;
    assert!(matches!(refused, Err(Error::TooLarge { bytes: 2000, .. })), "{refused:?}");
}

pub(super) async fn what_is_not_what_it_is_called_is_refused_coming_and_going(s: Setting) {
    let named = Digest::of(b"right");
    let refused = s.store.put_named("acme", named, b"wrong".to_vec(), OCTETS).await;
    assert!(matches!(refused, Err(Error::Mismatch { .. })), "{refused:?}");
    let missing = s.store.stat("acme", named).await;
    assert!(matches!(missing, Err(Error::Missing { .. })), "{missing:?}");
    s.store.put_named("acme", named, b"right".to_vec(), OCTETS).await.expect("kept");
    std::fs::write(s.file(&Name::new("acme", named)), "wrong").expect("spoilt");
    let spoilt = s.store.get("acme", named).await;
    assert!(matches!(spoilt, Err(Error::Mismatch { .. })), "{spoilt:?}");
    let opened = s.store.open("acme", named, None).await.expect("begun");
    let spoilt = read(opened).await;
    assert!(matches!(spoilt, Err(Error::Mismatch { .. })), "{spoilt:?}");
}

pub(super) async fn what_is_deleted_is_gone(s: Setting) {
    let kept = s.store.put("acme", b"x".to_vec(), OCTETS).await.expect("kept");
    assert!(s.store.delete("acme", kept.sha256).await.expect("deleted"));
    assert!(!s.store.delete("acme", kept.sha256).await.expect("asked again"));
    let missing = s.store.get("acme", kept.sha256).await;
    assert!(matches!(missing, Err(Error::Missing { .. })), "{missing:?}");
    assert_eq!(s.store.usage("acme").await.expect("counted"), Usage::default());
    s.store.put("acme", b"x".to_vec(), OCTETS).await.expect("kept again");
}

pub(super) async fn many_may_put_at_once(s: Setting) {
    let one = |number: u8| {
        let store = s.store.clone();
        async move { store.put("acme", vec![number % 4; 50_000], OCTETS).await.expect("kept") }
    };
    for artifact in join_all((0..32).map(one)).await {
        let got = s.store.get("acme", artifact.sha256).await.expect("whole");
        assert_eq!(got.bytes.len(), 50_000);
    }
    assert_eq!(s.store.usage("acme").await.expect("counted"), Usage { count: 4, bytes: 200_000 });
}

pub(super) async fn the_old_goes_and_what_was_put_again_stays(s: Setting) {
    let store = s.again(Limits { tenant_bytes: 1500, ..s.limits });
    assert_eq!(store.sweep(DAY).await.expect("nothing is there"), Swept::default());
    store.put("acme", vec![1; 500], OCTETS).await.expect("kept");
    store.put("acme", vec![2; 500], "text/plain").await.expect("kept");
    let (old, again) = (name("acme", &[1; 500]), name("acme", &[2; 500]));
    s.age(&old, DAY * 3);
    s.age(&again, DAY * 3);
    store.put("acme", vec![2; 500], "text/plain").await.expect("kept");
    let swept = store.sweep(DAY).await.expect("swept");
    assert_eq!(swept, Swept { artifacts: 1, bytes: 500, more: false });
    let gone = store.get("acme", old.sha256).await;
    assert!(matches!(gone, Err(Error::Missing { .. })), "{gone:?}");
    let stays = store.get("acme", again.sha256).await.expect("still there");
    assert_eq!((stays.mime.as_str(), stays.bytes.len()), ("text/plain", 500));
    store.put("acme", vec![3; 900], OCTETS).await.expect("there is room again");
}
