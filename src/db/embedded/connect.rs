//! How our own server is reached.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{ConnectOptions, Connection, Executor};

use super::error::Error;
use super::layout::Layout;
use super::pid_file::PidFile;
use super::{DATABASE, USER};

/// What the server listens on; fixed when the cluster is initialised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    /// A Unix socket, which its directory protects.
    #[cfg(unix)]
    Socket,
    /// A port of 127.0.0.1, which any user of the machine can reach; so with a password.
    #[cfg_attr(unix, allow(dead_code))] // tests use it everywhere
    Loopback,
}

impl Default for Transport {
    fn default() -> Self {
        #[cfg(unix)]
        return Self::Socket;
        #[cfg(not(unix))]
        return Self::Loopback;
    }
}

/// Where one running server listens.
#[derive(Debug, Clone)]
pub(crate) enum Endpoint {
    /// The directory of the socket.
    Socket(PathBuf),
    /// The port, and the superuser's password.
    Loopback(u16, String),
}

impl Endpoint {
    /// Chooses for a server that is about to start.
    pub(crate) fn choose(layout: &Layout) -> Result<Self, Error> {
        if !layout.password().exists() {
            return Ok(Self::Socket(layout.socket_dir()));
        }
        // Free now; if someone takes it before the server does, the start fails and says so.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| listener.local_addr())
            .map_err(Error::io("find a free port for", layout.root()))?
            .port();
        Ok(Self::Loopback(port, read_password(layout)?))
    }

    /// Where the server with that pid file listens.
    pub(crate) fn of(pid_file: &PidFile, layout: &Layout) -> Option<Self> {
        match &pid_file.socket_dir {
            Some(dir) => Some(Self::Socket(dir.clone())),
            None => Some(Self::Loopback(pid_file.port, read_password(layout).ok()?)),
        }
    }

    /// The settings that make the server listen there and nowhere else.
    pub(crate) fn settings(&self) -> [(&'static str, String); 3] {
        match self {
            Self::Socket(dir) => [
                ("listen_addresses", String::new()),
                // A list; in quotes a path may hold commas and spaces.
                (
                    "unix_socket_directories",
                    format!("\"{}\"", dir.to_string_lossy().replace('"', "\"\"")),
                ),
                ("port", "5432".to_owned()),
            ],
            Self::Loopback(port, _) => [
                ("listen_addresses", "127.0.0.1".to_owned()),
                ("unix_socket_directories", String::new()),
                ("port", port.to_string()),
            ],
        }
    }

    /// How to connect to `database`. What `PG*` variables say about other servers is overridden.
    pub(crate) fn options(&self, database: &str) -> PgConnectOptions {
        let options = PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .username(USER)
            .database(database)
            .ssl_mode(PgSslMode::Disable)
            .application_name("cogo");
        match self {
            Self::Socket(dir) => options.socket(dir).port(5432),
            Self::Loopback(port, password) => options.port(*port).password(password),
        }
    }
}

/// Writes a new password for the superuser to the file that marks a loopback cluster.
pub(crate) fn create_password(layout: &Layout) -> Result<PathBuf, Error> {
    let path = layout.password();
    let mut file = tempfile::NamedTempFile::new_in(layout.root()) // readable by its owner only
        .map_err(Error::io("create a file in", layout.root()))?;
    writeln!(file, "{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple())
        .map_err(Error::io("write", &path))?;
    file.persist(&path).map_err(|error| error.error).map_err(Error::io("write", &path))?;
    Ok(path)
}

fn read_password(layout: &Layout) -> Result<String, Error> {
    let path = layout.password();
    let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    Ok(text.trim().to_owned())
}

/// Creates [`DATABASE`] if this is the first start.
pub(crate) async fn ensure_database(options: &PgConnectOptions) -> Result<(), Error> {
    let refused = match options.connect().await {
        Ok(connection) => return close(connection).await,
        Err(error) => error,
    };
    let missing =
        refused.as_database_error().is_some_and(|error| error.code().as_deref() == Some("3D000"));
    if !missing {
        return Err(Error::Query { action: "connect to the database", source: refused });
    }
    let query = |source| Error::Query { action: "create the database", source };
    let mut connection = options.clone().database("postgres").connect().await.map_err(query)?;
    connection
        .execute(sqlx::AssertSqlSafe(format!("create database {DATABASE}")))
        .await
        .map_err(query)?;
    close(connection).await
}

async fn close(connection: PgConnection) -> Result<(), Error> {
    connection.close().await.map_err(|source| Error::Query { action: "end the session", source })
}
