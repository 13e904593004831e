//! The flags that choose dead letters.

use anyhow::Result;
use chrono::{DateTime, Utc};
use clap::Args;
use cogo::bus::dead_letter::Filter;
use cogo::clock::utc_now;
use cogo::message::TraceId;

use crate::text::parse_duration;

#[derive(Debug, Args)]
#[command(next_help_heading = "Filters")]
pub(crate) struct Which {
    /// Only of this tenant
    #[arg(long)]
    tenant: Option<String>,
    /// Only of this worker role
    #[arg(long)]
    role: Option<String>,
    /// Only of this service; of the MCP gateway that is the toolset
    #[arg(long)]
    service: Option<String>,
    /// Only those that ask for this, such as `mcp.call`
    #[arg(long)]
    intent: Option<String>,
    /// Only those whose last failure is of this class, such as `timeout`
    #[arg(long)]
    class: Option<String>,
    /// Only those that ended for this reason, such as `attempts_exhausted`
    #[arg(long, value_name = "REASON")]
    ended_by: Option<String>,
    /// Only of this trace
    #[arg(long, value_name = "TRACE")]
    trace: Option<TraceId>,
    /// Only those that died since then: a time such as 2026-01-31T08:00:00Z, or 2h for two hours ago
    #[arg(long, value_parser = parse_moment, value_name = "WHEN")]
    since: Option<DateTime<Utc>>,
    /// Only those that died before then; as --since
    #[arg(long, value_parser = parse_moment, value_name = "WHEN")]
    until: Option<DateTime<Utc>>,
}

impl Which {
    pub(crate) fn filter(&self) -> Result<Filter> {
        let filter = Filter {
            tenant: self.tenant.clone(),
            role: self.role.clone(),
            service: self.service.clone(),
            intent: self.intent.clone(),
            class: self.class.clone(),
            reason: self.ended_by.clone(),
            trace_id: self.trace,
            since: self.since,
            until: self.until,
        };
        filter.validate()?;
        Ok(filter)
    }
}

/// A time, or how long ago it is by this machine's clock: near enough for a person.
fn parse_moment(text: &str) -> Result<DateTime<Utc>, String> {
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Ok(at.to_utc());
    }
    parse_duration(text)
        .ok()
        .and_then(|ago| utc_now().checked_sub_signed(chrono::TimeDelta::from_std(ago).ok()?))
        .ok_or_else(|| "must be a time such as 2026-01-31T08:00:00Z, or like 30m or 2h".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_time_or_how_long_ago() {
        let at = parse_moment("2026-01-31T08:00:00+01:00").expect("a time");
        assert_eq!(at.to_rfc3339(), "2026-01-31T07:00:00+00:00");
        let then = parse_moment("2h").expect("a duration");
        let ago = utc_now() - then;
        assert!((7200..7210).contains(&ago.num_seconds()), "{ago}");
        for bad in ["", "yesterday", "2026-01-31"] {
            assert!(parse_moment(bad).is_err(), "{bad}");
        }
    }
}
