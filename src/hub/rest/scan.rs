//! Reading PostgREST's little languages, one character after the other.

use crate::hub::rest::Error;

/// Where a text could not be read, and what would have been right there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bad {
    at: usize,
    expected: String,
}

impl Bad {
    /// The same for a client: `what` is what was being read, `text` all of it.
    pub(super) fn told(&self, what: &str, text: &str) -> Error {
        let column = text.get(..self.at).unwrap_or(text).chars().count() + 1;
        let shown: String = text.chars().take(200).collect();
        let found = match text.get(self.at..).and_then(|rest| rest.chars().next()) {
            Some(found) => format!("unexpected {:?}", found.to_string()),
            None => "unexpected end of input".to_owned(),
        };
        Error::parse(format!("\"failed to parse {what} ({shown})\" (line 1, column {column})"))
            .with_details(format!("{found}: {}", self.expected))
    }
}

/// A text, and how far it has been read.
#[derive(Debug, Clone)]
pub(super) struct Scan<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scan<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// What has not been read.
    pub(super) fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// Takes `token` if it stands here.
    pub(super) fn eat(&mut self, token: &str) -> bool {
        let stands = self.rest().starts_with(token);
        if stands {
            self.at += token.len();
        }
        stands
    }

    pub(super) fn expect(&mut self, token: &str) -> Result<(), Bad> {
        if self.eat(token) { Ok(()) } else { Err(self.bad(format!("{token:?} must stand here"))) }
    }

    /// Refuses what stands here.
    pub(super) fn bad(&self, expected: impl Into<String>) -> Bad {
        Bad { at: self.at, expected: expected.into() }
    }

    /// Takes all characters up to the first that is not one of these.
    pub(super) fn take_while(&mut self, fits: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let taken = &rest[..rest.find(|c| !fits(c)).unwrap_or(rest.len())];
        self.at += taken.len();
        taken
    }

    /// Takes everything that is left.
    pub(super) fn take_rest(&mut self) -> &'a str {
        self.take_while(|_| true)
    }

    pub(super) fn spaces(&mut self) {
        self.take_while(|c| c == ' ');
    }

    /// Nothing may be left.
    pub(super) fn end(&self) -> Result<(), Bad> {
        if self.rest().is_empty() { Ok(()) } else { Err(self.bad("nothing may follow here")) }
    }

    /// A name: of letters, digits, `_` and `$`, or anything between double quotes.
    pub(super) fn name(&mut self) -> Result<String, Bad> {
        if self.peek() == Some('"') {
            return match self.quoted(|_| true) {
                // It may become a name in SQL, whose text a NUL would end.
                Some(name) if !name.is_empty() && !name.contains('\0') => Ok(name),
                _ => Err(self.bad("a name between double quotes must stand here")),
            };
        }
        let name = self.take_while(|c| c.is_alphanumeric() || matches!(c, '_' | '$'));
        if name.is_empty() { Err(self.bad("a name must stand here")) } else { Ok(name.to_owned()) }
    }

    /// Takes a text between double quotes, in which a backslash stands before what is meant literally. The
    /// quote that ends it is the first one after which `may_follow` what is left; without one nothing is taken.
    pub(super) fn quoted(&mut self, may_follow: impl Fn(&str) -> bool) -> Option<String> {
        let body = self.rest().strip_prefix('"')?;
        let mut text = String::new();
        let mut chars = body.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => text.push(chars.next()?.1),
                '"' if may_follow(&body[at + 1..]) => {
                    self.at += 1 + at + 1;
                    return Some(text);
                }
                c => text.push(c),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_text_ends_at_the_quote_that_can_end_it() {
        let take = |text| {
            let mut scan = Scan::new(text);
            let taken = scan.quoted(|rest| rest.is_empty() || rest.starts_with(','));
            (taken, scan.rest().to_owned())
        };
        assert_eq!(take(r#""a,b",c"#), (Some("a,b".to_owned()), ",c".to_owned()));
        assert_eq!(take(r#""a\"b""#), (Some("a\"b".to_owned()), String::new()));
        assert_eq!(take(r#""a"b,c""#), (Some("a\"b,c".to_owned()), String::new()));
        assert_eq!(take(r#""\\""#), (Some("\\".to_owned()), String::new()));
        assert_eq!(take(r#""open"#), (None, "\"open".to_owned()));
        assert_eq!(take("\"\\"), (None, "\"\\".to_owned()));
        assert_eq!(take("é"), (None, "é".to_owned()));
    }

    #[test]
    fn what_cannot_be_read_is_said_with_its_place() {
        let error = Scan::new("é!").bad("a name must stand here").told("filter", "é!");
        assert!(error.message().contains("(é!)\" (line 1, column 1)"), "{}", error.message());
    }
}
