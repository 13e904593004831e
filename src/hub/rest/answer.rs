//! Rows, as they come from the database and as they are answered.

use axum::body::Body;
use axum::http::header::{CONTENT_RANGE, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::TryStreamExt as _;
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::hub::caller::{Transaction, within};
use crate::hub::rest::Error;
use crate::hub::rest::sql::{Form, Sql};
use crate::hub::rest::wants::{Media, Prefer, out_of_range};

/// What a statement gave, and how much.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// Each row's text, one after the other.
    text: String,
    /// How many there are.
    pub(super) count: u64,
    /// How many there would be without a limit.
    pub(super) total: Option<i64>,
    /// One alone is larger than is given.
    too_large: bool,
}

/// Why there are no rows.
pub(super) enum Failed {
    Database(sqlx::Error),
    TooLarge,
}

impl From<sqlx::Error> for Failed {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

/// Carries out a statement, and stops once what it gives is over `bytes_max`: rows are read one by one, and
/// what is not read stays with the database.
pub(super) async fn fetch(
    transaction: &mut Transaction,
    sql: &Sql,
    form: Form,
    bytes_max: usize,
) -> Result<Rows, Failed> {
    let patience = transaction.patience();
    let reading = async {
        let mut rows = Rows::default();
        let mut stream = sql.statement().fetch(&mut **transaction);
        while let Some(row) = stream.try_next().await? {
            rows.take(&row, form)?;
            if rows.too_large || rows.text.len() > bytes_max {
                return Ok(None);
            }
        }
        Ok(Some(rows))
    };
    within(patience, reading).await?.ok_or(Failed::TooLarge)
}

impl Rows {
    fn take(&mut self, row: &PgRow, form: Form) -> sqlx::Result<()> {
        if let Some(number) = row.try_get::<Option<i64>, _>(1)? {
            if number < 0 {
                self.too_large = true;
                return Ok(());
            }
            // Of rows that were only counted come two numbers.
            if form == Form::Number && self.count == 0 && self.total.is_none() {
                self.count = u64::try_from(number).unwrap_or(0);
                self.total = Some(-1);
            } else {
                self.total = Some(number);
            }
            return Ok(());
        }
        match form {
            Form::Json => {
                if self.count > 0 {
                    self.text.push_str(",\n");
                }
                self.text.push_str(row.try_get::<Option<&str>, _>(0)?.unwrap_or("null"));
            }
            Form::Texts => csv_line(
                &mut self.text,
                row.try_get::<Vec<Option<String>>, _>(0)?.iter().map(Option::as_deref),
            ),
            Form::Number => {}
        }
        self.count += 1;
        Ok(())
    }

    /// The total, where one was asked for.
    fn known_total(&self) -> Option<u64> {
        self.total.and_then(|total| u64::try_from(total).ok())
    }

    /// The one value that there is, as JSON.
    pub(super) fn into_value(self) -> String {
        if self.count == 0 { "null".to_owned() } else { self.text }
    }

    /// The answer: all rows from `offset` on, in the form that was asked for.
    pub(super) fn answer(
        mut self,
        media: Media,
        names: &[String],
        offset: u32,
        prefer: Prefer,
        with_body: bool,
    ) -> Result<Response, Error> {
        let (count, total) = (self.count, self.known_total());
        if media == Media::Object && count != 1 {
            let message = "Cannot coerce the result to a single JSON object";
            return Err(Error::new(406, "PGRST116", message)
                .with_details(format!("The result contains {count} rows")));
        }
        let offset = u64::from(offset);
        if let Some(total) = total.filter(|total| offset > *total) {
            let details =
                format!("An offset of {offset} was requested, but there are only {total} rows.");
            return Err(out_of_range(details));
        }
        let is_part = total.is_some_and(|total| count < total);
        let range = match (count, total) {
            (0, None) => "*/*".to_owned(),
            (0, Some(total)) => format!("*/{total}"),
            (_, None) => format!("{offset}-{}/*", offset + count - 1),
            (_, Some(total)) => format!("{offset}-{}/{total}", offset + count - 1),
        };
        let body = match media {
            _ if !with_body => Body::empty(),
            Media::Object => Body::from(self.text),
            Media::Array => {
                self.text.insert(0, '[');
                self.text.push(']');
                Body::from(self.text)
            }
            Media::Csv => {
                let mut head = String::new();
                csv_line(&mut head, names.iter().map(|name| Some(name.as_str())));
                Body::from(head + &self.text)
            }
        };
        let status = if is_part { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, media.content_type());
        headers.insert(CONTENT_RANGE, range.parse().expect("digits make a header"));
        if let Some(applied) = prefer.applied() {
            headers.insert(HeaderName::from_static("preference-applied"), applied);
        }
        Ok(response)
    }
}

/// An answer of one JSON value.
pub(super) fn of_value(json: String, with_body: bool) -> Response {
    let body = if with_body { Body::from(json) } else { Body::empty() };
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, Media::Array.content_type());
    headers.insert(CONTENT_RANGE, HeaderValue::from_static("0-0/*"));
    response
}

/// An answer that is larger than the hub gives.
pub(super) fn too_large(bytes_max: usize) -> Error {
    Error::new(413, "CG413", format!("the answer: at most {bytes_max} bytes"))
        .with_hint("Ask for fewer rows, or for fewer columns with `select`. Nothing was changed.")
}

/// One line (RFC 4180). What is null is empty, and an empty text stands between quotes.
fn csv_line<'a>(out: &mut String, values: impl Iterator<Item = Option<&'a str>>) {
    for (at, value) in values.enumerate() {
        if at > 0 {
            out.push(',');
        }
        match value {
            None => {}
            Some(text) if text.is_empty() || text.contains(['"', ',', '\n', '\r']) => {
                out.push('"');
                out.push_str(&text.replace('"', "\"\""));
                out.push('"');
            }
            Some(text) => out.push_str(text),
        }
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_statuses_are_postgrests() {
        let answer = |count, total, offset| {
            let rows = Rows { text: String::new(), count, total, too_large: false };
            let answer = rows.answer(Media::Array, &[], offset, Prefer::default(), true);
            answer.map_or_else(
                |error| (error.status().as_u16(), error.code().to_owned()),
                |response| {
                    let range =
                        response.headers()[CONTENT_RANGE].to_str().expect("text").to_owned();
                    (response.status().as_u16(), range)
                },
            )
        };
        assert_eq!(answer(2, None, 0), (200, "0-1/*".to_owned()));
        assert_eq!(answer(2, None, 10), (200, "10-11/*".to_owned()));
        assert_eq!(answer(0, None, 100), (200, "*/*".to_owned()));
        assert_eq!(answer(5, Some(12), 0), (206, "0-4/12".to_owned()));
        assert_eq!(answer(12, Some(12), 0), (200, "0-11/12".to_owned()));
        assert_eq!(answer(0, Some(0), 0), (200, "*/0".to_owned()));
        assert_eq!(answer(0, Some(12), 12), (206, "*/12".to_owned()));
        assert_eq!(answer(0, Some(12), 100), (416, "PGRST103".to_owned()));
    }

    #[test]
    fn csv_quotes_what_would_be_read_otherwise() {
        let mut line = String::new();
        csv_line(&mut line, [Some("a"), None, Some(""), Some("b,\"c\"\n")].into_iter());
        assert_eq!(line, "a,,\"\",\"b,\"\"c\"\"\n\"\n");
    }
}
