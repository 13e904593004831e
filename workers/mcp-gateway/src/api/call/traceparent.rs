//! The caller's span (W3C Trace Context, section 3.2).

use std::fmt;

use cogo::hub::ApiError;
use uuid::Uuid;

const RULE: &str =
    "must be of the form 00-<32 hex digits>-<16 hex digits>-<2 hex digits>, neither id all zeros";

/// A `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TraceParent {
    /// The trace.
    pub(super) trace: Uuid,
    span: u64,
    flags: u8,
}

impl TraceParent {
    /// A span of ours in `trace`: 64 bits of a message's id stand for it.
    pub(super) fn new(trace: Uuid, message: Uuid, flags: u8) -> Self {
        let (_, span) = message.as_u64_pair();
        Self { trace, span, flags }
    }

    /// What `text` says.
    pub(super) fn of(text: &str) -> Result<Self, ApiError> {
        Self::parse(text).ok_or_else(|| ApiError::invalid("traceparent", RULE))
    }

    /// What the caller said of its span, such as that it is recorded.
    pub(super) fn flags(self) -> u8 {
        self.flags
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace, span, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let hex = |text: &str, len| {
            text.len() == len && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        if !(hex(version, 2) && hex(trace, 32) && hex(span, 16) && hex(flags, 2)) {
            return None;
        }
        // A later version may say more; ff is none (section 3.2.2.1).
        if version == "ff" || version == "00" && parts.next().is_some() {
            return None;
        }
        let trace = Uuid::try_parse(trace).ok().filter(|trace| !trace.is_nil())?;
        let span = u64::from_str_radix(span, 16).ok().filter(|span| *span != 0)?;
        Some(Self { trace, span, flags: u8::from_str_radix(flags, 16).ok()? })
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{:016x}-{:02x}", self.trace.simple(), self.span, self.flags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_read_as_it_is_written() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(TraceParent::parse(text).expect("good").to_string(), text);
        let later = "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-else";
        assert!(TraceParent::parse(later).is_some());
        for bad in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceParent::parse(bad), None, "{bad}");
        }
    }
}
