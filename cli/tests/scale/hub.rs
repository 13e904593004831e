//! The real `cogo up`, in a process of its own.

use std::io::Read as _;

use cogo::identity::{Claims, Keys};
use cogo::secret::Secret;
use serde_json::json;

use crate::support::{Cogo, Running, temp_dir};

const SECRET: &str = "the-secret-of-the-scale-measurement-0123456789";

/// A hub with a database of its own.
pub(crate) struct Hub {
    pub(crate) url: String,
    running: Running,
    pid: u32,
    _dir: tempfile::TempDir,
}

impl Hub {
    pub(crate) fn start() -> Self {
        let dir = temp_dir();
        let data = dir.path().join("data");
        let cogo = Cogo::new()
            .with("COGO_DATA_DIR", data.display().to_string())
            .with("COGO_JWT_SECRET", SECRET);
        let running = cogo.start(&["up", "--listen", "127.0.0.1:0"]);
        running.stderr.wait("Ctrl-C stops it.");
        let mut text = String::new();
        let mut file = std::fs::File::open(data.join("up.json")).expect("it says where it is");
        file.read_to_string(&mut text).expect("text");
        let up: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let pid = up["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).expect("a pid");
        let url = up["url"].as_str().expect("a URL").to_owned();
        Self { url, running, pid, _dir: dir }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// What the hub has logged.
    pub(crate) fn said(&self) -> String {
        self.running.stderr.text()
    }

    /// A key: of the service, or of one worker and its topic.
    pub(crate) fn key(&self, worker: Option<(&str, &str)>) -> Secret {
        let keys = Keys::new(&[SECRET]).expect("a secret");
        let claims = match worker {
            None => json!({"role": "service_role", "exp": 4_102_444_800_i64}),
            Some((worker, topic)) => json!({
                "role": "authenticated", "exp": 4_102_444_800_i64, "tenant": "default",
                "worker": worker, "topics": [topic],
            }),
        };
        let claims: Claims = serde_json::from_value(claims).expect("claims");
        Secret::from(keys.mint(&claims))
    }
}
