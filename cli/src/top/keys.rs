//! What the person at the keyboard sees and wants.

use std::time::Duration;

use crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use crate::top::frame::Frame;
use crate::top::panes::{Pane, Row};
use crate::top::{FASTEST, SLOWEST};

/// What to do after a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Draw, and go on.
    Go,
    /// Look at once.
    Look,
    End,
}

/// What lies over the panes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    Nothing,
    Help,
    Detail,
}

/// What is looked at, and how.
#[derive(Debug)]
pub(super) struct View {
    pub(super) pane: Pane,
    /// The chosen row of each pane.
    pub(super) chosen: [usize; 4],
    pub(super) over: Over,
    pub(super) paused: bool,
    pub(super) every: Duration,
    /// Only rows that hold this text are shown.
    pub(super) filter: String,
    /// The filter is being written.
    pub(super) writes: bool,
}

impl View {
    pub(super) fn new(every: Duration) -> Self {
        Self {
            pane: Pane::Failures,
            chosen: [0; 4],
            over: Over::Nothing,
            paused: false,
            every,
            filter: String::new(),
            writes: false,
        }
    }

    /// The rows of a pane that fit the filter.
    pub(super) fn rows(&self, pane: Pane, frame: &Frame) -> Vec<Row> {
        let wanted = self.filter.to_lowercase();
        let fits = |row: &Row| {
            wanted.is_empty()
                || row.cells.iter().any(|(text, _)| text.to_lowercase().contains(&wanted))
        };
        pane.rows(frame).into_iter().filter(fits).collect()
    }

    pub(super) fn press(&mut self, event: &Event, frame: &Frame) -> Next {
        match event {
            // On Windows keys are told when they are let go as well.
            Event::Key(key) if key.kind != KeyEventKind::Release => self.key(*key, frame),
            _ => Next::Go,
        }
    }

    fn key(&mut self, key: KeyEvent, frame: &Frame) -> Next {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if control && matches!(key.code, KeyCode::Char('c' | 'd')) {
            return Next::End;
        }
        if self.writes {
            self.write(key.code);
            return Next::Go;
        }
        if self.over != Over::Nothing {
            let closes =
                matches!(key.code, KeyCode::Esc | KeyCode::Enter | KeyCode::Char('q' | '?'));
            if closes {
                self.over = Over::Nothing;
            }
            return Next::Go;
        }
        match key.code {
            KeyCode::Char('q') => return Next::End,
            KeyCode::Esc if self.filter.is_empty() => return Next::End,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Char('?' | 'h') => self.over = Over::Help,
            KeyCode::Char('/') => self.writes = true,
            KeyCode::Char('p' | ' ') => {
                self.paused = !self.paused;
                return if self.paused { Next::Go } else { Next::Look };
            }
            KeyCode::Char('+') => self.every = (self.every / 2).max(FASTEST),
            KeyCode::Char('-') => self.every = (self.every * 2).min(SLOWEST),
            KeyCode::Char('r') => return Next::Look,
            KeyCode::Char(digit @ '1'..='4') => {
                self.pane = Pane::ALL[usize::from(digit as u8 - b'1')];
            }
            KeyCode::Tab | KeyCode::Right => self.pane = Pane::ALL[(self.pane as usize + 1) % 4],
            KeyCode::BackTab | KeyCode::Left => {
                self.pane = Pane::ALL[(self.pane as usize + 3) % 4];
            }
            KeyCode::Enter if !self.rows(self.pane, frame).is_empty() => self.over = Over::Detail,
            code => self.travel(code, frame),
        }
        Next::Go
    }

    fn write(&mut self, code: KeyCode) {
        match code {
            KeyCode::Char(c) if self.filter.chars().count() < 60 => self.filter.push(c),
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Esc => {
                self.filter.clear();
                self.writes = false;
            }
            KeyCode::Enter => self.writes = false,
            _ => {}
        }
    }

    fn travel(&mut self, code: KeyCode, frame: &Frame) {
        let last = self.rows(self.pane, frame).len().saturating_sub(1);
        let chosen = &mut self.chosen[self.pane as usize];
        *chosen = match code {
            KeyCode::Up | KeyCode::Char('k') => chosen.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => *chosen + 1,
            KeyCode::PageUp => chosen.saturating_sub(10),
            KeyCode::PageDown => *chosen + 10,
            KeyCode::Home | KeyCode::Char('g') => 0,
            KeyCode::End | KeyCode::Char('G') => last,
            _ => *chosen,
        }
        .min(last);
    }
}
