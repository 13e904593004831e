//! A hub outside, and behind a NAT a machine with a browser.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Result, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use serde_json::{Value, json};

use crate::client::{Client, Sdk};
use crate::install::{home, node};
use crate::net::{Egress, HUB, Net, run};
use crate::support::{Cogo, temp_dir, until, write};
use crate::tls::Certificates;

/// Where the hub listens in its namespace.
const BACKEND: &str = "127.0.0.1:8787";
const TENANT: &str = "acme";
/// Debian's package `chromium`.
const CHROMIUM: &str = "/usr/bin/chromium";
/// What keeps it from looking for its maker's hosts.
const QUIET: [&str; 6] = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];

/// A process that is killed when this is dropped.
struct Guarded(Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        let _gone_already = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Everything, running.
pub(crate) struct World {
    pub(crate) net: Net,
    cogo: Cogo,
    certificates: Certificates,
    worker: Option<Guarded>,
    _hub: Guarded,
    dir: tempfile::TempDir,
}

impl World {
    /// A hub behind TLS, and no worker yet.
    pub(crate) fn new() -> Result<Self> {
        let net = Net::new(Egress::Direct)?;
        let dir = temp_dir();
        let configs = dir.path().join("configs");
        std::fs::create_dir(&configs)?;
        write(&configs, "hub.json", &json!({"allowed_hosts": [HUB]}).to_string());
        write(&configs, "mcp.json", "{\"mesh\": {\"grace_s\": 60}}");
        let cogo = Cogo::new()
            .with("COGO_DATA_DIR", dir.path().join("data").display().to_string())
            .with("COGO_CONFIG_DIR", configs.display().to_string())
            .with("COGO_JWT_SECRET", "the-secret-of-the-browser-test-0123456789");
        let certificates = Certificates::make(dir.path())?;
        certificates.terminate(&net.hub, BACKEND)?;
        let log = dir.path().join("hub.log");
        let hub = start(&net.hub, cogo.command(&["up", "--listen", BACKEND]), &log)?;
        let said = || std::fs::read_to_string(&log).unwrap_or_default();
        ensure!(until(|| said().contains("Ctrl-C stops it.")), "no hub: {}", said());
        Ok(Self { net, cogo, certificates, worker: None, _hub: hub, dir })
    }

    /// Starts the machine's worker, which knows a URL and a key, and Playwright's server as a toolset.
    pub(crate) fn start_worker(&mut self, viewport: (u32, u32)) -> Result<()> {
        let configs = self.dir.path().join("laptop");
        std::fs::create_dir_all(configs.join("output"))?;
        let file = |name: &str| configs.join(name).display().to_string();
        let browser = json!({
            "browser": {
                "browserName": "chromium", "isolated": true,
                "launchOptions": {"headless": true, "executablePath": CHROMIUM, "chromiumSandbox": false, "args": QUIET},
                "contextOptions": {"viewport": {"width": viewport.0, "height": viewport.1}},
            },
            "outputDir": file("output"),
        });
        write(&configs, "browser.json", &browser.to_string());
        let cli = home("browser").join("node_modules/@playwright/mcp/cli.js");
        let mcp = json!({"toolsets": {"browser": {
            "command": node(), "args": [cli, "--config", file("browser.json")], "env": {"HOME": file("output")},
            "connect_timeout_ms": 60_000,
        }}});
        write(&configs, "mcp.json", &mcp.to_string());
        let topic = "mcp-gateway/browser";
        let mint = ["token", "mint", "--tenant", TENANT, "--worker", "laptop", "--topic", topic];
        let like = Cogo::new()
            .with("COGO_CONFIG_DIR", configs.display().to_string())
            .with("COGO_DATA_DIR", file("data"))
            .with("COGO_KEY", self.cogo.ok(&mint).line());
        let (url, ca) = (format!("https://{HUB}"), self.certificates.ca());
        let args =
            ["worker", "mcp-gateway", "--url", &url, "--ca-file", &ca, "--worker-id", "laptop"];
        let log = self.worker_log_file();
        self.worker = Some(start(&self.net.worker, like.command(&args), &log)?);
        ensure!(
            until(|| self.worker_log().contains("is ready")),
            "no worker: {}",
            self.worker_log()
        );
        Ok(())
    }

    /// Ends the worker as when its machine loses power; its children find their pipes closed.
    pub(crate) fn kill_worker(&mut self) {
        self.worker = None;
    }

    /// An MCP client beside the hub.
    pub(crate) fn connect(&self, sdk: Sdk) -> Client {
        let mint = ["token", "mint", "--tenant", TENANT, "--send", "mcp-gateway/*"];
        let key = self.cogo.ok(&mint).line().to_owned();
        let url = format!("http://{BACKEND}/mcp");
        sdk.connect_within(&url, &key, |command| within(&self.net.hub, &command))
    }

    /// What the worker has said, for when something is wrong.
    pub(crate) fn worker_log(&self) -> String {
        std::fs::read_to_string(self.worker_log_file()).unwrap_or_default()
    }

    fn worker_log_file(&self) -> PathBuf {
        self.dir.path().join("worker.log")
    }
}

/// The same command in a namespace. It ends with this process.
fn within(namespace: &str, like: &Command) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace, "setpriv", "--pdeathsig", "KILL", "--"]);
    command.arg(like.get_program()).args(like.get_args());
    for (name, value) in like.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    crate::install::plain(&mut command);
    if let Some(dir) = like.get_current_dir() {
        command.current_dir(dir);
    }
    command
}

/// Starts a command in a namespace; what it says goes to a file.
fn start(namespace: &str, like: Command, log: &Path) -> Result<Guarded> {
    let mut command = within(namespace, &like);
    command.env("NO_COLOR", "1").stdin(Stdio::null()).stdout(Stdio::null());
    Ok(Guarded(command.stderr(std::fs::File::create(log)?).spawn()?))
}

/// What there must be on a machine that can have namespaces: skipping would hide that nothing was tested.
pub(crate) fn check_chromium() {
    let found = run(CHROMIUM, &["--version"], "");
    assert!(
        found.is_ok(),
        "{CHROMIUM} is missing; `apt-get install chromium` brings it: {found:?}"
    );
}

/// The first picture of a result, decoded.
pub(crate) fn picture(result: &Value) -> Picture {
    let content = result["content"].as_array().expect("content");
    let image = content.iter().find(|item| item["type"] == "image");
    let image = image.unwrap_or_else(|| panic!("no picture: {result}"));
    assert_eq!(image["mimeType"], "image/png", "{result}");
    let bytes = BASE64.decode(image["data"].as_str().expect("data")).expect("base64");
    let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().expect("a PNG");
    let mut pixels = vec![0; reader.output_buffer_size().expect("a picture that fits")];
    let info = reader.next_frame(&mut pixels).expect("a whole PNG");
    let samples = info.color_type.samples();
    Picture { width: info.width, height: info.height, samples, pixels }
}

/// A decoded picture of eight bits a sample.
pub(crate) struct Picture {
    pub(crate) width: u32,
    pub(crate) height: u32,
    samples: usize,
    pixels: Vec<u8>,
}

impl Picture {
    /// Red, green and blue.
    pub(crate) fn at(&self, x: u32, y: u32) -> [u8; 3] {
        let at = (y * self.width + x) as usize * self.samples;
        [self.pixels[at], self.pixels[at + 1], self.pixels[at + 2]]
    }
}
