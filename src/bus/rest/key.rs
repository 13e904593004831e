//! The key that a bus over HTTPS shows: given, or read from a file again and again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::bus::error::Error;
use crate::error::Code;
use crate::identity::{self, Claims};
use crate::secret::Secret;

/// How often a key's file is looked at. It is looked at as well when a key is refused.
const LOOK_PERIOD: Duration = Duration::from_secs(2);

/// Where the key comes from.
#[derive(Debug, Clone)]
pub enum Key {
    /// The key itself.
    Text(Secret),
    /// A file that holds it and nothing else. It may be replaced at any time.
    File(PathBuf),
}

/// The key as it is now. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Keyring {
    file: Option<Arc<Path>>,
    current: Arc<watch::Sender<Secret>>,
    api_key: Option<Secret>,
}

fn refuse(message: String) -> Error {
    Error::Refused { code: Code::InvalidArgument, message }
}

impl Keyring {
    /// Looks at the key, and reads its file.
    pub(super) fn open(key: Key, api_key: Option<Secret>) -> Result<Self, Error> {
        let (file, text) = match key {
            Key::Text(text) => (None, text),
            Key::File(path) => {
                let text = read(&path)?;
                (Some(Arc::from(path)), text)
            }
        };
        check(&text).map_err(|error| refuse(format!("key: {error}")))?;
        Ok(Self { file, current: Arc::new(watch::Sender::new(text)), api_key })
    }

    pub(super) fn get(&self) -> Secret {
        self.current.borrow().clone()
    }

    /// What goes as `apikey` beside `key`.
    pub(super) fn api_key(&self, key: &Secret) -> Secret {
        self.api_key.as_ref().unwrap_or(key).clone()
    }

    /// What the key says of itself; nothing where it is none of ours.
    pub(super) fn claims(&self) -> Option<Claims> {
        identity::peek(self.get().expose()).ok()
    }

    pub(super) fn watch(&self) -> watch::Receiver<Secret> {
        self.current.subscribe()
    }

    /// Reads the file again, if it is one. Whether there is another key now.
    pub(super) fn look(&self) -> bool {
        let Some(path) = &self.file else { return false };
        // A few hundred bytes of a local file: not worth another thread.
        let found = read(path).and_then(|text| match check(&text) {
            Ok(()) => Ok(text),
            Err(error) => Err(refuse(format!("key file {}: {error}", path.display()))),
        });
        match found {
            Ok(text) => self.current.send_if_modified(|current| {
                let is_new = *current != text;
                *current = text;
                is_new
            }),
            Err(error) => {
                // It may be half written; what was good goes on until it is refused.
                tracing::debug!(error = %error, "The key's file cannot be used; keeping the key");
                false
            }
        }
    }

    /// Looks at the file again and again, until `closed`.
    pub(super) async fn follow(self, closed: CancellationToken) {
        if self.file.is_none() {
            return;
        }
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_PERIOD) => {}
                () = closed.cancelled() => return,
            }
            if self.look() {
                tracing::info!("The key was replaced; the new one is used from now on");
            }
        }
    }
}

fn read(path: &Path) -> Result<Secret, Error> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| refuse(format!("key file {}: {error}", path.display())))?;
    Ok(Secret::from(text.trim()))
}

/// Finds a key that was cut or mistyped before it is sent anywhere. The newer keys of Supabase are none that can
/// be looked into; whether they are good the server says.
fn check(key: &Secret) -> Result<(), identity::Error> {
    match identity::peek(key.expose()) {
        Ok(_) | Err(identity::Error::OpaqueKey) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `{"alg":"HS256"}`, claims of role service_role that end with `exp`, and no signature that holds.
    fn token(exp: &str) -> String {
        // Base64 of texts whose length is a multiple of three needs no padding.
        let claims = match exp {
            "1" => "eyJyb2xlIjoic2VydmljZV9yb2xlIiwiZXhwIjoxfQ",
            _ => "eyJyb2xlIjoic2VydmljZV9yb2xlIiwiZXhwIjoyfQ",
        };
        format!("eyJhbGciOiJIUzI1NiJ9.{claims}.c2ln")
    }

    #[test]
    fn a_key_file_that_is_replaced_gives_the_new_key_and_a_broken_one_keeps_the_old() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("key");
        std::fs::write(&path, format!("{}\n", token("1"))).expect("written");
        let keys = Keyring::open(Key::File(path.clone()), None).expect("opened");
        assert_eq!(keys.get().expose(), token("1"), "without the line's end");
        assert_eq!(keys.claims().expect("ours").exp, 1);
        assert!(!keys.look(), "it is the same");
        std::fs::write(&path, "half a tok").expect("written");
        assert!(!keys.look());
        assert_eq!(keys.get().expose(), token("1"));
        let heard = keys.watch();
        std::fs::write(&path, token("2")).expect("written");
        assert!(keys.look());
        assert_eq!(keys.claims().expect("ours").exp, 2);
        assert!(heard.has_changed().expect("open"), "whoever watches is told");
    }

    #[test]
    fn a_key_that_is_none_is_refused_without_being_shown() {
        for bad in ["", "hunter2", "a.b", "a.b.c"] {
            let error = Keyring::open(Key::Text(bad.into()), None).expect_err(bad);
            assert_eq!(error.code(), Code::InvalidArgument);
            let text = error.to_string();
            assert!(text.starts_with("key: ") && !text.contains("hunter2"), "{text}");
        }
        let missing =
            Keyring::open(Key::File("/nowhere/at/all".into()), None).expect_err("missing");
        assert!(missing.to_string().starts_with("key file /nowhere/at/all: "), "{missing}");
        assert!(Keyring::open(Key::Text("sb_secret_abc".into()), None).is_ok(), "the server says");
    }
}
