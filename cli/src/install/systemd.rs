//! A systemd unit (systemd.service(5), systemd.exec(5)).

use std::fmt::Write as _;

use crate::install::service::{Owner, Service};

/// What confines the service of a machine. `strict` leaves it only its state directory and /tmp to write to;
/// netlink is how the C library learns of the machine's addresses.
const CONFINED: &str = "\
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_NETLINK AF_UNIX
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
CapabilityBoundingSet=
";

/// A user's service gets what needs no namespaces: systems that keep those from users would not start it,
/// and the tools that it runs keep their files in the user's home.
const CONFINED_USER: &str = "\
NoNewPrivileges=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
# Stricter, where users may have namespaces and no tool writes to your home:
#ProtectSystem=strict
#PrivateTmp=yes
";

pub(super) fn text(service: &Service) -> String {
    let system = service.owner == Owner::System;
    let mut unit = String::new();
    let mut line = |text: &str| {
        unit.push_str(text);
        unit.push('\n');
    };
    line("[Unit]");
    line(&format!("Description=COGO worker {}", service.role));
    if system {
        line("Wants=network-online.target");
        line("After=network-online.target");
    }
    line("# It tries for ever: a network may be away for days.");
    line("StartLimitIntervalSec=0");
    line("");
    line("[Service]");
    line("Type=exec");
    let words: Vec<_> = std::iter::once(&service.program)
        .chain(&service.arguments())
        .map(|word| quoted(word))
        .collect();
    // The colon: no `$` in it means a variable.
    line(&format!("ExecStart=:{}", words.join(" ")));
    line("# COGO_KEY, in a file that only its owner may read.");
    line(&format!("EnvironmentFile={}", escaped(&service.key_file())));
    if let Some(dir) = &service.config_dir {
        line(&format!("Environment={}", quoted(&format!("COGO_CONFIG_DIR={dir}"))));
    }
    line("Restart=always");
    line("RestartSec=5");
    line("# Wrong usage or a bad configuration file: trying again does not mend it.");
    line("RestartPreventExitStatus=2");
    line("# The worker is told first, and finishes what it has in hand; its tools go with it.");
    line("KillMode=mixed");
    line("KillSignal=SIGTERM");
    line(&format!("TimeoutStopSec={}", service.stop_s));
    line("UMask=0077");
    if system {
        line("StateDirectory=cogo");
        line("Environment=COGO_DATA_DIR=%S/cogo");
        match &service.run_as {
            Some(user) => line(&format!("User={user}")),
            None => {
                line("DynamicUser=yes");
                line("Environment=HOME=%S/cogo");
            }
        }
    }
    let confined = if system { CONFINED } else { CONFINED_USER };
    let _infallible = write!(unit, "{confined}\n[Install]\n");
    let target = if system { "multi-user.target" } else { "default.target" };
    let _infallible = writeln!(unit, "WantedBy={target}");
    unit
}

pub(super) fn next(service: &Service) -> Vec<String> {
    let (user, name) = match service.owner {
        Owner::User => (" --user", service.name()),
        Owner::System => ("", service.name()),
    };
    let mut commands = vec![
        format!("systemctl{user} daemon-reload"),
        format!("systemctl{user} enable {name}.service"),
        format!("systemctl{user} restart {name}.service"),
    ];
    if service.owner == Owner::User {
        commands.push(
            "loginctl enable-linger    # so that it also runs while you are logged out".into(),
        );
    }
    commands.push(format!("journalctl{user} --unit {name}.service --lines 20 --no-pager"));
    commands
}

/// One word of a command or of `Environment=`.
fn quoted(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:=".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("\"{}\"", escaped(&word.replace('\\', "\\\\").replace('"', "\\\"")))
}

/// `%` begins what systemd replaces.
fn escaped(text: &str) -> String {
    text.replace('%', "%%")
}
