//! A Postgres of our own, through everything that can happen to it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use cogo::db::embedded::{self, Embedded, Error, Options};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection, Row};
use tempfile::TempDir;

use crate::support::{Other, say, until};

/// A directory that every user may pass through, as the one of a root's server must be.
fn temp_dir() -> Result<TempDir> {
    let dir = tempfile::Builder::new().prefix("cogo-it-").tempdir()?;
    #[cfg(unix)]
    fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711))?;
    Ok(dir)
}

fn log_of(data_dir: &Path) -> Result<String> {
    Ok(fs::read_to_string(data_dir.join("postgres/server.log"))?)
}

fn cluster_of(data_dir: &Path) -> Result<PathBuf> {
    Ok(data_dir.join("postgres/data").canonicalize()?)
}

async fn put(options: &PgConnectOptions, value: &str) -> Result<()> {
    let mut connection = options.connect().await?;
    sqlx::query("create table if not exists kept (value text)").execute(&mut connection).await?;
    sqlx::query("insert into kept values ($1)").bind(value).execute(&mut connection).await?;
    Ok(connection.close().await?)
}

async fn kept(options: &PgConnectOptions) -> Result<Vec<String>> {
    let mut connection = options.connect().await?;
    let values = sqlx::query_scalar("select value from kept order by value")
        .fetch_all(&mut connection)
        .await?;
    connection.close().await?;
    Ok(values)
}

/// Asserts that every server on the directory ended in good order and none had to recover.
fn assert_no_recovery(data_dir: &Path) -> Result<()> {
    let log = log_of(data_dir)?;
    assert!(log.contains("database system is shut down"), "{log}");
    for sign in ["interrupted", "not properly shut down", "recovery"] {
        assert!(!log.contains(sign), "{log}");
    }
    Ok(())
}

#[tokio::test]
async fn the_second_start_finds_what_the_first_one_stored() -> Result<()> {
    let dir = temp_dir()?;
    // Created with the directories above it; spaces, commas and quotes mean something to Postgres.
    let data_dir = dir.path().join("some where/a \"b\", c");
    let first = Embedded::start(Options::new(&data_dir)).await?;
    put(&first.connect_options(), "one").await?;
    let version = first.version();
    assert!(version.major >= 15, "{version}");
    first.stop().await?;
    assert!(embedded::running(&data_dir).is_none());

    let second = Embedded::start(Options::new(&data_dir)).await?;
    assert_eq!(kept(&second.connect_options()).await?, ["one"]);
    let attached = embedded::running(&data_dir).context("it runs")?;
    assert_eq!(kept(&attached).await?, ["one"]);
    second.stop().await?;
    assert_no_recovery(&data_dir)
}

#[tokio::test]
async fn durability_is_whole_and_the_server_is_private() -> Result<()> {
    let dir = temp_dir()?;
    let server = Embedded::start(Options::new(dir.path())).await?;
    let mut connection = server.connect_options().connect().await?;
    for (setting, wanted) in [
        ("fsync", "on"),
        ("full_page_writes", "on"),
        ("synchronous_commit", "on"),
        ("data_checksums", "on"),
        ("server_encoding", "UTF8"),
        ("listen_addresses", ""),
        ("unix_socket_permissions", "0700"),
    ] {
        let row = sqlx::query(sqlx::AssertSqlSafe(format!("show {setting}")))
            .fetch_one(&mut connection)
            .await?;
        assert_eq!(row.get::<String, _>(0), wanted, "{setting}");
    }
    connection.close().await?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let options = server.connect_options();
        let sockets = options.get_socket().context("no socket")?;
        assert_eq!(fs::metadata(sockets)?.mode() & 0o777, 0o700);
        assert_ne!(fs::metadata(dir.path().join("postgres"))?.uid(), 0, "Postgres refuses root");
    }
    // Ctrl-C at a terminal goes to the foreground group, of which the server must be no part.
    #[cfg(target_os = "linux")]
    {
        let pid = server.pid().to_string();
        let stat = fs::read_to_string(Path::new("/proc").join(&pid).join("stat"))?;
        assert_eq!(stat.split_whitespace().nth(4), Some(&*pid), "{stat}");
    }
    server.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_setting_that_weakens_durability_is_refused() -> Result<()> {
    let dir = temp_dir()?;
    let mut options = Options::new(dir.path());
    options.settings.push(("fsync".to_owned(), "off".to_owned()));
    let refused = Embedded::start(options).await.expect_err("fsync=off");
    assert!(matches!(refused, Error::Setting { .. }), "{refused}");
    Ok(())
}

#[tokio::test]
async fn a_second_start_is_refused_and_says_who_has_the_directory() -> Result<()> {
    let dir = temp_dir()?;
    let server = Embedded::start(Options::new(dir.path())).await?;
    let refused = Embedded::start(Options::new(dir.path())).await.expect_err("a second start");
    let wanted = format!("already in use by pid {}", std::process::id());
    assert!(refused.to_string().contains(&wanted), "{refused}");
    put(&server.connect_options(), "still here").await?;
    server.stop().await?;
    Ok(())
}

#[tokio::test]
async fn of_two_starts_at_once_one_wins() -> Result<()> {
    let dir = temp_dir()?;
    let start = || Embedded::start(Options::new(dir.path()));
    let (one, two) = tokio::join!(start(), start());
    let (won, lost) = match (one, two) {
        (Ok(won), Err(lost)) | (Err(lost), Ok(won)) => (won, lost),
        both => anyhow::bail!("{both:?}"),
    };
    assert!(matches!(lost, Error::InUse { pid: Some(_), .. }), "{lost}");
    won.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_dropped_server_goes_in_good_order() -> Result<()> {
    let dir = temp_dir()?;
    let server = Embedded::start(Options::new(dir.path())).await?;
    drop(server);
    let log = || log_of(dir.path()).is_ok_and(|log| log.contains("database system is shut down"));
    until("the server is shut down", log).await
}

#[cfg(unix)]
#[tokio::test]
async fn a_server_that_dies_is_reported_and_its_successor_recovers() -> Result<()> {
    let dir = temp_dir()?;
    let server = Embedded::start(Options::new(dir.path())).await?;
    put(&server.connect_options(), "committed").await?;
    let exited = server.exited();
    let pid = server.pid().to_string();
    let killed = Command::new("kill").args(["-KILL", &pid]).status()?;
    assert!(killed.success());
    let error = exited.await;
    assert!(error.to_string().contains("SIGKILL"), "{error}");
    server.stop().await?;

    let next = Embedded::start(Options::new(dir.path())).await?;
    assert_eq!(kept(&next.connect_options()).await?, ["committed"]);
    next.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_server_that_was_told_to_stop_is_not_reported_as_dead() -> Result<()> {
    let dir = temp_dir()?;
    let server = Embedded::start(Options::new(dir.path())).await?;
    let exited = server.exited();
    server.stop().await?;
    let wrong = tokio::select! {
        biased;
        error = exited => Some(error),
        () = tokio::task::yield_now() => None,
    };
    assert!(wrong.is_none(), "{wrong:?}");
    Ok(())
}

#[tokio::test]
async fn a_failing_start_shows_the_end_of_the_servers_log() -> Result<()> {
    let dir = temp_dir()?;
    let mut options = Options::new(dir.path());
    options.settings.push(("shared_buffers".to_owned(), "plenty".to_owned()));
    let error = Embedded::start(options).await.expect_err("nonsense");
    assert!(error.to_string().contains("invalid value for parameter"), "{error}");
    // It was not the directory's fault.
    Embedded::start(Options::new(dir.path())).await?.stop().await?;
    Ok(())
}

#[tokio::test]
async fn an_initialisation_that_was_cut_off_is_begun_anew() -> Result<()> {
    let dir = temp_dir()?;
    Embedded::start(Options::new(dir.path())).await?.stop().await?;
    let root = dir.path().join("postgres");
    // As a crash in the middle of `initdb` leaves it.
    fs::rename(root.join("data"), root.join("data.new-1234"))?;
    fs::remove_dir_all(root.join("data.new-1234/base"))?;

    let server = Embedded::start(Options::new(dir.path())).await?;
    put(&server.connect_options(), "whole").await?;
    server.stop().await?;
    assert!(!root.join("data.new-1234").exists());
    Ok(())
}

#[tokio::test]
async fn a_data_directory_with_a_long_path_still_gets_a_socket() -> Result<()> {
    let dir = temp_dir()?;
    let data_dir = dir.path().join("long".repeat(30));
    let server = Embedded::start(Options::new(&data_dir)).await?;
    let options = server.connect_options();
    put(&options, "reached").await?;
    let attached = embedded::running(&data_dir).context("it runs")?;
    assert_eq!(kept(&attached).await?, ["reached"]);
    server.stop().await?;
    fs::remove_dir(options.get_socket().context("no socket")?)?;
    Ok(())
}

#[tokio::test]
async fn over_loopback_the_password_decides() -> Result<()> {
    let dir = temp_dir()?;
    let server = Embedded::start(Options::new(dir.path()).over_loopback()).await?;
    let options = server.connect_options();
    put(&options, "in").await?;
    let refused = options.clone().password("guess").connect().await.expect_err("a wrong password");
    let code = refused.as_database_error().and_then(|error| error.code());
    assert_eq!(code.as_deref(), Some("28P01"), "{refused}");
    server.stop().await?;

    // The directory remembers how it was made.
    let server = Embedded::start(Options::new(dir.path())).await?;
    let attached = embedded::running(dir.path()).context("it runs")?;
    assert_eq!(kept(&attached).await?, ["in"]);
    server.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_directory_without_programs_is_refused_by_name() -> Result<()> {
    let dir = temp_dir()?;
    let nothing = dir.path().join("nothing");
    let mut options = Options::new(dir.path().join("data"));
    options.pg_bin = Some(nothing.clone());
    let refused = Embedded::start(options).await.expect_err("no programs").to_string();
    assert!(refused.contains(&*nothing.to_string_lossy()), "{refused}");

    let data_dir = dir.path().join("data");
    let variables = [
        ("COGO_TEST_PARENT_OF", data_dir.to_str().context("no text")?),
        ("COGO_PG_BIN", nothing.to_str().context("no text")?),
    ];
    let mut other = Other::run("embedded::a_parent_that_is_killed", &variables)?;
    let refused = other.says("FAILED")?;
    assert!(refused.starts_with("COGO_PG_BIN is "), "{refused}");
    assert!(refused.contains(&*nothing.to_string_lossy()), "{refused}");
    Ok(())
}

#[tokio::test]
async fn data_of_another_major_version_are_refused_untouched() -> Result<()> {
    let dir = temp_dir()?;
    let server = Embedded::start(Options::new(dir.path())).await?;
    let major = server.version().major;
    server.stop().await?;
    let version = cluster_of(dir.path())?.join("PG_VERSION");
    fs::write(&version, "14\n")?;

    let refused = Embedded::start(Options::new(dir.path())).await.expect_err("14").to_string();
    for part in ["data of Postgres 14", &format!("Postgres {major}."), "COGO_PG_BIN", "--data-dir"]
    {
        assert!(refused.contains(part), "{refused}");
    }

    fs::write(&version, format!("{major}\n"))?;
    Embedded::start(Options::new(dir.path())).await?.stop().await?;
    assert_no_recovery(dir.path())
}

#[cfg(unix)]
#[tokio::test]
async fn as_root_a_closed_directory_on_the_way_is_named() -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let dir = temp_dir()?;
    fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    if fs::metadata(dir.path())?.uid() != 0 {
        return Ok(()); // then the server runs as ourselves
    }
    let data_dir = dir.path().join("data");
    let refused = Embedded::start(Options::new(data_dir)).await.expect_err("it is closed");
    let Error::Unreachable { dir: closed, .. } = &refused else {
        anyhow::bail!("{refused}");
    };
    assert_eq!(closed, &dir.path().canonicalize()?);
    assert!(refused.to_string().contains("--data-dir"), "{refused}");
    Ok(())
}

#[tokio::test]
#[ignore = "the other process of the tests below"]
async fn a_parent_that_is_killed() -> Result<()> {
    let Some(data_dir) = std::env::var_os("COGO_TEST_PARENT_OF") else {
        return Ok(());
    };
    let server = match Embedded::start(Options::new(data_dir)).await {
        Ok(server) => server,
        Err(error) => return say("FAILED", error),
    };
    say("RUNS", server.pid())?;
    Err(server.exited().await.into())
}

/// A process that has a server on `data_dir`, and the server's pid.
fn parent_of(data_dir: &Path) -> Result<(Other, String)> {
    let data_dir = data_dir.to_str().context("no text")?;
    let variables = [("COGO_TEST_PARENT_OF", data_dir)];
    let mut parent = Other::run("embedded::a_parent_that_is_killed", &variables)?;
    let server = parent.says("RUNS")?;
    Ok((parent, server))
}

/// A living process, not a zombie, has this as its program.
#[cfg(target_os = "linux")]
fn program_of(pid: &str) -> Option<PathBuf> {
    fs::read_link(Path::new("/proc").join(pid).join("exe")).ok()
}

/// The server processes that work in `cluster` and are not the children of another one.
#[cfg(target_os = "linux")]
fn servers_on(cluster: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for process in fs::read_dir("/proc")? {
        let process = process?.path();
        if fs::read_link(process.join("cwd")).is_ok_and(|dir| dir == cluster)
            && let Ok(status) = fs::read_to_string(process.join("status"))
        {
            let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
            let parent = parent.context("no parent")?.trim().to_owned();
            found.push((
                process.file_name().context("no pid")?.to_string_lossy().into_owned(),
                parent,
            ));
        }
    }
    let is_server = |pid: &str| found.iter().any(|(server, _)| server == pid);
    let roots = found.iter().filter(|(_, parent)| !is_server(parent));
    Ok(roots.map(|(pid, _)| pid.clone()).collect())
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_killed_parent_takes_its_server_along_in_good_order() -> Result<()> {
    let dir = temp_dir()?;
    let (mut parent, server) = parent_of(dir.path())?;
    let refused = Embedded::start(Options::new(dir.path())).await.expect_err("the parent lives");
    assert!(refused.to_string().contains(&format!("by pid {}", parent.pid())), "{refused}");
    assert!(program_of(&server).is_some());

    parent.kill()?;

    until("the server is gone", || program_of(&server).is_none()).await?;
    assert_no_recovery(dir.path())
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_start_right_after_a_killed_parent_finds_the_data_and_stays_alone() -> Result<()> {
    let dir = temp_dir()?;
    for round in ["1", "2", "3"] {
        let (mut parent, old) = parent_of(dir.path())?;
        put(&embedded::running(dir.path()).context("it runs")?, round).await?;
        // A session that is busy, so that the old server does not go at once.
        let options = embedded::running(dir.path()).context("it runs")?;
        let mut busy: PgConnection = options.connect().await?;
        sqlx::raw_sql("begin; insert into kept values ('not committed')")
            .execute(&mut busy)
            .await?;
        parent.kill()?;

        let server = Embedded::start(Options::new(dir.path())).await?;
        assert_eq!(servers_on(&cluster_of(dir.path())?)?, [server.pid().to_string()]);
        assert_ne!(server.pid().to_string(), old);
        assert_eq!(kept(&server.connect_options()).await?.last().map(String::as_str), Some(round));
        server.stop().await?;
    }
    assert_no_recovery(dir.path())
}

/// Runs `program` as the owner of the cluster, as the server does.
#[cfg(unix)]
fn as_owner(cluster: &Path, program: &Path) -> Result<Command> {
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
    let owner = fs::metadata(cluster)?;
    if fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0) {
        command.uid(owner.uid()).gid(owner.gid());
    }
    Ok(command)
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_server_that_nobody_tied_to_its_parent_is_shut_down_first() -> Result<()> {
    let dir = temp_dir()?;
    let first = Embedded::start(Options::new(dir.path())).await?;
    put(&first.connect_options(), "kept").await?;
    let program = program_of(&first.pid().to_string()).context("it runs")?;
    first.stop().await?;

    let cluster = cluster_of(dir.path())?;
    let mut orphan = as_owner(&cluster, &program)?
        .arg("-D")
        .arg(&cluster)
        .args(["-c", "listen_addresses=", "-c"])
        .arg(format!("unix_socket_directories={}", cluster.with_file_name("run").display()))
        .spawn()?;
    let pid_file = cluster.join("postmaster.pid");
    until("the orphan is ready", || {
        fs::read_to_string(&pid_file).is_ok_and(|text| text.contains("ready"))
    })
    .await?;

    let server = Embedded::start(Options::new(dir.path())).await?;

    assert!(orphan.wait()?.success(), "it was not shut down in good order");
    assert_eq!(servers_on(&cluster)?, [server.pid().to_string()]);
    assert_eq!(kept(&server.connect_options()).await?, ["kept"]);
    server.stop().await?;
    assert_no_recovery(dir.path())
}

#[cfg(unix)]
#[tokio::test]
async fn a_pid_file_that_names_another_process_by_now_does_it_no_harm() -> Result<()> {
    let dir = temp_dir()?;
    let first = Embedded::start(Options::new(dir.path())).await?;
    put(&first.connect_options(), "kept").await?;
    first.stop().await?;

    // Of the server's own user, because Postgres would believe the file only then.
    let cluster = cluster_of(dir.path())?;
    let mut unrelated = as_owner(&cluster, Path::new("sleep"))?.arg("600").spawn()?;
    let text = format!(
        "{}\n{}\n1700000000\n5432\n/nowhere\n\n1 1\nready\n",
        unrelated.id(),
        cluster.display()
    );
    fs::write(cluster.join("postmaster.pid"), text)?;
    assert!(embedded::running(dir.path()).is_none());

    let server = Embedded::start(Options::new(dir.path())).await?;

    assert!(unrelated.try_wait()?.is_none(), "it was signalled");
    assert_eq!(kept(&server.connect_options()).await?, ["kept"]);
    server.stop().await?;
    unrelated.kill()?;
    unrelated.wait()?;
    Ok(())
}
