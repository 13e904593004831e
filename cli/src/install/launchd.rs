//! A launchd property list (launchd.plist(5)).

use std::fmt::Write as _;

use crate::install::service::{Owner, Service};

/// launchd has no file of variables, and its property lists can be read by others: so a shell reads the
/// key, and becomes the worker. The arguments are its parameters, and no text of its own.
const RUN: &str = r#"COGO_KEY=$(cat "$1") || exit 1; export COGO_KEY; shift; exec "$@""#;

pub(super) fn text(service: &Service) -> String {
    let mut words = ["/bin/sh", "-c", RUN, "sh"].map(str::to_owned).to_vec();
    words.extend([service.key_file(), service.program.clone()]);
    words.extend(service.arguments());
    let mut arguments = String::new();
    for word in &words {
        let _infallible = write!(arguments, "\n        <string>{}</string>", escaped(word));
    }
    let mut more = String::new();
    let mut string = |key: &str, value: &str| {
        let value = escaped(value);
        let _infallible = write!(more, "\n    <key>{key}</key>\n    <string>{value}</string>");
    };
    let log = log(service);
    string("StandardOutPath", &log);
    string("StandardErrorPath", &log);
    if let Some(user) = &service.run_as {
        string("UserName", user);
    }
    if let Some(dir) = &service.config_dir {
        let dir = escaped(dir);
        let _infallible = write!(
            more,
            "\n    <key>EnvironmentVariables</key>\n    <dict>\n        <key>COGO_CONFIG_DIR</key>\n        \
             <string>{dir}</string>\n    </dict>"
        );
    }
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
    <key>Label</key>
    <string>{name}</string>
    <key>ProgramArguments</key>
    <array>{arguments}
    </array>
    <key>RunAtLoad</key>
    <true/>
    <key>KeepAlive</key>
    <true/>
    <!-- Seconds: between two starts at least, and for stopping at most. -->
    <key>ThrottleInterval</key>
    <integer>10</integer>
    <key>ExitTimeOut</key>
    <integer>{stop_s}</integer>
    <key>Umask</key>
    <integer>63</integer>{more}
</dict>
</plist>
"#,
        name = escaped(&service.name()),
        stop_s = service.stop_s,
    )
}

fn log(service: &Service) -> String {
    match service.owner {
        Owner::User => format!("{}/Library/Logs/{}.log", service.home, service.name()),
        Owner::System => format!("/Library/Logs/{}.log", service.name()),
    }
}

pub(super) fn next(service: &Service) -> Vec<String> {
    let file = shell(&service.file());
    let (domain, name) = match service.owner {
        Owner::User => ("gui/$(id -u)", service.name()),
        Owner::System => ("system", service.name()),
    };
    let mut commands = Vec::new();
    if let Some(user) = &service.run_as {
        // The key is the administrator's as it was written; the log must be there for others to write to.
        commands.push(format!("chown {user} {}", shell(&service.key_file())));
        commands.push(format!("touch {0} && chown {user} {0}", shell(&log(service))));
    }
    commands.extend([
        format!("launchctl bootout {domain}/{name} 2>/dev/null    # if it ran before"),
        format!("launchctl bootstrap {domain} {file}"),
        format!("tail {}", shell(&log(service))),
    ]);
    commands
}

/// One word for a shell.
fn shell(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Text of XML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
