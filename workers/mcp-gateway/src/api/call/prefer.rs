//! What a caller prefers (RFC 7240): `respond-async`, and `wait=<seconds>`.

use std::time::Duration;

use axum::http::HeaderMap;

/// The preferences that are known here; others are not minded (RFC 7240, section 2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Prefer {
    respond_async: bool,
    wait: Option<Duration>,
}

impl Prefer {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut prefer = Self::default();
        let lines = headers.get_all("prefer").into_iter().filter_map(|line| line.to_str().ok());
        for preference in lines.flat_map(|line| line.split(',')) {
            let preference = preference.split(';').next().unwrap_or_default();
            let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
            let value = value.trim().trim_matches('"');
            match name.trim().to_ascii_lowercase().as_str() {
                "respond-async" => prefer.respond_async = true,
                // The first counts (section 2); what is no number is no preference.
                "wait" if prefer.wait.is_none() && value.bytes().all(|b| b.is_ascii_digit()) => {
                    prefer.wait = value.parse().ok().map(Duration::from_secs);
                }
                _ => {}
            }
        }
        prefer
    }

    /// Whether the answer need not be waited for.
    pub(super) fn is_async(self) -> bool {
        self.respond_async
    }

    /// How long it may be waited for.
    pub(super) fn wait(self) -> Option<Duration> {
        self.wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lines: &[&'static str]) -> (bool, Option<u64>) {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("prefer", line.parse().expect("a header"));
        }
        let prefer = Prefer::of(&headers);
        (prefer.is_async(), prefer.wait().map(|wait| wait.as_secs()))
    }

    #[test]
    fn preferences_are_read_as_rfc_7240_writes_them() {
        assert_eq!(of(&[]), (false, None));
        assert_eq!(of(&["respond-async, wait=100"]), (true, Some(100)));
        assert_eq!(of(&["Wait = \"7\"; x=y", "return=minimal, Respond-Async"]), (true, Some(7)));
        assert_eq!(of(&["wait=1, wait=2"]), (false, Some(1)));
        assert_eq!(of(&["wait", "wait=-1", "wait=1.5", "wait=x"]), (false, None));
    }
}
