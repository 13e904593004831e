//! All that is printed: data on stdout, everything else on stderr, colours for terminals only.

#![allow(clippy::print_stdout, clippy::print_stderr)] // the one module that prints

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

use crate::logs;

/// Whether what goes to stderr is read by a program, line by line.
static IN_JSON: AtomicBool = AtomicBool::new(false);

/// From now on what is said to the person is a line of the log, in JSON.
pub(crate) fn say_in_json() {
    IN_JSON.store(true, Ordering::Relaxed);
}

/// A colour, by what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ink {
    Plain,
    Strong,
    Faint,
    Good,
    Bad,
    Warn,
    Name,
}

impl Ink {
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "0",
            Self::Strong => "1",
            Self::Faint => "2",
            Self::Good => "32",
            Self::Bad => "31",
            Self::Warn => "33",
            Self::Name => "36",
        }
    }
}

/// Where data go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    /// Whether data are wanted as JSON.
    pub(crate) json: bool,
    colour: bool,
    width: Option<usize>,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        let terminal = io::stdout().is_terminal();
        let width = terminal
            .then(terminal_size::terminal_size)
            .flatten()
            .map(|(terminal_size::Width(width), _)| usize::from(width));
        Self { json, colour: terminal && colour_wanted(), width }
    }

    /// Text in a colour, if colours are wanted.
    pub(crate) fn paint(&self, ink: Ink, text: &str) -> String {
        if self.colour && ink != Ink::Plain && !text.is_empty() {
            format!("\u{1b}[{}m{text}\u{1b}[0m", ink.code())
        } else {
            text.to_owned()
        }
    }

    /// Whether this is a terminal with fewer columns than so many.
    pub(crate) fn narrower_than(&self, columns: usize) -> bool {
        self.width.is_some_and(|width| width < columns)
    }

    /// One line of data.
    pub(crate) fn line(&self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        writeln!(out, "{text}")?;
        out.flush() // `tail --follow` in a pipe must not wait for a full buffer
    }

    /// A value as JSON: over several lines for a person, in one line for a program.
    pub(crate) fn value(&self, value: &impl Serialize) -> io::Result<()> {
        if self.width.is_some() {
            self.line(&serde_json::to_string_pretty(value)?)
        } else {
            self.json_line(value)
        }
    }

    /// A value as JSON in one line, as a stream of values needs it.
    pub(crate) fn json_line(&self, value: &impl Serialize) -> io::Result<()> {
        self.line(&serde_json::to_string(value)?)
    }

    /// A table with a heading; the last column gives way when the terminal is narrow.
    pub(crate) fn table(&self, heading: &[&str], rows: &[Vec<Cell>]) -> io::Result<()> {
        let mut widths: Vec<usize> = heading.iter().map(|text| text.chars().count()).collect();
        for row in rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.width());
            }
        }
        let heading: Vec<Cell> = heading.iter().map(|text| Cell::new(*text, Ink::Strong)).collect();
        let mut text = self.row(&heading, &widths);
        for row in rows {
            text.push('\n');
            text.push_str(&self.row(row, &widths));
        }
        self.line(&text)
    }

    /// Cells side by side, each as wide as its column.
    pub(crate) fn row(&self, row: &[Cell], widths: &[usize]) -> String {
        let mut line = String::new();
        let mut used = 0;
        for (at, (cell, width)) in row.iter().zip(widths).enumerate() {
            if at > 0 {
                line.push_str("  ");
                used += 2;
            }
            let last = at + 1 == row.len();
            let room = self.width.map(|all| all.saturating_sub(used).max(20));
            let text = match room {
                Some(room) if last => shorten(&cell.text, room),
                _ => cell.text.clone(),
            };
            let gap = width.saturating_sub(text.chars().count());
            used += text.chars().count() + gap;
            let painted = self.paint(cell.ink, &text);
            if cell.right {
                line.push_str(&" ".repeat(gap));
                line.push_str(&painted);
            } else {
                line.push_str(&painted);
                if !last {
                    line.push_str(&" ".repeat(gap));
                }
            }
        }
        line.truncate(line.trim_end_matches(' ').len());
        line
    }
}

/// One field of a table.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    text: String,
    ink: Ink,
    right: bool,
}

impl Cell {
    pub(crate) fn new(text: impl Into<String>, ink: Ink) -> Self {
        // What others wrote must not move our cursor or break our lines.
        Self { text: printable(&text.into()), ink, right: false }
    }

    pub(crate) fn plain(text: impl Into<String>) -> Self {
        Self::new(text, Ink::Plain)
    }

    pub(crate) fn number(text: impl Into<String>) -> Self {
        Self { right: true, ..Self::plain(text) }
    }

    /// How wide the text is.
    pub(crate) fn width(&self) -> usize {
        self.text.chars().count()
    }

    /// The same, but at the right edge of its column.
    pub(crate) fn right(self) -> Self {
        Self { right: true, ..self }
    }
}

/// Says something to the person at the terminal; never data.
pub(crate) fn note(text: &str) {
    match IN_JSON.load(Ordering::Relaxed) {
        true => write(&logs::said("INFO", text)),
        false => write(text),
    }
}

fn write(line: &str) {
    // Nobody may be there to read it; that is no reason to stop.
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Whether the person at the terminal can be shown something that changes in place.
pub(crate) fn can_redraw() -> bool {
    io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Writes over the last line that this wrote; see [`can_redraw`].
pub(crate) fn redraw(text: &str) {
    let mut to = io::stderr().lock();
    let _ = write!(to, "\r{text}\u{1b}[K").and_then(|()| to.flush());
}

/// Writes lines for good, below them some that change in place, and all of it over the last so many of those; see
/// [`can_redraw`]. No line may be wider than [`columns_on_stderr`].
pub(crate) fn redraw_below(drawn: usize, kept: &[String], changing: &[String]) {
    let up = if drawn > 0 { format!("\u{1b}[{drawn}A") } else { String::new() };
    let lines: String =
        kept.iter().chain(changing).flat_map(|line| [line.as_str(), "\n"]).collect();
    let mut to = io::stderr().lock();
    let _ = write!(to, "{up}\r\u{1b}[J{lines}").and_then(|()| to.flush());
}

/// How wide the terminal is that shows what is said to the person.
pub(crate) fn columns_on_stderr() -> usize {
    terminal_size::terminal_size_of(io::stderr())
        .map_or(80, |(terminal_size::Width(width), _)| usize::from(width))
}

/// Text in a colour for [`note`], if colours are wanted there.
pub(crate) fn paint_note(ink: Ink, text: &str) -> String {
    if colour_on_stderr() && !IN_JSON.load(Ordering::Relaxed) {
        format!("\u{1b}[{}m{text}\u{1b}[0m", ink.code())
    } else {
        text.to_owned()
    }
}

/// Says what went wrong.
pub(crate) fn error(text: &str) {
    if IN_JSON.load(Ordering::Relaxed) {
        return write(&logs::said("ERROR", text));
    }
    let (prefix, rest) = ("error:", text.replace('\n', "\n  "));
    if io::stderr().is_terminal() && colour_wanted() {
        note(&format!("\u{1b}[31m{prefix}\u{1b}[0m {rest}"));
    } else {
        note(&format!("{prefix} {rest}"));
    }
}

/// Whether logs on stderr may have colours.
pub(crate) fn colour_on_stderr() -> bool {
    io::stderr().is_terminal() && colour_wanted()
}

/// See <https://no-color.org>.
pub(crate) fn colour_wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Text in one line, without what would steer a terminal. What cannot be seen, or turns around the order in which the
/// rest is read, is seen as `\u{fffd}`: who looks at a tool's description is to see all that a model reads.
pub(crate) fn printable(text: &str) -> String {
    let seen = |c: char| match c {
        c if c.is_control() => ' ',
        '\u{ad}'
        | '\u{61c}'
        | '\u{180e}'
        | '\u{200b}'
        | '\u{200e}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}'
        | '\u{e0000}'..='\u{e0fff}' => '\u{fffd}',
        c => c,
    };
    text.chars().map(seen).collect()
}

pub(crate) fn shorten(text: &str, room: usize) -> String {
    if text.chars().count() <= room {
        return text.to_owned();
    }
    let kept: String = text.chars().take(room.saturating_sub(1)).collect();
    format!("{kept}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(width: Option<usize>) -> Output {
        Output { json: false, colour: false, width }
    }

    #[test]
    fn columns_line_up_and_lines_end_without_blanks() {
        let row = [Cell::plain("a"), Cell::number("7"), Cell::plain("")];
        assert_eq!(plain(None).row(&row, &[3, 2, 4]), "a     7");
    }

    #[test]
    fn a_narrow_terminal_shortens_the_last_column_only() {
        let row = [Cell::plain("a".repeat(10)), Cell::plain("b".repeat(50))];
        let line = plain(Some(40)).row(&row, &[10, 50]);
        assert_eq!(line, format!("{}  {}…", "a".repeat(10), "b".repeat(27)));
    }

    #[test]
    fn what_others_wrote_cannot_steer_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\nc\u{9b}d"), "a [2Jb c d");
        // Backwards, and in letters that only a machine reads.
        assert_eq!(printable("a\u{202e}b\u{e0041}c"), "a\u{fffd}b\u{fffd}c");
        assert_eq!(printable("é 漢 می‌خواهم 👍"), "é 漢 می‌خواهم 👍");
    }
}
