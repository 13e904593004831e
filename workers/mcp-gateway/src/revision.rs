//! The revisions of MCP that are spoken, with tool servers and with clients.

/// The revision since which there are no sessions.
pub const MODERN: &str = "2026-07-28";
/// All that are spoken, the oldest first.
pub const SPOKEN: [&str; 5] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", MODERN];

#[cfg(test)]
mod tests {
    use rmcp::model::ProtocolVersion;

    use super::SPOKEN;

    /// With tool servers it is rmcp that negotiates.
    #[test]
    fn they_are_those_of_the_library() {
        let known: Vec<_> =
            ProtocolVersion::KNOWN_VERSIONS.iter().map(ToString::to_string).collect();
        assert_eq!(known, SPOKEN);
    }
}
