//! A value that is to be set: from a variable, from stdin, or typed without being shown; never from an argument.

use std::io::{IsTerminal as _, Read as _};

use anyhow::{Context as _, Result};
use cogo::remote_env::{MAX_VALUE_BYTES, SecretString};
use crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers, read};
use crossterm::terminal::{disable_raw_mode, enable_raw_mode};

use crate::exit::{Exit, Failed};
use crate::output::note;

/// Reads the value of `name`.
pub(super) fn read_value(name: &str, from_env: Option<&str>) -> Result<SecretString> {
    if let Some(variable) = from_env {
        let value = std::env::var(variable)
            .map_err(|_| Failed::usage(format!("--from-env {variable}: is not set, or no text")))?;
        return Ok(value.into());
    }
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        return prompt(name);
    }
    // With all the room from the start: what grows leaves copies behind.
    let most = MAX_VALUE_BYTES + 3;
    let mut text = String::with_capacity(most);
    stdin
        .take(most as u64)
        .read_to_string(&mut text)
        .map_err(|error| Failed::usage(format!("the value on stdin: {error}")))?;
    for end in ["\n", "\r"] {
        if text.ends_with(end) {
            text.truncate(text.len() - 1);
        }
    }
    if text.is_empty() {
        return Err(Failed::usage("the value on stdin is empty").into());
    }
    Ok(text.into())
}

/// Asks for it on the terminal; nothing of it is shown.
fn prompt(name: &str) -> Result<SecretString> {
    note(&format!("The value of {name} (it is not shown; Enter ends it, Ctrl-C gives up):"));
    enable_raw_mode().context("hiding what is typed")?;
    let typed = typed();
    disable_raw_mode().context("showing again what is typed")?;
    let Some(text) = typed.context("reading what is typed")? else {
        return Err(Failed::new(Exit::Interrupted, "nothing was set").into());
    };
    if text.is_empty() {
        return Err(Failed::usage("the value is empty").into());
    }
    Ok(text.into())
}

/// What is typed until Enter; none at Ctrl-C, Ctrl-D or Escape.
fn typed() -> std::io::Result<Option<String>> {
    let mut text = String::with_capacity(MAX_VALUE_BYTES);
    loop {
        let key = match read()? {
            Event::Key(key) if key.kind != KeyEventKind::Release => key,
            Event::Paste(pasted) => {
                text.push_str(&pasted);
                continue;
            }
            _ => continue,
        };
        let KeyEvent { code, modifiers, .. } = key;
        match code {
            KeyCode::Enter => return Ok(Some(text)),
            KeyCode::Esc => return Ok(None),
            KeyCode::Char('c' | 'd') if modifiers.contains(KeyModifiers::CONTROL) => {
                return Ok(None);
            }
            KeyCode::Char('u') if modifiers.contains(KeyModifiers::CONTROL) => text.clear(),
            KeyCode::Char(letter) if !modifiers.contains(KeyModifiers::CONTROL) => {
                text.push(letter);
            }
            KeyCode::Backspace => drop(text.pop()),
            _ => {}
        }
    }
}
