//! `?wait=`: how long a request may wait.

use std::time::Duration;

use crate::hub::error::ApiError;

/// Reads `30s`, `500ms` or `30` (seconds), at most `most`.
///
/// # Errors
/// 400 that says what it may be.
pub fn parse(text: &str, most: Duration) -> Result<Duration, ApiError> {
    let invalid = || {
        let most = most.as_secs();
        ApiError::invalid(
            "wait",
            format_args!("must be a time such as 30s, 500ms or 30 (seconds), at most {most}s"),
        )
    };
    let (number, millis) = match text.strip_suffix("ms") {
        Some(number) => (number, 1),
        None => (text.strip_suffix('s').unwrap_or(text), 1000),
    };
    // `parse` alone would take a sign.
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(invalid());
    }
    let number: u64 = number.parse().map_err(|_| invalid())?;
    let wait = number.checked_mul(millis).map(Duration::from_millis);
    wait.filter(|wait| *wait <= most).ok_or_else(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_a_number_with_a_unit_within_the_limit() {
        let wait = |text| parse(text, Duration::from_secs(60)).ok().map(|wait| wait.as_millis());
        assert_eq!(wait("30s"), Some(30_000));
        assert_eq!(wait("30"), Some(30_000));
        assert_eq!(wait("500ms"), Some(500));
        assert_eq!(wait("60000ms"), Some(60_000));
        assert_eq!(wait("0"), Some(0));
        for bad in [
            "",
            "s",
            "ms",
            "-1",
            "+1",
            "1.5s",
            "1m",
            "61",
            "61s",
            "60001ms",
            "18446744073709551615",
            " 1",
            "NaN",
        ] {
            assert_eq!(wait(bad), None, "{bad}");
        }
    }
}
