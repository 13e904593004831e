//! What is to run, and where its files are, on each platform.

use std::fmt;

use anyhow::Result;
use clap::ValueEnum;

use crate::exit::Failed;
use crate::install::{launchd, systemd, windows};

/// A manager of services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Platform {
    /// Linux
    Systemd,
    /// macOS
    Launchd,
    /// A scheduled task
    Windows,
}

impl Platform {
    /// That of this machine.
    pub(super) const HERE: Self = if cfg!(windows) {
        Self::Windows
    } else if cfg!(target_os = "macos") {
        Self::Launchd
    } else {
        Self::Systemd
    };
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Systemd => "systemd",
            Self::Launchd => "launchd",
            Self::Windows => "windows",
        })
    }
}

/// Whose service it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    User,
    System,
}

/// A worker as a service. Paths are texts, since they may be of another platform.
#[derive(Debug, Clone)]
pub(super) struct Service {
    pub(super) platform: Platform,
    pub(super) owner: Owner,
    /// Below this are the files of a user's service.
    pub(super) home: String,
    pub(super) program: String,
    pub(super) role: String,
    pub(super) url: String,
    pub(super) worker_id: Option<String>,
    pub(super) run_as: Option<String>,
    pub(super) config_dir: Option<String>,
    /// How long it may take to stop.
    pub(super) stop_s: u64,
}

/// The directory that a user's files are in, from the environment; what is printed for another machine gets
/// a name to be replaced.
pub(super) fn home(platform: Platform, owner: Owner) -> Result<String> {
    let variable = if platform == Platform::Windows { "LOCALAPPDATA" } else { "HOME" };
    match std::env::var(variable).ok().filter(|home| !home.is_empty()) {
        _ if owner == Owner::System => Ok(String::new()),
        Some(home) => Ok(home),
        None if platform == Platform::HERE => {
            Err(Failed::usage(format!("{variable}: is not set, and says where your files are"))
                .into())
        }
        None => Ok(format!("<your {variable}>")),
    }
}

impl Service {
    /// Refuses what no service file can hold.
    pub(super) fn check(&self) -> Result<()> {
        let absolute = match self.platform {
            Platform::Windows => self.program.chars().nth(1) == Some(':'),
            _ => self.program.starts_with('/'),
        };
        if !absolute {
            let text = format!("--program {:?}: must be an absolute path", self.program);
            return Err(Failed::usage(text).into());
        }
        // systemd refuses these in the name of a program, however they are written.
        if self.platform == Platform::Systemd && self.program.contains(['"', '\'', '\\']) {
            let text = format!(
                "--program {:?}: systemd takes no quotes and backslashes in it",
                self.program
            );
            return Err(Failed::usage(text)
                .hint("Install `cogo` elsewhere, such as in /usr/local/bin.")
                .into());
        }
        let quotes = self.platform == Platform::Windows;
        let unfit = |text: &str| text.chars().any(|c| c.is_control() || (quotes && c == '"'));
        let texts = [
            ("--program", Some(&self.program)),
            ("--worker-id", self.worker_id.as_ref()),
            ("--config-dir", self.config_dir.as_ref()),
            ("HOME", Some(&self.home)),
        ];
        for (name, text) in texts {
            if let Some(text) = text.filter(|text| unfit(text)) {
                let text =
                    format!("{name} {text:?}: has a character that a service file cannot hold");
                return Err(Failed::usage(text).into());
            }
        }
        if self.platform == Platform::Launchd
            && self.owner == Owner::System
            && self.run_as.is_none()
        {
            return Err(Failed::usage(
                "--run-as: is needed, since a daemon of launchd would run as root",
            )
            .hint("Name a user for the worker, such as --run-as _cogo.")
            .into());
        }
        if self.platform == Platform::Windows && self.run_as.is_some() {
            let text = "--run-as: on Windows a task of the machine runs as LOCAL SERVICE";
            return Err(Failed::usage(text).hint("Leave it out.").into());
        }
        Ok(())
    }

    pub(super) fn name(&self) -> String {
        match self.platform {
            Platform::Launchd => format!("cogo.worker.{}", self.role),
            _ => format!("cogo-worker-{}", self.role),
        }
    }

    /// The program's arguments.
    pub(super) fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["worker".to_owned(), self.role.clone()];
        arguments.extend(["--url".to_owned(), self.url.clone()]);
        if let Some(id) = &self.worker_id {
            // In one word, since an id may begin with a dash.
            arguments.push(format!("--worker-id={id}"));
        }
        arguments
    }

    /// The service file's text.
    pub(super) fn text(&self) -> String {
        match self.platform {
            Platform::Systemd => systemd::text(self),
            Platform::Launchd => launchd::text(self),
            Platform::Windows => windows::text(self),
        }
    }

    /// Where the service file is.
    pub(super) fn file(&self) -> String {
        let (name, home) = (self.name(), &self.home);
        match (self.platform, self.owner) {
            (Platform::Systemd, Owner::User) => {
                format!("{home}/.config/systemd/user/{name}.service")
            }
            (Platform::Systemd, Owner::System) => format!("/etc/systemd/system/{name}.service"),
            (Platform::Launchd, Owner::User) => format!("{home}/Library/LaunchAgents/{name}.plist"),
            (Platform::Launchd, Owner::System) => format!("/Library/LaunchDaemons/{name}.plist"),
            (Platform::Windows, Owner::User) => format!("{home}\\cogo\\{name}.ps1"),
            (Platform::Windows, Owner::System) => format!("C:\\ProgramData\\cogo\\{name}.ps1"),
        }
    }

    /// Where the key is.
    pub(super) fn key_file(&self) -> String {
        let (role, home) = (&self.role, &self.home);
        match (self.platform, self.owner) {
            (Platform::Systemd, Owner::User) => format!("{home}/.config/cogo/worker-{role}.env"),
            (Platform::Systemd, Owner::System) => format!("/etc/cogo/worker-{role}.env"),
            (Platform::Launchd, Owner::User) => {
                format!("{home}/Library/Application Support/cogo/worker-{role}.key")
            }
            (Platform::Launchd, Owner::System) => {
                format!("/Library/Application Support/cogo/worker-{role}.key")
            }
            (Platform::Windows, Owner::User) => format!("{home}\\cogo\\worker-{role}.key"),
            (Platform::Windows, Owner::System) => {
                format!("C:\\ProgramData\\cogo\\worker-{role}.key")
            }
        }
    }

    /// The key as its file holds it.
    pub(super) fn key_text(&self, secret: &str) -> String {
        match self.platform {
            Platform::Systemd => format!("COGO_KEY={secret}\n"),
            _ => format!("{secret}\n"),
        }
    }

    /// The commands that start it and look after it.
    pub(super) fn next(&self) -> Vec<String> {
        match self.platform {
            Platform::Systemd => systemd::next(self),
            Platform::Launchd => launchd::next(self),
            Platform::Windows => windows::next(self),
        }
    }

    /// Where variables of the service are set.
    pub(super) fn how_to_set(&self) -> String {
        match self.platform {
            Platform::Systemd => format!("add it to {}", self.key_file()),
            Platform::Launchd => format!("add it to EnvironmentVariables in {}", self.file()),
            Platform::Windows => "set it for the user, with setx".to_owned(),
        }
    }
}
