//! Which program brings containers up here, and whether its engine runs.

use std::fmt;
use std::process::{Output, Stdio};
use std::time::Duration;

use super::last_lines;

/// The programs that are asked, in this order.
const PROGRAMS: &[&str] = &["docker", "podman"];
/// Either answers at once, or never will: a socket whose engine hangs.
const ASK_WITHIN: Duration = Duration::from_secs(15);

/// A program with Compose 2 or newer, and an engine that answers it.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) program: &'static str,
    compose: String,
    engine: String,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} compose {}, engine {}", self.program, self.compose, self.engine)
    }
}

impl Engine {
    /// The first that will do; else what each was asked and said.
    pub(super) async fn find() -> Result<Self, String> {
        let mut why = Vec::new();
        for program in PROGRAMS {
            match Self::of(program).await {
                Ok(engine) => return Ok(engine),
                Err(said) => why.push(said),
            }
        }
        Err(format!("no container engine runs here: {}", why.join("; ")))
    }

    async fn of(program: &'static str) -> Result<Self, String> {
        let compose = ask(program, &["compose", "version", "--short"]).await?;
        // podman-compose, which `podman compose` may stand for, is another program with versions of its own.
        let major = compose.trim_start_matches('v').split('.').next();
        if major.and_then(|major| major.parse::<u32>().ok()).is_none_or(|major| major < 2) {
            return Err(format!(
                "`{program} compose version --short` said {compose:?}, and Docker Compose 2 or newer is needed"
            ));
        }
        // The format asks the engine; without it Docker's command ends well where none runs.
        let format = match program {
            "podman" => "{{.Version.Version}}",
            _ => "{{.ServerVersion}}",
        };
        let engine = ask(program, &["info", "--format", format]).await?;
        Ok(Self { program, compose, engine })
    }
}

/// What a command said on stdout; else which command said what.
async fn ask(program: &str, args: &[&str]) -> Result<String, String> {
    let mut command = tokio::process::Command::new(program);
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    let line = || format!("`{program} {}`", args.join(" "));
    let Output { status, stdout, stderr } =
        match tokio::time::timeout(ASK_WITHIN, command.output()).await {
            Ok(Ok(output)) => output,
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(format!("there is no `{program}`"));
            }
            Ok(Err(error)) => return Err(format!("{} could not be run: {error}", line())),
            Err(_) => {
                return Err(format!("{} said nothing for {} s", line(), ASK_WITHIN.as_secs()));
            }
        };
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    let answer = stdout.trim();
    match status.success() && !answer.is_empty() {
        true => Ok(answer.to_owned()),
        false => Err(match last_lines(&stderr, 1) {
            said if said.is_empty() => format!("{} said nothing, and ended with {status}", line()),
            said => format!("{} said: {said}", line()),
        }),
    }
}
