//! How durations, times and events read.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use cogo::event::Event;
use cogo::message::Status;
use serde_json::Value;

use crate::output::{Ink, printable};

/// A day, in seconds.
const DAY: u64 = 86_400;

/// Reads `500ms`, `30s`, `5m`, `2h` or a number of seconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    duration(text)
        .ok_or_else(|| "must be like 500ms, 30s, 5m or 2h".to_owned())?
        .filter(|duration| *duration <= Duration::from_secs(365 * DAY))
        .ok_or_else(|| "must be like 500ms, 30s, 5m or 2h, and at most a year".to_owned())
}

/// Reads how long something is to be good for: `12h`, `30d` or `2y`.
pub(crate) fn parse_lifetime(text: &str) -> Result<Duration, String> {
    let range = Duration::from_secs(1)..=Duration::from_secs(36_500 * DAY);
    let found = duration(text).flatten().filter(|duration| range.contains(duration));
    found.ok_or_else(|| "must be like 12h, 30d or 1y, from a second to a century".to_owned())
}

/// Nothing when the unit is unknown; nothing within when the number is none, or has no end.
fn duration(text: &str) -> Option<Option<Duration>> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale = match unit.trim() {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        "y" => 31_536_000.0,
        _ => return None,
    };
    let number: Option<f64> = number.parse().ok();
    Some(number.and_then(|number| Duration::try_from_secs_f64(number * scale).ok()))
}

/// A duration with as much detail as is of use.
pub(crate) fn millis(ms: i64) -> String {
    let (sign, ms) = if ms < 0 { ("-", -ms) } else { ("", ms) };
    let text = match ms {
        0..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{}.{:02} s", ms / 1000, ms % 1000 / 10),
        60_000..3_600_000 => format!("{} m {:02} s", ms / 60_000, ms % 60_000 / 1000),
        3_600_000..86_400_000 => format!("{} h {:02} m", ms / 3_600_000, ms % 3_600_000 / 60_000),
        _ => format!("{} d {:02} h", ms / 86_400_000, ms % 86_400_000 / 3_600_000),
    };
    format!("{sign}{text}")
}

/// A moment in UTC, to the second.
pub(crate) fn moment(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true).replace('T', " ").replace('Z', " UTC")
}

/// A moment in UTC, to the millisecond, without the date.
pub(crate) fn time_of_day(at: DateTime<Utc>) -> String {
    at.format("%H:%M:%S%.3f").to_string()
}

/// The colour of a status.
pub(crate) fn status_ink(status: Status) -> Ink {
    match status {
        Status::Done => Ink::Good,
        Status::Failed => Ink::Bad,
        Status::Cancelled => Ink::Faint,
        Status::Claimed => Ink::Name,
        Status::Delayed | Status::Queued => Ink::Warn,
    }
}

/// The colour of an event, by what it says.
pub(crate) fn event_ink(event_type: &str) -> Ink {
    let ends = |ends: &[&str]| ends.iter().any(|end| event_type.ends_with(end));
    if ends(&["_succeeded", "_online", "_closed"]) {
        Ink::Good
    } else if ends(&["_failed", "_dead_lettered", "_dropped", "_opened"]) {
        Ink::Bad
    } else if ends(&["_retry_scheduled", "_released", "_lease_expired", "_requeued", "_offline"]) {
        Ink::Warn
    } else if ends(&["_progress", "_cancelled", "_purged"]) {
        Ink::Faint
    } else {
        Ink::Name
    }
}

/// What an event says beside its type: why, and what went wrong or how far it came.
pub(crate) fn event_detail(event: &Event) -> String {
    let payload = &event.payload;
    let mut parts = Vec::new();
    let error = payload.get("error").filter(|error| !error.is_null()).map(error_text);
    // Of a failure the reason is its class, with which its text begins.
    let said = |reason: &String| error.as_ref().is_some_and(|error| error.starts_with(reason));
    parts.extend(event.reason.clone().filter(|reason| !said(reason)));
    parts.extend(error.clone());
    if let Some(ms) = payload.get("retry_in_ms").and_then(Value::as_i64).filter(|ms| *ms > 0) {
        parts.push(format!("again in {}", millis(ms)));
    }
    if let Some(progress) = payload.get("progress") {
        parts.push(progress_text(progress));
    }
    if let Some(ms) = payload.get("duration_ms").and_then(Value::as_i64) {
        parts.push(format!("took {}", millis(ms)));
    }
    printable(&parts.join(" · "))
}

/// `class: message` of a failure, or whatever is there.
pub(crate) fn error_text(error: &Value) -> String {
    let word = |name: &str| error.get(name).and_then(Value::as_str);
    match (word("class"), word("message")) {
        (Some(class), Some(message)) => format!("{class}: {message}"),
        (Some(one), None) | (None, Some(one)) => one.to_owned(),
        (None, None) => error.to_string(),
    }
}

/// `3 of 10: loading`, or whatever is there.
pub(crate) fn progress_text(progress: &Value) -> String {
    let number = |name: &str| progress.get(name).and_then(Value::as_f64);
    let message = progress.get("message").and_then(Value::as_str);
    let far = match (number("progress"), number("total")) {
        (Some(done), Some(total)) => Some(format!("{done} of {total}")),
        (Some(done), None) => Some(done.to_string()),
        _ => None,
    };
    match (far, message) {
        (Some(far), Some(message)) => format!("{far}: {message}"),
        (Some(far), None) => far,
        (None, Some(message)) => message.to_owned(),
        (None, None) => progress.to_string(),
    }
}

/// The end of an id, which is its random part: enough to tell a handful apart.
pub(crate) fn short(id: impl ToString) -> String {
    let id = id.to_string();
    id.get(id.len().saturating_sub(8)..).unwrap_or(&id).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_unit() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("30"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_duration("2h"), Ok(Duration::from_secs(7200)));
        for bad in ["", "s", "5 weeks", "-1s", "1e9d", "99999999d", "366d", "2y"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_lifetime("2y"), Ok(Duration::from_secs(730 * DAY)));
        for bad in ["", "0s", "10ms", "101y", "30 days", "never", "-30d"] {
            assert!(parse_lifetime(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_are_told_in_the_unit_that_fits() {
        let told: Vec<_> = [7, 1234, 61_000, 3_700_000, 90_000_000].map(millis).into();
        assert_eq!(told, ["7 ms", "1.23 s", "1 m 01 s", "1 h 01 m", "1 d 01 h"]);
    }
}
