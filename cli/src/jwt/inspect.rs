//! `cogo token inspect`: what a token says, and whether it is good.

use std::io::{IsTerminal as _, Read as _};

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use clap::Args;
use cogo::clock;
use cogo::identity::{self, Claims, Error, MAX_TOKEN_BYTES};
use serde_json::json;

use crate::connect::Global;
use crate::exit::{Exit, Failed};
use crate::jwt::{allows, ends, place};
use crate::jwt_secret;
use crate::output::{Cell, Ink, Output, note};
use crate::text::moment;

/// Show what a token says, and whether it is good; never the token
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cogo token inspect < laptop-1.key
  echo \"$COGO_KEY\" | cogo token inspect --json
  cogo token inspect eyJhbGciOi…          seen by other users of this machine while it runs

The signature is checked with COGO_JWT_SECRET, or with jwt-secret in the data directory of a hub
on this machine; without either it is only read. Exit code 0: good, as far as could be told; 1:
expired, signed with another secret, or no token.")]
pub(crate) struct Inspect {
    /// The token; from stdin if it is `-` or left out
    token: Option<String>,
}

/// Whose signature a token has.
enum Signature {
    /// Made with the secret that signs now.
    Current,
    /// Made with the nth of the secrets that signed before.
    Previous(usize),
    /// Made with none of the secrets that we know.
    Bad,
    /// We know no secret.
    Unchecked,
}

impl Inspect {
    pub(crate) fn run(self, global: &Global, output: Output) -> Result<Exit> {
        let token = match self.token.as_deref() {
            None | Some("-") => read()?,
            Some(token) => token.to_owned(),
        };
        // As it stands in a header.
        let token = token.trim();
        let token = token.strip_prefix("Bearer ").unwrap_or(token);
        let claims = identity::peek(token).map_err(refused)?;
        let found = jwt_secret::find(&global.data_dir()?)?;
        let (signature, from) = match &found {
            None => (Signature::Unchecked, None),
            Some((keys, lies)) => (
                match keys.signer(token) {
                    Ok(0) => Signature::Current,
                    Ok(n) => Signature::Previous(n),
                    Err(_) => Signature::Bad,
                },
                Some(place(lies)),
            ),
        };
        let now = clock::utc_now();
        let timely = claims.check_time(now);
        if output.json {
            output.value(&json!({
                "good": match signature {
                    Signature::Unchecked => None,
                    Signature::Bad => Some(false),
                    _ => Some(timely.is_ok()),
                },
                "signature": signature.word(),
                "secret": signature.number(),
                "expired": matches!(timely, Err(Error::Expired { .. })),
                "expires_at": DateTime::from_timestamp(claims.exp, 0),
                "expires_in_s": claims.exp.saturating_sub(now.timestamp()),
                "claims": claims,
            }))?;
        } else {
            show(output, &claims, &signature, from.as_deref(), now)?;
        }
        match signature {
            Signature::Bad => {
                let text = "the token was not signed with any secret that is known here";
                return Err(Failed::new(Exit::Failed, text).into());
            }
            Signature::Unchecked => note(
                "The signature was not checked: set COGO_JWT_SECRET, or name the hub's --data-dir.",
            ),
            Signature::Current | Signature::Previous(_) => {}
        }
        timely.map_err(refused)?;
        Ok(Exit::Done)
    }
}

fn refused(error: Error) -> Failed {
    let exit = if error == Error::Missing { Exit::Usage } else { Exit::Failed };
    Failed::new(exit, error.to_string())
}

fn read() -> Result<String> {
    if std::io::stdin().is_terminal() {
        note("Paste the token, and end the line with Enter and Ctrl-D.");
    }
    let mut text = String::new();
    // A little more than the longest, so that what is too long is seen to be.
    let most = u64::try_from(MAX_TOKEN_BYTES).unwrap_or(u64::MAX).saturating_add(1024);
    std::io::stdin().take(most).read_to_string(&mut text).context("reading stdin")?;
    Ok(text)
}

impl Signature {
    fn word(&self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Previous(_) => "previous",
            Self::Bad => "bad",
            Self::Unchecked => "unchecked",
        }
    }

    fn number(&self) -> Option<usize> {
        match self {
            Self::Current => Some(1),
            Self::Previous(n) => Some(n + 1),
            Self::Bad | Self::Unchecked => None,
        }
    }

    fn told(&self, from: Option<&str>) -> Cell {
        let from = from.unwrap_or_default();
        match self {
            Self::Current => Cell::new(format!("good, by the current secret of {from}"), Ink::Good),
            Self::Previous(n) => {
                let text = format!("good, by a previous secret: number {} of {from}", n + 1);
                Cell::new(text, Ink::Warn)
            }
            Self::Bad => Cell::new(format!("bad: by no secret of {from}"), Ink::Bad),
            Self::Unchecked => Cell::new("not checked", Ink::Warn),
        }
    }
}

fn show(
    output: Output,
    claims: &Claims,
    signature: &Signature,
    from: Option<&str>,
    now: DateTime<Utc>,
) -> Result<()> {
    let mut rows = vec![("SIGNATURE", signature.told(from))];
    rows.extend(allows(claims).into_iter().map(|(name, text)| (name, Cell::plain(text))));
    let ink = if claims.check_time(now).is_ok() { Ink::Plain } else { Ink::Bad };
    rows.push(("EXPIRES", Cell::new(ends(claims, now), ink)));
    let told = |at: i64| DateTime::from_timestamp(at, 0).map_or_else(|| at.to_string(), moment);
    let lines = [
        ("NOT BEFORE", claims.nbf.map(told)),
        ("MADE", claims.iat.map(told)),
        ("BY", claims.iss.clone()),
        ("FOR", claims.sub.clone()),
    ];
    rows.extend(lines.into_iter().filter_map(|(name, text)| Some((name, Cell::plain(text?)))));
    rows.extend(
        claims.rest.iter().map(|(name, value)| ("OTHER", Cell::plain(format!("{name}: {value}")))),
    );
    let rows: Vec<_> =
        rows.into_iter().map(|(name, cell)| vec![Cell::new(name, Ink::Strong), cell]).collect();
    let wide = rows.iter().map(|row| row[1].width()).max().unwrap_or(0);
    for row in &rows {
        output.line(&output.row(row, &[12, wide]))?;
    }
    Ok(())
}
