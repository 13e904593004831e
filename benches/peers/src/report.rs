//! The report, in Markdown.

use std::fmt::Write as _;

use serde_json::Value;

use crate::participant::{Measure, Participant, all};
use crate::record::{Of, Record, version};
use crate::target::{Goal, Ratio, ratios};

/// All of it: medians, ratios and goals, what each peer does less, and what failed.
pub(crate) fn markdown(record: &Record, about: &Value, participants: &[Participant]) -> String {
    let mut text = String::new();
    head(&mut text, about);
    figures(&mut text, record, participants);
    claims(&mut text, record, participants);
    let everyone = participants.len() == all().len() && record.failed.is_empty();
    goals(&mut text, &ratios(record, participants), everyone);
    peers(&mut text, participants);
    failures(&mut text, record);
    text
}

/// Writing to a string cannot fail.
macro_rules! line {
    ($text:expr) => { $text.push('\n') };
    ($text:expr, $($part:tt)*) => { writeln!($text, $($part)*).expect("a string takes it") };
}

fn head(text: &mut String, about: &Value) {
    let machine = &about["machine"];
    let postgres = about["postgres"]["version"].as_str().unwrap_or_default();
    let postgres = postgres.split(" on ").next().unwrap_or_default();
    line!(text, "# COGO beside other queues on Postgres\n");
    if about["quick"] == true {
        line!(
            text,
            "**A quick run, which only shows that all of it works. Its figures say nothing.**\n"
        );
    }
    line!(
        text,
        "Commit {}; {postgres}, default durability; {} cores ({}); load before it {}; {} rounds of {} messages, medians.\n",
        about["commit"].as_str().unwrap_or("unknown"),
        machine["cores"],
        machine["cpu"].as_str().unwrap_or("unknown"),
        machine["load_at_start"],
        about["rounds"],
        about["messages"],
    );
}

/// The rows that have a case of one of `measures`, in order.
fn rows(participants: &[Participant], measures: &[Measure]) -> Vec<&'static str> {
    let cases =
        participants.iter().flat_map(|p| &p.cases).filter(|case| measures.contains(&case.measure));
    let mut rows: Vec<_> = cases.map(|case| case.row).collect();
    rows.dedup();
    rows
}

fn figures(text: &mut String, record: &Record, participants: &[Participant]) {
    let measures = [
        Measure::Enqueue1000,
        Measure::Enqueue100,
        Measure::Single,
        Measure::Drain,
        Measure::Latency,
    ];
    line!(
        text,
        "| | enqueue b1000, rows/s | b100 | one at a time by 32 | drain, jobs/s | wake-up p50, ms | p95 |"
    );
    line!(text, "|---|---|---|---|---|---|---|");
    for row in rows(participants, &measures) {
        let mut cells: Vec<String> = measures[..4]
            .iter()
            .map(|measure| rate(record.median(row, *measure, Of::Rate)))
            .collect();
        for share in [0.5, 0.95] {
            let value = record.median(row, Measure::Latency, Of::Quantile(share));
            cells.push(value.map_or_else(none, |ms| format!("{ms:.1}")));
        }
        line!(text, "| {row} | {} |", cells.join(" | "));
    }
    line!(text);
}

fn claims(text: &mut String, record: &Record, participants: &[Participant]) {
    let measures = [Measure::Claims100, Measure::Claims1000];
    line!(text, "Claims and settles alone, without a worker, messages/s:\n");
    line!(text, "| | 100 at once by 8 | 1000 at once by 4 |");
    line!(text, "|---|---|---|");
    for row in rows(participants, &measures) {
        let cells = measures.map(|measure| rate(record.median(row, measure, Of::Rate)));
        line!(text, "| {row} | {} |", cells.join(" | "));
    }
    line!(text);
}

/// A goal is met beside everyone; who was left out or failed may have been the best.
fn goals(text: &mut String, ratios: &[Ratio], everyone: bool) {
    line!(text, "| COGO | beside | ratio (rounds) | goal | |");
    line!(text, "|---|---|---|---|---|");
    for Ratio { what, beside, value, goal } in ratios {
        let shown = value.map_or_else(none, |(median, least, most)| {
            format!("{median:.2} ({least:.2}–{most:.2})")
        });
        let wanted = match goal {
            Some(Goal::AtLeast(least)) => format!("at least {least}"),
            Some(Goal::AtMost(most)) => format!("at most {most}"),
            None => none(),
        };
        let verdict = match (goal, value) {
            (None, _) => "",
            (Some(_), None) => "not measured",
            (Some(goal), Some((median, ..))) if goal.met(*median) && everyone => "met",
            (Some(goal), Some((median, ..))) if goal.met(*median) => {
                "met beside those who took part"
            }
            _ => "**missed**",
        };
        line!(text, "| {what} | {beside} | {shown} | {wanted} | {verdict} |");
    }
    line!(text);
}

fn peers(text: &mut String, participants: &[Participant]) {
    line!(text, "| | version | settings | what it does less |");
    line!(text, "|---|---|---|---|");
    for participant in participants {
        let (version, settings, less) =
            (version(participant), participant.settings, participant.less);
        line!(text, "| {} | {version} | {settings} | {less} |", participant.title);
    }
    line!(text);
}

fn failures(text: &mut String, record: &Record) {
    if record.failed.is_empty() {
        return;
    }
    line!(text, "**Failed:**\n");
    for failed in &record.failed {
        let reason = failed.reason.replace('\n', " / ");
        line!(text, "- {}, {}: {reason}", failed.participant, failed.what);
    }
}

fn none() -> String {
    "–".to_owned()
}

/// Three figures, since a fourth one would be another in the next run.
fn rate(value: Option<f64>) -> String {
    let Some(value) = value else { return none() };
    let step = 10_f64.powf((value.max(1.0).log10().floor() - 2.0).max(0.0));
    let whole = ((value / step).round() * step) as u64;
    let digits = whole.to_string();
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(|g| std::str::from_utf8(g).expect("digits"))
        .collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::participant;
    use crate::record::{Failed, Figure};

    #[test]
    fn a_rate_has_three_figures() {
        assert_eq!(rate(Some(181_642.0)), "182,000");
        assert_eq!(rate(Some(1_234_567.0)), "1,230,000");
        assert_eq!(rate(Some(330.4)), "330");
        assert_eq!(rate(Some(9.6)), "10");
        assert_eq!(rate(None), "–");
    }

    #[test]
    fn what_failed_is_told_beside_what_was_measured() {
        let figure = Figure {
            round: 1,
            row: "COGO",
            measure: Measure::Drain.name(),
            messages: 2_000,
            seconds: 0.1,
            latencies_ms: Vec::new(),
        };
        let failed = Failed {
            participant: "pg-boss",
            what: "set-up".to_owned(),
            reason: "no npm".to_owned(),
        };
        let record = Record { figures: vec![figure], failed: vec![failed] };
        let text = markdown(&record, &serde_json::json!({"quick": true}), &participant::all());
        assert!(text.contains("| COGO | – | – | – | 20,000 | – | – |"), "{text}");
        assert!(text.contains("- pg-boss, set-up: no npm"), "{text}");
        assert!(text.contains("| not measured |") && text.contains("quick run"), "{text}");
    }
}
