//! Why a frame cannot be read or written.

/// A frame that cannot be read or written. Never quotes what was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text is not JSON.
    #[error("the frame is not JSON: the error is at line {line}, column {column}")]
    NotJson {
        /// The line, from 1.
        line: usize,
        /// The column, from 1; 0 at the end of what was sent.
        column: usize,
    },
    /// The JSON is not what a frame of the version is.
    #[error("a frame of version {vsn} is {expected}")]
    Shape {
        /// The version.
        vsn: super::Vsn,
        /// What it should be.
        expected: &'static str,
    },
    /// One field of the frame is missing or of the wrong type.
    #[error("`{field}` must be {expected}")]
    Field {
        /// Its name.
        field: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// The payload is not of the shape that the event has.
    #[error("the payload is wrong at `{path}`: missing, or of another type")]
    Payload {
        /// Where, as `data.columns[0].name`; `.` is the payload itself.
        path: String,
    },
    /// A binary frame ends too early.
    #[error("the binary frame of kind {kind} ends inside of `{field}`")]
    Truncated {
        /// Its kind.
        kind: u8,
        /// The field that is not whole.
        field: &'static str,
    },
    /// A binary frame without a byte.
    #[error("the binary frame is empty")]
    Empty,
    /// A binary frame of a kind that there is not, or that the other side sends.
    #[error("binary frames of kind {kind} are not sent by the {from}")]
    Kind {
        /// Its kind.
        kind: u8,
        /// Who has sent it.
        from: &'static str,
    },
    /// A name in a binary frame is not UTF-8.
    #[error("`{field}` in the binary frame is not UTF-8")]
    NotUtf8 {
        /// Its name.
        field: &'static str,
    },
    /// A name is too long for its length to be one byte.
    #[error("`{field}` has {length} bytes; a binary frame has room for 255")]
    TooLong {
        /// Its name.
        field: &'static str,
        /// Its length.
        length: usize,
    },
    /// Bytes where there is room for JSON alone.
    #[error("the payload is bytes: it cannot be read as JSON, nor sent in version 1.0.0")]
    BytesInText,
    /// A value that JSON has no form for.
    #[error("the payload cannot be written as JSON")]
    Unwritable,
}
