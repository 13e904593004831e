//! Requests for a part of something, or only for what has changed (RFC 9110, 13 and 14). What is asked for has a strong
//! validator: the same tag is the same bytes.

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use chrono::{DateTime, NaiveDateTime, SubsecRound as _, Utc};

use crate::artifact::Range;
use crate::error::Code;
use crate::hub::error::ApiError;

/// What there is.
#[derive(Debug, Clone)]
pub(crate) struct Validators {
    /// Its tag, with quotes.
    pub(crate) etag: String,
    /// When it was last changed.
    pub(crate) modified: DateTime<Utc>,
    /// How large it is.
    pub(crate) bytes: u64,
}

/// What is to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Whole,
    Part(Range),
    /// The asker has it.
    NotModified,
}

/// The headers that this module has looked at; nobody else is to.
const CONDITIONS: [HeaderName; 6] = [
    header::IF_MATCH,
    header::IF_UNMODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_RANGE,
    header::RANGE,
];

impl Validators {
    /// What a request wants, whose conditions and ranges are taken out of `headers`.
    ///
    /// # Errors
    /// 412 where a condition does not hold, 416 where there are no such bytes.
    pub(crate) fn judge(
        &self,
        method: &Method,
        headers: &mut HeaderMap,
    ) -> Result<Wanted, ApiError> {
        let wanted = self.wanted(method, headers);
        for name in CONDITIONS {
            headers.remove(name);
        }
        wanted
    }

    fn wanted(&self, method: &Method, headers: &HeaderMap) -> Result<Wanted, ApiError> {
        let date = |name| headers.get(name).and_then(|value| http_date(value.to_str().ok()?));
        let modified = self.modified.trunc_subsecs(0);
        let unchanged = match self.is_listed(headers, &header::IF_MATCH, true) {
            Some(listed) => listed,
            None => date(header::IF_UNMODIFIED_SINCE).is_none_or(|date| modified <= date),
        };
        if !unchanged {
            let message = "if-match: it is another one now; get it without the condition";
            let error = ApiError::new(Code::InvalidArgument, message);
            return Err(error.with_status(StatusCode::PRECONDITION_FAILED));
        }
        let known = match self.is_listed(headers, &header::IF_NONE_MATCH, false) {
            Some(listed) => listed,
            None => date(header::IF_MODIFIED_SINCE).is_some_and(|date| modified <= date),
        };
        if known {
            return Ok(Wanted::NotModified);
        }
        let same = match headers.get(header::IF_RANGE).map(HeaderValue::to_str) {
            None => true,
            Some(Ok(tag)) if tag.starts_with('"') => tag == self.etag,
            Some(Ok(text)) => http_date(text) == Some(modified),
            Some(Err(_)) => false,
        };
        if method != Method::GET || !same {
            return Ok(Wanted::Whole);
        }
        self.part(headers)
    }

    /// Whether a header lists our tag, if it is there.
    fn is_listed(&self, headers: &HeaderMap, name: &HeaderName, strongly: bool) -> Option<bool> {
        let mut values = headers.get_all(name).iter().peekable();
        values.peek()?;
        let is_ours = |tag: &str| {
            let tag = tag.trim();
            let weak = tag.strip_prefix("W/").filter(|_| !strongly);
            tag == "*" || weak.unwrap_or(tag) == self.etag
        };
        // Tags of others may have commas in them, and are not ours with them nor without.
        Some(
            values.filter_map(|value| value.to_str().ok()).any(|list| list.split(',').any(is_ours)),
        )
    }

    /// One range is given; of several, and of what is none, the whole, as section 14.2 allows.
    fn part(&self, headers: &HeaderMap) -> Result<Wanted, ApiError> {
        let mut values = headers.get_all(header::RANGE).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return Ok(Wanted::Whole) };
        let Some(spec) = value.to_str().ok().and_then(Spec::parse) else {
            return Ok(Wanted::Whole);
        };
        match spec.of(self.bytes) {
            Some(range) => Ok(Wanted::Part(range)),
            None => {
                let bytes = self.bytes;
                let message = format!("range: there are {bytes} bytes, and none of these");
                let all = HeaderValue::from_str(&format!("bytes */{bytes}"));
                let error = ApiError::new(Code::InvalidArgument, message);
                let error = error.with_status(StatusCode::RANGE_NOT_SATISFIABLE);
                Err(match all {
                    Ok(all) => error.with_header(header::CONTENT_RANGE, all),
                    Err(_) => error,
                })
            }
        }
    }

    /// Puts the validators into an answer.
    pub(crate) fn tell(&self, headers: &mut HeaderMap) {
        let modified = self.modified.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
        for (name, value) in [(header::ETAG, &self.etag), (header::LAST_MODIFIED, &modified)] {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        }
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    }
}

/// One range as it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spec {
    From(u64, Option<u64>),
    Last(u64),
}

impl Spec {
    fn parse(text: &str) -> Option<Self> {
        let (unit, spec) = text.split_once('=')?;
        if !unit.eq_ignore_ascii_case("bytes") {
            return None;
        }
        // Nothing is so long, but it is a number.
        let number = |digits: &str| {
            let all = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            all.then(|| digits.parse().unwrap_or(u64::MAX))
        };
        match spec.trim().split_once('-')? {
            ("", last) => number(last).map(Self::Last),
            (first, "") => Some(Self::From(number(first)?, None)),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Self::From(first, Some(last)))
            }
        }
    }

    /// The bytes of so many that it means, if it means any.
    fn of(self, bytes: u64) -> Option<Range> {
        let end = bytes.checked_sub(1)?;
        let (first, last) = match self {
            Self::From(first, last) => (first, last.unwrap_or(end).min(end)),
            Self::Last(0) => return None,
            Self::Last(count) => (bytes.saturating_sub(count), end),
        };
        (first <= last).then_some(Range { first, last })
    }
}

/// A time as HTTP writes it, in one of its three forms (section 5.6.7).
fn http_date(text: &str) -> Option<DateTime<Utc>> {
    let formats =
        ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];
    let read = |format| NaiveDateTime::parse_from_str(text, format).ok();
    formats.into_iter().find_map(read).map(|time| time.and_utc())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn validators() -> Validators {
        let modified = http_date("Sun, 06 Nov 1994 08:49:37 GMT").expect("a time");
        Validators { etag: "\"a1\"".to_owned(), modified, bytes: 10 }
    }

    fn wanted(headers: &[(HeaderName, &str)]) -> Result<Wanted, u16> {
        let mut all = HeaderMap::new();
        for (name, value) in headers {
            all.append(name, HeaderValue::from_str(value).expect("a value"));
        }
        validators().judge(&Method::GET, &mut all).map_err(|error| error.status().as_u16())
    }

    fn part(first: u64, last: u64) -> Result<Wanted, u16> {
        Ok(Wanted::Part(Range { first, last }))
    }

    #[test]
    fn one_range_is_given_and_what_is_none_is_the_whole() {
        let of = |range| wanted(&[(header::RANGE, range)]);
        assert_eq!(of("bytes=0-3"), part(0, 3));
        assert_eq!(of("BYTES=4-"), part(4, 9));
        assert_eq!(of("bytes=-4"), part(6, 9));
        assert_eq!(of("bytes=-400"), part(0, 9));
        assert_eq!(of("bytes=9-18446744073709551616"), part(9, 9));
        for whole in [
            "bytes=0-1,3-4",
            "bytes=5-4",
            "bytes=a-b",
            "bytes=",
            "bytes=-",
            "lines=0-3",
            "bytes=+1-2",
        ] {
            assert_eq!(of(whole), Ok(Wanted::Whole), "{whole}");
        }
        for none in ["bytes=10-", "bytes=-0", "bytes=99999999999999999999-"] {
            assert_eq!(of(none), Err(416), "{none}");
        }
        let twice = [(header::RANGE, "bytes=0-1"), (header::RANGE, "bytes=2-3")];
        assert_eq!(wanted(&twice), Ok(Wanted::Whole));
    }

    #[test]
    fn conditions_go_in_the_order_of_the_standard() {
        let at = "Sun, 06 Nov 1994 08:49:37 GMT";
        let later = "Sunday, 06-Nov-94 08:49:38 GMT";
        let before = "Sun Nov  6 08:49:36 1994";
        for (headers, is) in [
            (vec![(header::IF_NONE_MATCH, "\"a1\"")], Ok(Wanted::NotModified)),
            (vec![(header::IF_NONE_MATCH, "\"x\", W/\"a1\"")], Ok(Wanted::NotModified)),
            (vec![(header::IF_NONE_MATCH, "*")], Ok(Wanted::NotModified)),
            (
                vec![(header::IF_NONE_MATCH, "\"x\""), (header::IF_MODIFIED_SINCE, at)],
                Ok(Wanted::Whole),
            ),
            (vec![(header::IF_MODIFIED_SINCE, at)], Ok(Wanted::NotModified)),
            (vec![(header::IF_MODIFIED_SINCE, later)], Ok(Wanted::NotModified)),
            (vec![(header::IF_MODIFIED_SINCE, before)], Ok(Wanted::Whole)),
            (vec![(header::IF_MODIFIED_SINCE, "yesterday")], Ok(Wanted::Whole)),
            (vec![(header::IF_MATCH, "\"x\"")], Err(412)),
            (vec![(header::IF_MATCH, "W/\"a1\"")], Err(412)),
            (
                vec![(header::IF_MATCH, "\"a1\""), (header::IF_UNMODIFIED_SINCE, before)],
                Ok(Wanted::Whole),
            ),
            (vec![(header::IF_UNMODIFIED_SINCE, before)], Err(412)),
            (vec![(header::IF_UNMODIFIED_SINCE, at)], Ok(Wanted::Whole)),
        ] {
            assert_eq!(wanted(&headers), is, "{headers:?}");
        }
        for (condition, same) in
            [("\"a1\"", true), ("W/\"a1\"", false), ("\"x\"", false), (at, true), (later, false)]
        {
            let headers = [(header::IF_RANGE, condition), (header::RANGE, "bytes=1-2")];
            let is = if same { part(1, 2) } else { Ok(Wanted::Whole) };
            assert_eq!(wanted(&headers), is, "{condition}");
        }
    }

    #[test]
    fn only_get_asks_for_parts() {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, HeaderValue::from_static("bytes=0-3"));
        let wanted = validators().judge(&Method::HEAD, &mut headers).expect("judged");
        assert_eq!((wanted, headers.len()), (Wanted::Whole, 0));
    }
}
