//! `cogo token`: the tokens with which workers and clients call a hub, or Supabase.

mod inspect;
mod mint;

use anyhow::Result;
use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use cogo::identity::{Claims, Pattern, Role};

use crate::connect::Global;
use crate::exit::Exit;
use crate::jwt_secret;
use crate::output::Output;
use crate::text::{millis, moment};
use crate::token::Lies;

/// Make and read the tokens with which workers call in
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cogo token mint --tenant acme --worker laptop-1 --topic mcp-gateway/figma
  cogo token inspect < laptop-1.key

A token says for which tenant and which topics its holder may work; the database holds it to that.
It is signed with the hub's secret: COGO_JWT_SECRET, or jwt-secret in the data directory of a hub
on this machine. For hosted Supabase the secret is the project's JWT secret.")]
pub(crate) struct Token {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Mint(mint::Mint),
    Inspect(inspect::Inspect),
}

impl Token {
    pub(crate) fn run(self, global: &Global, output: Output) -> Result<Exit> {
        match self.command {
            Command::Mint(command) => command.run(global, output),
            Command::Inspect(command) => command.run(global, output),
        }
    }
}

/// Where the secrets are from, in words.
fn place(lies: &Lies) -> String {
    match lies {
        Lies::InEnvironment => jwt_secret::VARIABLE.to_owned(),
        Lies::InFile(path) => path.display().to_string(),
    }
}

/// What a token allows, as lines of a name and a text.
fn allows(claims: &Claims) -> Vec<(&'static str, String)> {
    let list = |patterns: &[Pattern]| match patterns {
        [] => "nothing".to_owned(),
        some => some.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    };
    let mut lines = vec![("ROLE", role(claims))];
    if claims.role == Role::Authenticated {
        let none = "none, so that it may do nothing";
        lines.push(("TENANT", claims.tenant.clone().unwrap_or_else(|| none.to_owned())));
        lines.push((
            "WORKER",
            match &claims.worker {
                Some(worker) => format!("{worker}, or {worker}.<anything>"),
                None => "none, so that it may not work, only send and read".to_owned(),
            },
        ));
        lines.push(("MAY WORK ON", list(&claims.topics)));
        lines.push(("MAY SEND TO", list(&claims.send)));
        if claims.operate {
            lines.push(("MAY OPERATE", "requeue what it may see".to_owned()));
        }
    }
    lines
}

fn role(claims: &Claims) -> String {
    let may = match claims.role {
        Role::Anon => "may connect, and nothing else",
        Role::Authenticated => "may do what follows",
        Role::ServiceRole => "may do everything",
    };
    format!("{}: {may}", claims.role)
}

/// When a token ends, with how long that is from now.
fn ends(claims: &Claims, now: DateTime<Utc>) -> String {
    let Some(at) = DateTime::from_timestamp(claims.exp, 0) else {
        return if claims.exp < 0 { "long ago".to_owned() } else { "never".to_owned() };
    };
    let left = (at - now).num_milliseconds();
    // Seconds are all that a token knows.
    let left = (left + 999 * i64::from(left > 0)) / 1000 * 1000;
    let whole = |ms: i64| millis(ms).replace(".00 s", " s");
    match left {
        0.. => format!("{}, in {}", moment(at), whole(left)),
        _ => format!("{}, {} ago", moment(at), whole(-left)),
    }
}
