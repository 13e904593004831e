//! How artifacts are kept: the section `artifacts` of `hub.json`, which workers that reach the database read as well.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The variables that hold what opens the bucket; neither has a place in a file.
pub const KEY_ID: &str = "COGO_S3_ACCESS_KEY_ID";
/// See [`KEY_ID`].
pub const KEY_SECRET: &str = "COGO_S3_SECRET_ACCESS_KEY";

/// How artifacts are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Where: `folder`, within the artifacts directory, or `s3`.
    pub store: Kind,
    /// The bucket, where the store is `s3`.
    pub s3: S3,
}

/// What keeps artifacts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The folder `blobs` of the artifacts directory.
    #[default]
    Folder,
    /// A bucket of S3, or of what speaks its protocol. The keys come from the environment: `COGO_S3_ACCESS_KEY_ID` and
    /// `COGO_S3_SECRET_ACCESS_KEY`.
    S3,
}

/// A bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct S3 {
    /// Where it is reached, such as `https://s3.eu-central-1.amazonaws.com` or
    /// `https://<project>.supabase.co/storage/v1/s3`.
    pub endpoint: String,
    /// Its region, for which requests are signed.
    pub region: String,
    /// Its name.
    pub bucket: String,
    /// What all keys begin with, such as `cogo/prod`; empty for nothing. Below it lie `<tenant>/<sha256>`.
    pub prefix: String,
    /// Whether the bucket stands in the path, as Supabase and most others want it, and not in the host's name.
    pub path_style: bool,
}

impl Default for S3 {
    fn default() -> Self {
        Self {
            endpoint: String::new(),
            region: "us-east-1".to_owned(),
            bucket: String::new(),
            prefix: String::new(),
            path_style: true,
        }
    }
}

/// A field below `artifacts` that breaks its rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken {
    /// The field, from the root of the file.
    pub field: &'static str,
    /// What it must be.
    pub rule: &'static str,
}

impl Options {
    /// Checks what the types cannot.
    ///
    /// # Errors
    /// Names the first field that breaks its rule.
    pub fn validate(&self) -> Result<(), Broken> {
        let S3 { endpoint, region, bucket, prefix, .. } = &self.s3;
        let broken = |field, rule| Err(Broken { field, rule });
        let parts = |text: &str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            text.split('/').all(|part| {
                !part.is_empty() && !matches!(part, "." | "..") && part.bytes().all(plain)
            })
        };
        // Also where it is not used: what stands there is meant.
        if !prefix.is_empty() && (!parts(prefix) || prefix.len() > 256) {
            return broken(
                "artifacts.s3.prefix",
                "must be names of letters, digits, `-`, `_` and `.` with `/` between them, without one at either end",
            );
        }
        if self.store == Kind::Folder {
            return Ok(());
        }
        let rest = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://"));
        let is_url = rest.is_some_and(|rest| {
            !rest.is_empty() && !rest.starts_with('/') && !rest.contains(['@', '?', '#', ' '])
        });
        if !is_url {
            return broken(
                "artifacts.s3.endpoint",
                "must be an https:// URL without user, query or fragment, such as \
                 https://<project>.supabase.co/storage/v1/s3",
            );
        }
        let host = |text: &str| {
            text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
        };
        if region.is_empty() || region.len() > 64 || !host(region) {
            return broken("artifacts.s3.region", "must be a region's name, such as eu-central-1");
        }
        if !(3..=63).contains(&bucket.len()) || !parts(bucket) || bucket.contains('/') {
            return broken(
                "artifacts.s3.bucket",
                "must be a bucket's name: 3 to 63 letters, digits, `-`, `_` and `.`",
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_needs_nothing_and_a_bucket_its_fields() {
        assert_eq!(Options::default().validate(), Ok(()));
        let good = S3 {
            endpoint: "https://x.supabase.co/storage/v1/s3".to_owned(),
            bucket: "artifacts".to_owned(),
            ..S3::default()
        };
        let check = |change: fn(&mut S3)| {
            let mut s3 = good.clone();
            change(&mut s3);
            Options { store: Kind::S3, s3 }.validate().map_err(|broken| broken.field)
        };
        assert_eq!(check(|_| {}), Ok(()));
        assert_eq!(check(|s3| s3.prefix = "cogo/prod.1".to_owned()), Ok(()));
        let bad = [
            check(|s3| s3.endpoint = "s3.amazonaws.com".to_owned()),
            check(|s3| s3.endpoint = "https://user:secret@host".to_owned()),
            check(|s3| s3.endpoint = "https://".to_owned()),
        ];
        assert_eq!(bad, [Err("artifacts.s3.endpoint"); 3]);
        assert_eq!(check(|s3| s3.region.clear()), Err("artifacts.s3.region"));
        for bucket in ["", "ab", "a/b/c", "a b c", "..."] {
            let s3 = S3 { bucket: bucket.to_owned(), ..good.clone() };
            let broken = Options { store: Kind::S3, s3 }.validate();
            assert_eq!(broken.map_err(|b| b.field).is_err(), bucket != "...", "{bucket}");
        }
        for prefix in ["/a", "a/", "a//b", "../a", "a/./b", "a b", "a\0", "a?b"] {
            let s3 = S3 { prefix: prefix.to_owned(), ..S3::default() };
            let broken = Options { store: Kind::Folder, s3 }.validate();
            assert_eq!(
                broken.map_err(|broken| broken.field),
                Err("artifacts.s3.prefix"),
                "{prefix:?}"
            );
        }
    }
}
