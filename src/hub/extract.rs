//! What handlers take in: strict about types, names and repetition, and exact about what was wrong.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::marker::PhantomData;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Query, RawPathParams, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use uuid::Uuid;

use crate::error::Code;
use crate::hub::error::ApiError;

/// A JSON object as the body. Answers 415 to any other content type, 413 to one over the limit, and 400 with the path
/// of the field to one that does not fit `T`, stands twice, or has something after it.
#[derive(Debug, Clone, Copy)]
pub struct StrictJson<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for StrictJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        if !is_json(request.headers()) {
            let message = "content-type: must be application/json";
            return Err(ApiError::new(Code::UnsupportedMediaType, message));
        }
        let limit = request.extensions().get::<BodyLimit>().map(|limit| limit.0);
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| {
            if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
                let of = limit.map_or("its limit".to_owned(), |limit| format!("{limit} bytes"));
                return ApiError::new(Code::PayloadTooLarge, format!("body: at most {of}"));
            }
            ApiError::invalid("body", "ended before it was complete")
        })?;
        read_json(&bytes).map(Self)
    }
}

/// How large a body may be, for messages; the layer that sets it does not tell.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyLimit(pub(crate) usize);

fn is_json(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::CONTENT_TYPE).into_iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let kind = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
    kind.trim().eq_ignore_ascii_case("application/json")
}

fn read_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    // Where a struct is wanted, an array of its fields would do as well.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(ApiError::invalid("body", "must be a JSON object"));
    }
    // First for its form alone: a map takes a name that stands twice without a word, and two readers
    // of one body may then read two different things.
    let _: Form = read_as(bytes)?;
    read_as(bytes)
}

fn read_as<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json)
        .map_err(|error| located(&error.path().to_string(), error.inner()))?;
    json.end().map_err(|error| located(".", &error))?;
    Ok(value)
}

fn located(path: &str, error: &dyn fmt::Display) -> ApiError {
    ApiError::invalid(if path == "." || path == "?" { "body" } else { path }, error)
}

/// Any JSON without a name that stands twice in one object.
struct Form;

impl<'de> Deserialize<'de> for Form {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FormVisitor)
    }
}

struct FormVisitor;

impl<'de> Visitor<'de> for FormVisitor {
    type Value = Form;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Form, E> {
        Ok(Form)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Form, E> {
        Ok(Form)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Form, E> {
        Ok(Form)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Form, E> {
        Ok(Form)
    }

    fn visit_str<E>(self, _: &str) -> Result<Form, E> {
        Ok(Form)
    }

    fn visit_unit<E>(self) -> Result<Form, E> {
        Ok(Form)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Form, A::Error> {
        while items.next_element::<Form>()?.is_some() {}
        Ok(Form)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Form, A::Error> {
        let mut names = BTreeSet::new();
        while let Some(name) = fields.next_key::<Cow<'de, str>>()? {
            fields.next_value::<Form>()?;
            if let Some(name) = names.replace(name) {
                return Err(A::Error::custom(format_args!("field `{name}` stands twice")));
            }
        }
        Ok(Form)
    }
}

/// A struct within a body, from an object alone: serde would take an array of its fields as well.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Object<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(fields)).map(Object)
    }
}

/// Query parameters. Answers 400 with the parameter's name to what does not fit `T`; give `T`
/// `deny_unknown_fields`, so that a misspelt parameter is no silent default.
#[derive(Debug, Clone, Copy)]
pub struct StrictQuery<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for StrictQuery<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let Query(query) = Query::try_from_uri(&parts.uri).map_err(|rejection| {
            let text = rejection.body_text();
            let problem = text.split_once(": ").map_or(text.as_str(), |(_, problem)| problem);
            ApiError::new(Code::InvalidArgument, format!("query: {problem}"))
        })?;
        Ok(Self(query))
    }
}

/// The parameters of the path.
#[derive(Debug)]
pub struct PathParams(RawPathParams);

impl<S: Send + Sync> FromRequestParts<S> for PathParams {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let params = RawPathParams::from_request_parts(parts, state).await;
        params.map(Self).map_err(|_| ApiError::invalid("path", "must be UTF-8"))
    }
}

impl PathParams {
    /// The parameter `name`, decoded; empty if the route has none of that name.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value)
    }

    /// The parameter `name` as a UUID, hyphenated as everywhere on the bus.
    ///
    /// # Errors
    /// 400 that names the parameter.
    pub fn uuid(&self, name: &str) -> Result<Uuid, ApiError> {
        let text = self.text(name);
        let uuid = Uuid::try_parse(text).ok().filter(|_| text.len() == 36);
        uuid.ok_or_else(|| ApiError::invalid(name, "must be a UUID"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Call {
        #[allow(dead_code)]
        tool: String,
        #[allow(dead_code)]
        params: Params,
        #[allow(dead_code)]
        free: Option<serde_json::Value>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Params {
        #[allow(dead_code)]
        x: u8,
    }

    fn refused(json: &str) -> String {
        read_json::<Call>(json.as_bytes()).expect_err(json).message().to_owned()
    }

    #[test]
    fn a_struct_within_a_body_is_an_object_or_refused() {
        #[derive(Debug, Deserialize)]
        struct Body {
            at: Option<Object<Params>>,
        }
        let read = |json: &str| read_json::<Body>(json.as_bytes());
        let x = |json| read(json).expect(json).at.map(|at| at.0.x);
        assert_eq!(x(r#"{"at": {"x": 1}}"#), Some(1));
        assert_eq!((x(r#"{"at": null}"#), x("{}")), (None, None));
        let refused = |json| read(json).expect_err(json).message().to_owned();
        assert!(refused(r#"{"at": [1]}"#).contains("expected an object"));
        assert!(refused(r#"{"at": {"y": 1}}"#).starts_with("at.y: "), "the path is kept");
    }

    #[test]
    fn what_is_wrong_with_a_body_is_said_with_its_path() {
        for (json, start, part) in [
            (r#"{"tool":"a","params":{"x":"1"}}"#, "params.x: ", "expected u8"),
            (r#"{"tool":"a","params":{"x":256}}"#, "params.x: ", "256"),
            (
                r#"{"tool":"a","params":{"x":1,"y":2}}"#,
                "params.y: ",
                "unknown field `y`, expected `x`",
            ),
            (r#"{"tool":"a"}"#, "body: ", "missing field `params`"),
            (r#"{"tool":"a","tool":"b","params":{"x":1}}"#, "", "field `tool` stands twice"),
            (
                r#"{"tool":"a","params":{"x":1},"free":[{"k":1,"k":2}]}"#,
                "free[0]",
                "`k` stands twice",
            ),
            (r#"{"tool":"a","params":{"x":1}} {}"#, "body: ", "trailing"),
            ("", "body: ", "must be a JSON object"),
            ("nonsense", "body: ", "must be a JSON object"),
            (r#"["a", {"x":1}, null]"#, "body: ", "must be a JSON object"),
            ("{nonsense", "body: ", "key must be a string"),
            (r#"{"tool":"a","params":{"x":1},"free":1e999}"#, "free: ", "out of range"),
        ] {
            let message = refused(json);
            assert!(message.starts_with(start) && message.contains(part), "{json}: {message}");
        }
        let deep = format!(r#"{{"free":{}{}}}"#, "[".repeat(1000), "]".repeat(1000));
        assert!(refused(&deep).contains("recursion limit"));
        assert!(
            read_json::<Call>(br#"{"tool":"a","params":{"x":1},"free":{"k":[1,2.5,null]}}"#)
                .is_ok()
        );
    }
}
