//! What a client wants beside its query: a form (`Accept`), a count (`Prefer`), a schema, a range.

use axum::http::header::{ACCEPT, CONTENT_TYPE, RANGE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::hub::rest::Error;
use crate::hub::rest::query::Query;

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Media {
    /// A JSON array.
    Array,
    /// The one row that there is.
    Object,
    /// Lines of values between commas.
    Csv,
}

impl Media {
    pub(super) fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Array => "application/json; charset=utf-8",
            Self::Object => "application/vnd.pgrst.object+json; charset=utf-8",
            Self::Csv => "text/csv; charset=utf-8",
        })
    }

    /// The first form of `Accept` that is served; without one, an array.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Error> {
        let mut asked = Vec::new();
        for value in headers.get_all(ACCEPT) {
            let text = value.to_str().unwrap_or_default();
            for part in text.split(',') {
                let kind = part.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
                match kind.as_str() {
                    "" => {}
                    "*/*"
                    | "application/*"
                    | "application/json"
                    | "application/vnd.pgrst.array"
                    | "application/vnd.pgrst.array+json" => return Ok(Self::Array),
                    "application/vnd.pgrst.object" | "application/vnd.pgrst.object+json" => {
                        return Ok(Self::Object);
                    }
                    "text/csv" | "text/*" => return Ok(Self::Csv),
                    _ => asked.push(kind),
                }
            }
        }
        if asked.is_empty() {
            return Ok(Self::Array);
        }
        let message = format!("None of these media types are available: {}", asked.join(", "));
        Err(Error::new(406, "PGRST107", message))
    }
}

/// Which count is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Count {
    Exact,
    Planned,
    Estimated,
}

/// What `Prefer` says of it that is heeded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Prefer {
    pub(super) count: Option<Count>,
    is_strict: bool,
}

impl Prefer {
    /// Of what is given twice the first counts.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Error> {
        let mut prefer = Self::default();
        let mut unknown = Vec::new();
        for value in headers.get_all(HeaderName::from_static("prefer")) {
            for word in value.to_str().unwrap_or_default().split(',').map(str::trim) {
                match word {
                    "count=exact" => prefer.count = prefer.count.or(Some(Count::Exact)),
                    "count=planned" => prefer.count = prefer.count.or(Some(Count::Planned)),
                    "count=estimated" => prefer.count = prefer.count.or(Some(Count::Estimated)),
                    "handling=strict" => prefer.is_strict = true,
                    // Of writes to tables, of which there are none; a function's result is always given.
                    ""
                    | "handling=lenient"
                    | "return=representation"
                    | "return=minimal"
                    | "return=headers-only"
                    | "missing=default"
                    | "missing=null"
                    | "params=single-object"
                    | "tx=commit"
                    | "resolution=merge-duplicates"
                    | "resolution=ignore-duplicates" => {}
                    other => unknown.push(other.to_owned()),
                }
            }
        }
        if prefer.is_strict && !unknown.is_empty() {
            let details = format!("Invalid preferences: {}", unknown.join(", "));
            let message = "Invalid preferences given with handling=strict";
            return Err(Error::new(400, "PGRST122", message).with_details(details));
        }
        Ok(prefer)
    }

    /// What was heeded, for `Preference-Applied`.
    pub(super) fn applied(self) -> Option<HeaderValue> {
        let count = self.count.map(|count| match count {
            Count::Exact => "count=exact",
            Count::Planned => "count=planned",
            Count::Estimated => "count=estimated",
        });
        let strict = self.is_strict.then_some("handling=strict");
        let words: Vec<&str> = strict.into_iter().chain(count).collect();
        if words.is_empty() { None } else { HeaderValue::from_str(&words.join(", ")).ok() }
    }
}

/// Checks the schema that is asked for, of which there is one. The Python client names it in both headers.
pub(super) fn check_schema(method: &Method, headers: &HeaderMap) -> Result<(), Error> {
    let reads = matches!(*method, Method::GET | Method::HEAD);
    let name = if reads { "accept-profile" } else { "content-profile" };
    for value in headers.get_all(name) {
        let schema = value.to_str().unwrap_or_default();
        if schema != "public" {
            return Err(Error::new(406, "PGRST106", format!("Invalid schema: {schema}"))
                .with_hint("Only the following schemas are exposed: public"));
        }
    }
    Ok(())
}

/// Checks that a body is JSON, as far as it says what it is.
pub(super) fn check_is_json(headers: &HeaderMap) -> Result<(), Error> {
    let Some(value) = headers.get(CONTENT_TYPE) else { return Ok(()) };
    let kind = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(Error::new(415, "PGRST102", format!("Content-Type not acceptable: {kind}"))
        .with_hint("Send a JSON object as application/json."))
}

/// Heeds `Range: 0-9`, where the address does not say how many.
pub(super) fn heed_range(headers: &HeaderMap, query: &mut Query) -> Result<(), Error> {
    let Some(range) = headers.get(RANGE) else { return Ok(()) };
    if query.limit.is_some() || query.offset > 0 {
        return Ok(());
    }
    let text = range.to_str().unwrap_or_default();
    let text = text.strip_prefix("items=").unwrap_or(text);
    // What is no range of rows is none, as for PostgREST.
    let Some((first, last)) = text.split_once('-') else { return Ok(()) };
    let number =
        |text: &str| if text.is_empty() { Some(None) } else { text.parse().ok().map(Some) };
    let (Some(first), Some(last)): (Option<Option<u32>>, Option<Option<u32>>) =
        (number(first.trim()), number(last.trim()))
    else {
        return Ok(());
    };
    let first = first.unwrap_or(0);
    query.offset = first;
    if let Some(last) = last {
        let Some(limit) = last.checked_sub(first) else {
            return Err(out_of_range(
                "The lower boundary must be lower than or equal to the upper boundary in the Range header.",
            ));
        };
        query.limit = Some(limit.saturating_add(1));
    }
    Ok(())
}

/// A range with no rows in it.
pub(super) fn out_of_range(details: impl Into<String>) -> Error {
    Error::new(416, "PGRST103", "Requested range not satisfiable").with_details(details)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, value.parse().expect("a header value"));
        }
        headers
    }

    #[test]
    fn the_first_form_that_is_served_is_given() {
        let of = |values: &[&str]| {
            Media::of(&headers("accept", values)).map_err(|error| error.code().to_owned())
        };
        assert_eq!(of(&[]), Ok(Media::Array));
        assert_eq!(of(&["*/*"]), Ok(Media::Array));
        assert_eq!(of(&["text/html, application/xml;q=0.9, */*;q=0.8"]), Ok(Media::Array));
        assert_eq!(of(&["application/vnd.pgrst.object+json;nulls=stripped"]), Ok(Media::Object));
        assert_eq!(of(&["text/csv"]), Ok(Media::Csv));
        let plan = "application/vnd.pgrst.plan+text; for=\"application/json\"; options=analyze;";
        assert_eq!(of(&[plan]), Err("PGRST107".to_owned()));
        assert_eq!(of(&["image/png"]), Err("PGRST107".to_owned()));
    }

    #[test]
    fn preferences_are_heeded_or_let_be_and_refused_where_that_is_asked_for() {
        let of = |values: &[&str]| Prefer::of(&headers("prefer", values));
        let prefer = of(&["return=representation,count=exact", "count=planned"]).expect("good");
        assert_eq!(prefer.count, Some(Count::Exact));
        assert_eq!(prefer.applied().expect("applied"), "count=exact");
        assert_eq!(of(&["nonsense"]).expect("let be"), Prefer::default());
        let strict = of(&["handling=strict, max-affected=1, tx=rollback"]).expect_err("strict");
        assert_eq!(strict.code(), "PGRST122");
    }

    #[test]
    fn ranges_are_heeded_where_nothing_else_says_how_many() {
        let of = |range: &str, limit| {
            let mut query = Query { limit, ..Query::default() };
            heed_range(&headers("range", &[range]), &mut query)
                .map(|()| (query.offset, query.limit))
                .map_err(|error| error.status().as_u16())
        };
        assert_eq!(of("0-9", None), Ok((0, Some(10))));
        assert_eq!(of("items=5-", None), Ok((5, None)));
        assert_eq!(of("0-9", Some(3)), Ok((0, Some(3))));
        assert_eq!(of("9-0", None), Err(416));
        assert_eq!(of("0-4294967295", None), Ok((0, Some(u32::MAX))));
        assert_eq!(of("bytes=0-9", None), Ok((0, None)));
        assert_eq!(of("nonsense", None), Ok((0, None)));
    }
}
