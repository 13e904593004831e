//! `cogo token mint`: a token that says what its holder may.

use std::time::Duration;

use anyhow::Result;
use clap::{Args, ValueEnum};
use cogo::clock;
use cogo::identity::{
    Claims, MAX_TOKEN_BYTES, PATTERN_RULE, Pattern, Role, WORKER_RULE, valid_worker,
};
use cogo::message::{NAME_RULE, valid_name};
use serde_json::json;

use crate::connect::Global;
use crate::exit::{Exit, Failed};
use crate::jwt::{allows, ends, place};
use crate::jwt_secret;
use crate::output::{Output, note};
use crate::text::parse_lifetime;

/// What is said to be good for longer than this is doubted.
const LONG: Duration = Duration::from_secs(365 * 86_400);

/// Make a token: on stdout it alone, on stderr what it allows
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cogo token mint --tenant acme --worker laptop-1 --topic mcp-gateway/figma --expires 30d
  cogo token mint --tenant acme --worker planner --topic 'planner/*' --send 'mcp-gateway/*'
  cogo token mint --tenant acme --send echo/default --expires 12h     for a client that only sends
  cogo token mint --tenant acme --send 'mcp-gateway/*' --operate      an agent that may also requeue
  cogo token mint --role service_role --expires 1h                    may do everything
  cogo token mint --role anon --expires 1y                            only connects: for `apikey`
  COGO_KEY=$(cogo token mint …) cogo worker mcp-gateway --url https://hub.example

Topics are role/service, role/* or *. The holder may claim, extend, settle and read what --topic
names, and enqueue, cancel and read what --send names; with --operate it may also bring back dead
letters of both, and gets the tools of the toolset `cogo` that change something. The secret is COGO_JWT_SECRET, or jwt-secret in the
data directory of a hub on this machine.

To change the secret, put the new one in front: COGO_JWT_SECRET=<new>,<old>. New tokens are signed
with the first; those of the others stay good until they expire, or until you take the old one
away. That, too, is how a token is withdrawn before it expires.")]
pub(crate) struct Mint {
    /// As whom the holder acts
    #[arg(long, value_enum, default_value_t = As::Authenticated)]
    role: As,
    /// Whose work it is about; an authenticated token needs one
    #[arg(long, value_parser = tenant)]
    tenant: Option<String>,
    /// The worker that it is for, which may call itself that, or that and more after a dot; --topic needs it
    #[arg(long, value_name = "ID", value_parser = worker)]
    worker: Option<String>,
    /// A topic that it may work on: role/service, role/* or *; may be given several times
    #[arg(long, value_name = "TOPIC", value_parser = pattern)]
    topic: Vec<Pattern>,
    /// A topic that it may send to: role/service, role/* or *; may be given several times
    #[arg(long, value_name = "TOPIC", value_parser = pattern)]
    send: Vec<Pattern>,
    /// It may operate on messages of its topics: requeue dead letters, and call the tools that change something
    #[arg(long)]
    operate: bool,
    /// How long it is good for, such as 12h or 30d
    #[arg(
        long, value_name = "DURATION", default_value = "30d", value_parser = parse_lifetime
    )]
    expires: Duration,
}

/// The roles, as they are called in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum As {
    /// May do what tenant and topics say
    Authenticated,
    /// May connect, and nothing else
    Anon,
    /// May do everything
    ServiceRole,
}

impl From<As> for Role {
    fn from(role: As) -> Self {
        match role {
            As::Authenticated => Self::Authenticated,
            As::Anon => Self::Anon,
            As::ServiceRole => Self::ServiceRole,
        }
    }
}

fn tenant(text: &str) -> Result<String, String> {
    if valid_name(text) { Ok(text.to_owned()) } else { Err(format!("must be {NAME_RULE}")) }
}

fn worker(text: &str) -> Result<String, String> {
    if valid_worker(text) { Ok(text.to_owned()) } else { Err(format!("must be {WORKER_RULE}")) }
}

fn pattern(text: &str) -> Result<Pattern, String> {
    text.parse().map_err(|_told_by_rule| format!("must be {PATTERN_RULE}"))
}

impl Mint {
    pub(crate) fn run(self, global: &Global, output: Output) -> Result<Exit> {
        self.check()?;
        let data_dir = global.data_dir()?;
        let Some((keys, lies)) = jwt_secret::find(&data_dir)? else {
            let text = format!("no secret to sign with: none in {}", data_dir.display());
            return Err(Failed::unavailable(text)
                .hint(
                    "Name the hub's data directory by --data-dir, or set COGO_JWT_SECRET to the secret that \
                     the hub has (on hosted Supabase: the project's JWT secret).",
                )
                .into());
        };
        let claims = self.claims();
        let token = keys.mint(&claims);
        if token.len() > MAX_TOKEN_BYTES {
            let text =
                format!("the token would have {} bytes, over {MAX_TOKEN_BYTES}", token.len());
            return Err(Failed::usage(text)
                .hint("Name fewer topics; role/* covers a role.")
                .into());
        }
        self.warn();
        if keys.published() {
            note(&format!("Warning: {}.", jwt_secret::PUBLISHED));
        }
        if output.json {
            output.value(&json!({"token": token, "claims": claims}))?;
            return Ok(Exit::Done);
        }
        let now = clock::utc_now();
        for (name, text) in allows(&claims).into_iter().chain([("EXPIRES", ends(&claims, now))]) {
            note(&format!("{name:<12} {text}"));
        }
        note(&format!("{:<12} {}", "SIGNED WITH", place(&lies)));
        if self.role != As::Anon {
            note("Keep it as you keep a password: whoever holds it may do all that.");
        }
        output.line(&token)?;
        Ok(Exit::Done)
    }

    /// Refuses what cannot be meant.
    fn check(&self) -> Result<(), Failed> {
        if self.role == As::Authenticated {
            if self.worker.is_none() && !self.topic.is_empty() {
                let text = "--worker: a token works on its topics under its own name only";
                return Err(Failed::usage(text)
                    .hint("Name the worker, such as --worker laptop-1; or give --send alone, to send and read."));
            }
            return match self.tenant {
                Some(_) => Ok(()),
                None => Err(Failed::usage(
                    "--tenant: an authenticated token without one may do nothing",
                )
                .hint("Name the tenant, such as --tenant default; or mint --role service_role.")),
            };
        }
        let given = [
            ("--tenant", self.tenant.is_some()),
            ("--worker", self.worker.is_some()),
            ("--topic", !self.topic.is_empty()),
            ("--send", !self.send.is_empty()),
            ("--operate", self.operate),
        ];
        let Some((flag, _)) = given.into_iter().find(|(_, given)| *given) else { return Ok(()) };
        let role = Role::from(self.role);
        let why = match self.role {
            As::ServiceRole => "may do everything, whatever it names",
            _ => "may do nothing but connect, whatever it names",
        };
        Err(Failed::usage(format!("{flag}: a token of {role} {why}"))
            .hint(format!("Leave {flag} out, or leave --role out for a token that is held to it.")))
    }

    fn warn(&self) {
        match self.role {
            As::Authenticated if self.topic.is_empty() && self.send.is_empty() => {
                note("Warning: without --topic and --send this token may do nothing but connect.");
            }
            As::ServiceRole => {
                note("Warning: this token may do everything, in every tenant; workers need less.");
            }
            _ => {}
        }
        if self.expires > LONG {
            note(
                "Warning: --expires: this token is good for more than a year. It can be withdrawn only by \
                 changing the secret, which ends every other token with it.",
            );
        }
    }

    fn claims(&self) -> Claims {
        let now = clock::utc_now().timestamp();
        let seconds = i64::try_from(self.expires.as_secs()).unwrap_or(i64::MAX);
        let mut claims = Claims::new(self.role.into(), now.saturating_add(seconds));
        claims.iat = Some(now);
        claims.iss = Some("cogo".to_owned());
        claims.sub.clone_from(&self.worker);
        claims.tenant.clone_from(&self.tenant);
        claims.worker.clone_from(&self.worker);
        claims.topics = distinct(&self.topic);
        claims.send = distinct(&self.send);
        claims.operate = self.operate;
        claims
    }
}

fn distinct(patterns: &[Pattern]) -> Vec<Pattern> {
    let mut kept: Vec<Pattern> = Vec::with_capacity(patterns.len());
    for pattern in patterns {
        if !kept.contains(pattern) {
            kept.push(pattern.clone());
        }
    }
    kept
}
