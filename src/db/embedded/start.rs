//! One start, step by step.

use std::process::Command;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;

use super::account::RunAs;
use super::connect::{self, Endpoint, Transport};
use super::error::Error;
use super::find::Binaries;
use super::init::{self, Init};
use super::layout::Layout;
use super::lock::Lock;
use super::log::Log;
use super::pid_file::PidFile;
use super::server::Server;
use super::signal::Halt;
use super::version::Version;
use super::{DATABASE, USER};
use crate::clock::Stopwatch;

/// On the command line of the server, where neither `alter system` nor `postgresql.conf` reach.
const FIXED: &[(&str, &str)] = &[
    ("fsync", "on"),
    ("full_page_writes", "on"),
    ("synchronous_commit", "on"),
    ("unix_socket_permissions", "0700"),
    ("logging_collector", "off"),
    ("log_destination", "stderr"),
    // Statements and rows are payloads, which logs never hold.
    ("log_min_error_statement", "panic"),
    ("log_error_verbosity", "terse"),
];

/// What the server must not be told otherwise.
const REFUSED: &[(&[&str], &str)] = &[
    (
        &["fsync", "full_page_writes", "synchronous_commit", "zero_damaged_pages"],
        "what is committed must survive a crash",
    ),
    (
        &["listen_addresses", "port", "unix_socket_directories", "unix_socket_permissions"],
        "the server is private to its user",
    ),
    (
        &["data_directory", "config_file", "hba_file", "ident_file", "external_pid_file"],
        "everything is kept below the data directory",
    ),
    (&["logging_collector", "log_destination"], "failures are explained from server.log"),
];

/// Refuses settings on which the promises of the module rest.
pub(crate) fn check_settings(settings: &[(String, String)]) -> Result<(), Error> {
    for (name, _) in settings {
        // The server takes names in any case, and `-` for `_`.
        let plain = name.to_ascii_lowercase().replace('-', "_");
        if let Some((_, reason)) = REFUSED.iter().find(|(names, _)| names.contains(&plain.trim())) {
            return Err(Error::Setting { name: name.clone(), reason });
        }
    }
    Ok(())
}

/// Everything that a start needs, found and locked.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) binaries: Binaries,
    pub(crate) run_as: RunAs,
    pub(crate) layout: Layout,
    pub(crate) lock: Lock,
}

impl Start {
    pub(crate) fn version(&self) -> Version {
        self.binaries.version()
    }

    /// Checks that the server's user gets to the programs and to its files.
    pub(crate) fn check_reach(&self) -> Result<(), Error> {
        let program = self.binaries.program("postgres");
        self.run_as.check_reach(&program, &self.layout.root())?;
        self.run_as.check_reach(&program, &self.layout.socket_dir())
    }

    /// Makes the new cluster.
    pub(crate) fn initialize(&self, transport: Transport) -> Result<(), Error> {
        let root = self.layout.root();
        let password_file = match transport {
            #[cfg(unix)]
            Transport::Socket => None,
            Transport::Loopback => {
                let path = connect::create_password(&self.layout)?;
                self.run_as.own(&path)?;
                Some(path)
            }
        };
        let init = Init { password_file: password_file.as_deref(), no_sync: false };
        tracing::info!("Initialising Postgres {} in {}", self.version(), root.display());
        init::cluster(&self.binaries, &self.run_as, &root, init)
    }

    /// Starts the server and waits until it accepts connections.
    pub(crate) async fn launch(
        self,
        settings: &[(String, String)],
        deadline: Duration,
    ) -> Result<(Server, PgConnectOptions), Error> {
        let Self { binaries, run_as, layout, lock } = self;
        let endpoint = Endpoint::choose(&layout)?;
        let (log, file) = Log::open(&layout.log(), &run_as)?;
        let mut command = command(&binaries, &run_as, &layout.cluster(), &endpoint);
        for (name, value) in FIXED.iter().copied().chain(settings.iter().map(|(n, v)| (&**n, &**v)))
        {
            set(&mut command, name, value);
        }
        let stderr = file.try_clone().map_err(Error::io("share", layout.log()))?;
        command.stdout(file).stderr(stderr);

        let server = Server::spawn(command, log, lock).await?;
        let exited = server.exited();
        let ready = async {
            loop {
                // Until the server writes the file anew it may be that of an earlier one.
                let file = PidFile::read(&layout.cluster()).ok().flatten();
                if file.is_some_and(|file| file.ready && file.pid == server.pid()) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let waited = Stopwatch::start();
        tokio::select! {
            () = ready => {}
            error = exited => return Err(error),
            () = tokio::time::sleep(deadline) => {
                let (log, tail) = (server.log().path().to_owned(), server.log().tail());
                server.halt(Halt::Immediate);
                return Err(Error::NotReady { log, tail });
            }
        }
        tracing::info!(
            duration_ms = waited.elapsed_ms(),
            "Postgres {} runs on {} as pid {}",
            binaries.version(),
            layout.cluster().display(),
            server.pid()
        );
        Ok((server, endpoint.options(DATABASE)))
    }
}

/// The server on `cluster`, listening at `endpoint`.
pub(crate) fn command(
    binaries: &Binaries,
    run_as: &RunAs,
    cluster: &std::path::Path,
    endpoint: &Endpoint,
) -> Command {
    let mut command = Command::new(binaries.program("postgres"));
    run_as.apply(&mut command);
    command.current_dir(cluster).arg("-D").arg(cluster);
    for (name, value) in endpoint.settings() {
        set(&mut command, name, &value);
    }
    set(&mut command, "cluster_name", USER);
    set(&mut command, "timezone", "UTC");
    set(&mut command, "log_timezone", "UTC");
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt;
        // Ctrl-C at a terminal goes to the whole foreground group: the server would be gone before
        // we have drained.
        command.process_group(0);
    }
    command
}

/// Adds a setting to a server's command line.
pub(crate) fn set(command: &mut Command, name: &str, value: &str) {
    command.arg("-c").arg(format!("{name}={value}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durability_cannot_be_set_away() {
        let check = |name: &str| check_settings(&[(name.to_owned(), "off".to_owned())]);
        for name in ["fsync", "FSYNC", "full-page-writes", "synchronous_commit"] {
            let refused = check(name).expect_err(name).to_string();
            assert!(refused.contains(name) && refused.contains("survive"), "{refused}");
        }
        assert!(check("shared_buffers").is_ok());
    }
}
