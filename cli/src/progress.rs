//! How far something long has come: a bar that is drawn anew on a terminal, else a line now and then.

use std::time::Duration;

use cogo::clock::Stopwatch;

use crate::output::{can_redraw, note, redraw};

/// How often a bar is drawn at most; more often nobody sees.
const DRAW_EVERY: Duration = Duration::from_millis(100);
/// How often a line is written at most, since lines stay.
const SAY_EVERY: Duration = Duration::from_secs(5);
/// How wide the bar is.
const WIDTH: u64 = 30;

/// A bar on stderr, gone when dropped.
#[derive(Debug)]
pub(crate) struct Bar {
    doing: &'static str,
    drawn: bool,
    in_place: bool,
    last: Stopwatch,
}

impl Bar {
    /// A bar of something that is being done, such as `Comparing`.
    pub(crate) fn new(doing: &'static str) -> Self {
        Self { doing, drawn: false, in_place: can_redraw(), last: Stopwatch::start() }
    }

    /// Shows that `done` of about `all` events are done, unless it was shown only just now.
    pub(crate) fn show(&mut self, done: u64, all: u64) {
        let every = if self.in_place { DRAW_EVERY } else { SAY_EVERY };
        if self.last.elapsed() < every {
            return;
        }
        self.last = Stopwatch::start();
        let text = line(self.doing, done, all, self.in_place);
        if self.in_place {
            self.drawn = true;
            redraw(&text);
        } else {
            note(&text);
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if self.drawn {
            redraw("");
        }
    }
}

fn line(doing: &str, done: u64, all: u64, bar: bool) -> String {
    let events = thousands(done);
    if all < done.max(1) {
        // The estimate was too low, or there is none.
        return format!("{doing}: {events} events");
    }
    let (percent, whole) = (done.saturating_mul(100) / all, thousands(all));
    let bar = if bar {
        let full = usize::try_from(done.saturating_mul(WIDTH) / all).unwrap_or(0);
        let rest = usize::try_from(WIDTH).unwrap_or(0).saturating_sub(full);
        format!(" [{}{}]", "#".repeat(full), "-".repeat(rest))
    } else {
        String::new()
    };
    format!("{doing}:{bar} {percent} %, {events} of about {whole} events")
}

/// `1234567` as `1,234,567`.
fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_fills_up() {
        assert_eq!(
            line("Comparing", 500_000, 1_000_000, true),
            "Comparing: [###############---------------] 50 %, 500,000 of about 1,000,000 events"
        );
        assert!(line("x", 7, 7, true).contains(&format!("[{}] 100 %", "#".repeat(30))));
    }

    #[test]
    fn an_estimate_that_is_too_low_or_missing_is_not_shown() {
        assert_eq!(line("Comparing", 1234, 1000, true), "Comparing: 1,234 events");
        assert_eq!(line("Comparing", 0, 0, false), "Comparing: 0 events");
    }

    #[test]
    fn numbers_are_grouped() {
        let grouped: Vec<_> = [0, 999, 1000, 1_234_567].into_iter().map(thousands).collect();
        assert_eq!(grouped, ["0", "999", "1,000", "1,234,567"]);
    }
}
