//! What a bucket's refusal means, and which setting to look at.

use reqwest::StatusCode;

use crate::artifact::Error;
use crate::artifact::options::{KEY_ID, KEY_SECRET};
use crate::error::Code;

/// From how many seconds on clocks differ too much: signatures hold for ten minutes, and a clock drifts.
const SKEW_S: i64 = 300;
/// How much is shown of what the other end said.
const SAID_MAX: usize = 200;

/// A refusal.
#[derive(Debug)]
pub(super) struct Answer<'a> {
    pub(super) status: StatusCode,
    /// XML, as a rule; nothing to `HEAD`.
    pub(super) text: &'a str,
    /// By how many seconds our clock is ahead of theirs.
    pub(super) ahead_s: Option<i64>,
}

impl Answer<'_> {
    /// Whether the object is what is missing.
    pub(super) fn is_missing(&self) -> bool {
        self.status == StatusCode::NOT_FOUND
            && !matches!(self.code(), "NoSuchBucket" | "Bucket not found")
    }

    fn code(&self) -> &str {
        self.element("Code")
    }

    fn element(&self, name: &str) -> &str {
        let (start, end) = (format!("<{name}>"), format!("</{name}>"));
        let found = self.text.split_once(&start).and_then(|(_, rest)| rest.split_once(&end));
        found.map(|(text, _)| text.trim()).unwrap_or_default()
    }

    /// What it said, as far as it can be shown.
    fn said(&self) -> String {
        let said = [self.code(), self.element("Message")].join(" ");
        let said = said.trim().chars().filter(|c| !c.is_control()).take(SAID_MAX);
        match said.collect::<String>() {
            none if none.is_empty() => self.status.to_string(),
            said => format!("{}: {said}", self.status.as_u16()),
        }
    }
}

/// What to tell of a refusal by the bucket `bucket`.
pub(super) fn told(answer: &Answer<'_>, endpoint: &str, bucket: &str, region: &str) -> Error {
    let said = answer.said();
    let skewed = answer.ahead_s.filter(|ahead| ahead.abs() > SKEW_S);
    let (code, message) = match (answer.status.as_u16(), answer.code()) {
        (_, "InvalidAccessKeyId") => {
            (Code::Forbidden, format!("{KEY_ID}: {endpoint} does not know this key ({said})"))
        }
        (400 | 403, _) if skewed.is_some() => {
            let seconds = skewed.unwrap_or_default();
            let way = if seconds > 0 { "ahead of" } else { "behind" };
            let seconds = seconds.abs();
            let message = format!(
                "clock: this machine's is {seconds} s {way} that of {endpoint}; set it by NTP ({said})"
            );
            (Code::Forbidden, message)
        }
        (_, "RequestTimeTooSkewed") => (
            Code::Forbidden,
            format!(
                "clock: this machine's is too far from that of {endpoint}; set it by NTP ({said})"
            ),
        ),
        (_, "SignatureDoesNotMatch") => (
            Code::Forbidden,
            format!(
                "{KEY_SECRET}: is not that of the key, or artifacts.s3.region is not {region} ({said})"
            ),
        ),
        (
            _,
            "AuthorizationHeaderMalformed"
            | "AuthorizationQueryParametersError"
            | "PermanentRedirect"
            | "IllegalLocationConstraintException",
        )
        | (301 | 302 | 307 | 308, _) => (
            Code::InvalidArgument,
            format!(
                "artifacts.s3.region: the bucket {bucket} is not in {region}, or artifacts.s3.endpoint is not its own ({said})"
            ),
        ),
        (404, _) => (
            Code::NotFound,
            format!(
                "artifacts.s3.bucket: there is no {bucket} at {endpoint}; create it first ({said})"
            ),
        ),
        (401 | 403, _) => (
            Code::Forbidden,
            format!(
                "{KEY_ID}: this key may not do that with the bucket {bucket}; it needs to list, get, put and delete ({said})"
            ),
        ),
        (429 | 500..=599, _) => (
            Code::Unavailable,
            format!("artifacts.s3.endpoint: {endpoint} does not work now ({said})"),
        ),
        _ => (Code::Internal, format!("artifacts.s3: {endpoint} refused ({said})")),
    };
    Error::Bucket { code, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(status: u16, text: &str, ahead_s: Option<i64>) -> (Code, String) {
        let status = StatusCode::from_u16(status).expect("a status");
        let answer = Answer { status, text, ahead_s };
        match told(&answer, "https://s3.example", "artifacts", "eu-central-1") {
            Error::Bucket { code, message } => (code, message),
            other => panic!("{other:?}"),
        }
    }

    fn error(code: &str) -> String {
        format!(
            "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>no\u{1b}[2J</Message></Error>"
        )
    }

    #[test]
    fn a_refusal_names_the_setting_to_look_at() {
        for (status, code, ahead, field) in [
            (403, "InvalidAccessKeyId", Some(0), "COGO_S3_ACCESS_KEY_ID: "),
            (403, "SignatureDoesNotMatch", Some(1), "COGO_S3_SECRET_ACCESS_KEY: "),
            (403, "AccessDenied", Some(1), "COGO_S3_ACCESS_KEY_ID: "),
            (403, "AccessDenied", Some(-900), "clock: this machine's is 900 s behind"),
            (403, "RequestTimeTooSkewed", None, "clock: "),
            (404, "NoSuchBucket", None, "artifacts.s3.bucket: "),
            (301, "PermanentRedirect", None, "artifacts.s3.region: "),
            (307, "TemporaryRedirect", None, "artifacts.s3.region: "),
            (400, "AuthorizationHeaderMalformed", None, "artifacts.s3.region: "),
            (503, "SlowDown", None, "artifacts.s3.endpoint: "),
        ] {
            let (_, told) = message(status, &error(code), ahead);
            assert!(told.starts_with(field) && told.contains(code), "{code}: {told}");
            assert!(!told.contains('\u{1b}'), "{told:?}");
        }
        assert_eq!(message(503, "", None).0, Code::Unavailable);
        assert!(message(418, &"x".repeat(9999), None).1.len() < 200, "a page is not shown");
    }
}
