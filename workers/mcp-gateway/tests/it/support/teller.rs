//! A server over stdio that tells which value of a variable it was started with, by its SHA-256: the value itself would
//! be hidden from what it answers.

use std::path::{Path, PathBuf};

use cogo_worker_mcp_gateway::config::{EnvValue, FromEnv, Toolset};
use sha2::{Digest as _, Sha256};

/// `which` answers at once; `wait` when the file `go` is there; `tell` with the value itself.
const SERVER: &str = r#"
import hashlib, json, os, sys, threading, time
value = os.environ.get("SECRET", "")
digest = hashlib.sha256(value.encode()).hexdigest()
lock = threading.Lock()
def answer(id, result):
    with lock:
        print(json.dumps({"jsonrpc": "2.0", "id": id, **result}), flush=True)
def say(id, text):
    answer(id, {"result": {"content": [{"type": "text", "text": text}]}})
def wait(id):
    open(sys.argv[1] + "/begun", "w").close()
    while not os.path.exists(sys.argv[1] + "/go"):
        time.sleep(0.01)
    say(id, digest)
tools = [{"name": n, "inputSchema": {"type": "object"}} for n in ("which", "wait", "tell")]
for line in sys.stdin:
    asked = json.loads(line)
    method, id = asked.get("method"), asked.get("id")
    if id is None:
        continue
    if method == "initialize":
        answer(id, {"result": {"protocolVersion": asked["params"]["protocolVersion"],
            "capabilities": {"tools": {}}, "serverInfo": {"name": "teller", "version": "1"}}})
    elif method == "tools/list":
        answer(id, {"result": {"tools": tools}})
    elif method == "ping":
        answer(id, {"result": {}})
    elif method == "tools/call" and asked["params"]["name"] == "wait":
        threading.Thread(target=wait, args=(id,), daemon=True).start()
    elif method == "tools/call":
        say(id, digest if asked["params"]["name"] == "which" else "it is " + value)
    else:
        answer(id, {"error": {"code": -32601, "message": "not here"}})
"#;

/// The toolset; its variable `SECRET` refers to `reference`.
pub(crate) fn toolset(dir: &Path, reference: &str) -> Toolset {
    let file: PathBuf = dir.join("teller.py");
    std::fs::write(&file, SERVER).expect("written");
    let args = [file.display().to_string(), dir.display().to_string()];
    let mut toolset = Toolset { connect_timeout_ms: 60_000, ..Toolset::command("python3", args) };
    let reference = FromEnv { from_env: reference.to_owned() };
    toolset.env.insert("SECRET".to_owned(), EnvValue::FromEnv(reference));
    toolset
}

/// What it tells of `value`.
pub(crate) fn digest(value: &str) -> String {
    Sha256::digest(value).iter().map(|byte| format!("{byte:02x}")).collect()
}
