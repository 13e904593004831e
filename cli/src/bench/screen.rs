//! What is being done just now, on stderr: in place on a terminal, else a line each.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::output::{can_redraw, columns_on_stderr, note, redraw, shorten};

/// Tells what goes on.
#[derive(Debug)]
pub(super) struct Screen {
    in_place: bool,
    drawn: AtomicBool,
}

impl Screen {
    pub(super) fn new() -> Self {
        Self { in_place: can_redraw(), drawn: AtomicBool::new(false) }
    }

    /// Tells what begins now.
    pub(super) fn doing(&self, text: &str) {
        if self.in_place {
            self.drawn.store(true, Ordering::Relaxed);
            redraw(&shorten(text, columns_on_stderr().saturating_sub(1)));
        } else {
            note(text);
        }
    }

    /// Removes what stands there, before something else is said.
    pub(super) fn clear(&self) {
        if self.drawn.swap(false, Ordering::Relaxed) {
            redraw("");
        }
    }
}
