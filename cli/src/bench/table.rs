//! The figures as a table.

use std::io;

use crate::bench::report::{Report, Told};
use crate::output::{Cell, Ink, Output, note, paint_note};

pub(super) fn show(output: Output, report: &Report) -> io::Result<()> {
    let mut rows = Vec::new();
    for told in &report.scenarios {
        for measured in &told.measurements {
            let between = match measured.rounds.len() {
                0 | 1 => String::new(),
                _ => format!("{} to {}", number(measured.min), number(measured.max)),
            };
            rows.push(vec![
                Cell::new(told.name, Ink::Name),
                Cell::plain(&measured.case),
                Cell::plain(measured.metric),
                Cell::number(number(measured.median)),
                Cell::plain(measured.unit),
                Cell::new(between, Ink::Faint),
            ]);
        }
    }
    let heading = ["SCENARIO", "CASE", "WHAT", "MEDIAN", "UNIT", "ROUNDS"];
    output.table(&heading, &rows)?;
    note(&format!("{}; {}", report.postgres.version(), report.machine.line()));
    for told in &report.scenarios {
        if let Some(line) = unfinished(told) {
            note(&paint_note(Ink::Bad, &line));
        }
    }
    for warning in &report.warnings {
        note(&paint_note(Ink::Warn, &format!("warning: {warning}")));
    }
    Ok(())
}

fn unfinished(told: &Told) -> Option<String> {
    let name = told.name;
    match told.outcome {
        "complete" => None,
        "failed" => Some(format!("{name} failed: {}", told.error.as_deref().unwrap_or_default())),
        "partial" => Some(format!("{name} was cut off: its figures are partial")),
        _ => Some(format!("{name} was not run")),
    }
}

/// A figure as far as it means something: three digits, and whole thousands.
fn number(value: f64) -> String {
    match value.abs() {
        _ if !value.is_finite() => "-".to_owned(),
        0.0 => "0".to_owned(),
        v if v >= 100.0 => thousands(value.round()),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn thousands(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    if value < 0.0 {
        text.push('-');
    }
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
    fn figures_have_the_digits_that_mean_something() {
        let told = [0.0, 0.1234, 1.234, 12.34, 123.4, 1_234_567.8, f64::NAN].map(number);
        assert_eq!(told, ["0", "0.123", "1.23", "12.3", "123", "1,234,568", "-"]);
    }
}
