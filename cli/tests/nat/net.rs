//! Three namespaces: a hub outside, a worker inside, and between them a router with a stateful NAT.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::inside::inside;
use crate::support::until;

/// Where the hub is, on the outer side (TEST-NET-3 of RFC 5737).
pub(crate) const HUB: &str = "203.0.113.10";
/// The router's address on the inner side.
pub(crate) const ROUTER: &str = "192.168.77.1";
/// How long a connection is waited for. One that must not come about has had its chance then; one that must is tried again.
const ONE_TRY: Duration = Duration::from_millis(700);

/// The rules of the router. What is unknown to conntrack and no beginning is dropped without a word, as
/// many home routers do; `tcp_loose` off keeps it from learning old connections anew.
const RULES: &str = "
table ip nat {
    chain post { type nat hook postrouting priority srcnat; oifname \"out\" masquerade; }
}
table ip filter {
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state invalid drop
        ct state established,related accept
        FORWARD
    }
    chain input {
        type filter hook input priority filter; policy drop;
        iifname \"lo\" accept
        ct state established,related accept
        iifname \"in\" accept
    }
}";
/// Nothing passes, in either direction, and nobody is told.
const CUT: &str = "table ip cut { chain silence { type filter hook prerouting priority raw; iifname { \"in\", \"out\" } drop; }\n}\n";

/// How the worker may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Egress {
    /// Through the NAT.
    Direct,
    /// Not at all but through what runs on the router.
    ProxyOnly,
}

/// The namespaces. Removed when dropped.
#[derive(Debug)]
pub(crate) struct Net {
    pub(crate) hub: String,
    pub(crate) router: String,
    pub(crate) worker: String,
}

/// Why namespaces cannot be had here, if they cannot.
pub(crate) fn impossible() -> Option<&'static str> {
    static WHY: OnceLock<Option<String>> = OnceLock::new();
    WHY.get_or_init(try_it).as_deref()
}

fn try_it() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("this is not root".to_owned());
    }
    for (program, argument) in
        [("ip", "-V"), ("nft", "--version"), ("conntrack", "--version"), ("openssl", "version")]
    {
        if let Err(error) = run(program, &[argument], "") {
            return Some(format!("{error:#}"));
        }
    }
    let probe = format!("cogo-{}-probe", std::process::id());
    let made = run("ip", &["netns", "add", &probe], "");
    let _gone = run("ip", &["netns", "del", &probe], "");
    made.err().map(|error| format!("{error:#}"))
}

impl Net {
    pub(crate) fn new(egress: Egress) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = |what: &str| format!("cogo-{}-{n}-{what}", std::process::id());
        let net = Self { hub: name("hub"), router: name("router"), worker: name("worker") };
        for namespace in [&net.hub, &net.router, &net.worker] {
            run("ip", &["netns", "add", namespace], "")?;
            ip(namespace, "link set lo up")?;
        }
        net.wire(("eth0", &net.hub), ("out", &net.router))?;
        net.wire(("eth0", &net.worker), ("in", &net.router))?;
        ip(&net.hub, &format!("addr add {HUB}/24 dev eth0"))?;
        ip(&net.router, "addr add 203.0.113.1/24 dev out")?;
        ip(&net.router, &format!("addr add {ROUTER}/24 dev in"))?;
        net.move_worker("192.168.77.10")?;
        net.set("ipv4/ip_forward", "1")?;
        let forward = match egress {
            Egress::Direct => "iifname \"in\" oifname \"out\" accept",
            Egress::ProxyOnly => "",
        };
        net.nft(&RULES.replace("FORWARD", forward))?;
        net.set("netfilter/nf_conntrack_tcp_loose", "0")?;
        Ok(net)
    }

    fn wire(&self, (one, here): (&str, &str), (other, there): (&str, &str)) -> Result<()> {
        let pair = ["link", "add", one, "netns", here, "type", "veth", "peer", "name", other];
        run("ip", &[&pair[..], &["netns", there]].concat(), "")?;
        ip(here, &format!("link set {one} up"))?;
        ip(there, &format!("link set {other} up"))
    }

    fn nft(&self, rules: &str) -> Result<()> {
        run("ip", &["netns", "exec", &self.router, "nft", "-f", "-"], rules)
    }

    fn set(&self, setting: &str, to: &str) -> Result<()> {
        let file = format!("/proc/sys/net/{setting}");
        inside(&self.router, || std::fs::write(&file, to))
            .with_context(|| format!("writing {file}"))
    }

    /// The worker's network gives it another address, as another Wi-Fi does.
    pub(crate) fn move_worker(&self, address: &str) -> Result<()> {
        ip(&self.worker, "addr flush dev eth0")?;
        ip(&self.worker, &format!("addr add {address}/24 dev eth0"))?;
        ip(&self.worker, &format!("route add default via {ROUTER}"))
    }

    /// The router's provider gives it another address; what was under way to the old one is lost.
    pub(crate) fn move_router(&self, address: &str) -> Result<()> {
        ip(&self.router, "addr flush dev out")?;
        ip(&self.router, &format!("addr add {address}/24 dev out"))?;
        self.forget()
    }

    /// The router forgets all connections, as when it is switched off and on.
    pub(crate) fn forget(&self) -> Result<()> {
        run("ip", &["netns", "exec", &self.router, "conntrack", "-F"], "")
    }

    /// Drops every packet from now on.
    pub(crate) fn cut(&self) -> Result<()> {
        self.nft(CUT)
    }

    /// Undoes [`Net::cut`].
    pub(crate) fn mend(&self) -> Result<()> {
        self.nft("delete table ip cut")
    }

    /// Pulls the worker's plug.
    pub(crate) fn unplug(&self) -> Result<()> {
        ip(&self.router, "link set in down")
    }

    /// Puts it in again.
    pub(crate) fn plug(&self) -> Result<()> {
        ip(&self.router, "link set in up")
    }

    /// Whether nobody outside reaches a server that listens where the worker is, though the router does.
    pub(crate) fn check_that_nothing_comes_in(&self) -> Result<()> {
        let listener = inside(&self.worker, || TcpListener::bind("0.0.0.0:0"))?;
        let port = listener.local_addr()?.port();
        let connect = |namespace: &str, address: &str| {
            let address: SocketAddr = format!("{address}:{port}").parse().expect("an address");
            inside(namespace, || TcpStream::connect_timeout(&address, ONE_TRY)).is_ok()
        };
        ensure!(until(|| connect(&self.router, "192.168.77.10")), "the server does not listen");
        // Even for somebody who knows the way.
        ip(&self.hub, "route add 192.168.77.0/24 via 203.0.113.1")?;
        ensure!(!connect(&self.hub, "192.168.77.10"), "the hub reaches the worker");
        ensure!(!connect(&self.hub, "203.0.113.1"), "the hub reaches the router");
        ip(&self.hub, "route del 192.168.77.0/24")
    }

    /// Whether the worker itself gets out to an address now.
    pub(crate) fn gets_out(&self, address: &str) -> bool {
        let address: SocketAddr = address.parse().expect("an address");
        inside(&self.worker, || TcpStream::connect_timeout(&address, ONE_TRY)).is_ok()
    }

    /// Whether it does before long: neighbours have to find each other again, and the machine may have other things to do.
    pub(crate) fn comes_to_get_out(&self, address: &str) -> bool {
        until(|| self.gets_out(address))
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for namespace in [&self.worker, &self.router, &self.hub] {
            let _best_effort = run("ip", &["netns", "del", namespace], "");
        }
    }
}

/// `ip`, within a namespace.
fn ip(namespace: &str, command: &str) -> Result<()> {
    let words: Vec<_> = command.split(' ').collect();
    run("ip", &[&["-n", namespace][..], &words].concat(), "")
}

/// Runs a command that must succeed, with `input` on stdin.
pub(crate) fn run(program: &str, args: &[&str], input: &str) -> Result<()> {
    use std::io::Write as _;
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("running {program}"))?;
    let mut stdin = child.stdin.take().context("a pipe")?;
    stdin.write_all(input.as_bytes())?;
    drop(stdin);
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    bail!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim())
}
