//! What is aimed at: ratios of COGO to the others, within one run.

use crate::measure::median;
use crate::participant::{COGO, FLOOR_ROWS, FLOOR_SAME, Measure, PGMQ_ARCHIVE, Participant};
use crate::record::{Of, Record};

/// A goal, or a ratio that is worth knowing.
pub(crate) struct Ratio {
    pub(crate) what: String,
    /// Beside whom.
    pub(crate) beside: &'static str,
    /// The median of the rounds' ratios, the least and the greatest.
    pub(crate) value: Option<(f64, f64, f64)>,
    pub(crate) goal: Option<Goal>,
}

/// What a value should be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

impl Goal {
    pub(crate) fn met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }
}

/// All of them, of what was measured.
pub(crate) fn ratios(record: &Record, participants: &[Participant]) -> Vec<Ratio> {
    let peers: Vec<&'static str> = rows(participants, |name| name != "cogo" && name != "floor");
    let with_workers: Vec<&'static str> =
        rows(participants, |name| !["cogo", "floor", "pgmq"].contains(&name));
    let rate = |what: &str, measure, others: &[&'static str], goal| {
        let beside = best(record, others, measure, Of::Rate, true);
        ratio(record, what, (COGO, measure), beside.map(|row| (row, measure)), Of::Rate, goal)
    };
    let to = |what: &str, measure, row, theirs, goal| {
        ratio(record, what, (COGO, measure), Some((row, theirs)), Of::Rate, goal)
    };
    let at_least = |least| Some(Goal::AtLeast(least));
    let (b1000, b100) = (Measure::Enqueue1000, Measure::Enqueue100);
    let (claims100, claims1000) = (Measure::Claims100, Measure::Claims1000);
    let mut all = vec![
        rate("enqueue in batches of 1000, to the best peer", b1000, &peers, at_least(1.5)),
        rate("enqueue in batches of 100, to the best peer", b100, &peers, at_least(1.5)),
        rate(
            "enqueue in batches of 1000, to the best peer with a worker",
            b1000,
            &with_workers,
            None,
        ),
        rate(
            "enqueue in batches of 100, to the best peer with a worker",
            b100,
            &with_workers,
            None,
        ),
        to(
            "enqueue in batches of 1000, to INSERT of the same rows",
            b1000,
            FLOOR_SAME,
            b1000,
            at_least(0.5),
        ),
        to(
            "enqueue in batches of 100, to INSERT of the same rows",
            b100,
            FLOOR_SAME,
            b100,
            at_least(0.5),
        ),
        to(
            "enqueue in batches of 1000, to INSERT of one row a message",
            b1000,
            FLOOR_ROWS,
            b1000,
            None,
        ),
        rate(
            "enqueue one at a time by 32, to the best peer",
            Measure::Single,
            &peers,
            at_least(3.0),
        ),
        to(
            "enqueue one at a time by 32, to INSERT of one row",
            Measure::Single,
            FLOOR_ROWS,
            Measure::Single,
            None,
        ),
        rate(
            "drain, to the best peer through its worker",
            Measure::Drain,
            &with_workers,
            at_least(1.5),
        ),
        to(
            "drain, to pgmq's read + archive, 100 by 8",
            Measure::Drain,
            PGMQ_ARCHIVE,
            claims100,
            at_least(1.0),
        ),
        to(
            "drain, to pgmq's read + archive, 1000 by 4",
            Measure::Drain,
            PGMQ_ARCHIVE,
            claims1000,
            at_least(1.0),
        ),
        to(
            "claims without a handler, to pgmq's, 100 by 8",
            claims100,
            PGMQ_ARCHIVE,
            claims100,
            None,
        ),
        to(
            "claims without a handler, to pgmq's, 1000 by 4",
            claims1000,
            PGMQ_ARCHIVE,
            claims1000,
            None,
        ),
    ];
    let p50 = Of::Quantile(0.5);
    let quickest =
        best(record, &peers, Measure::Latency, p50, false).map(|row| (row, Measure::Latency));
    let (what, ours) = ("wake-up p50, to the best peer's", (COGO, Measure::Latency));
    all.push(ratio(record, what, ours, quickest, p50, Some(Goal::AtMost(1.0))));
    let p95 =
        record.rounds(COGO, Measure::Latency, Of::Quantile(0.95)).into_values().collect::<Vec<_>>();
    all.push(Ratio {
        what: "wake-up p95, in ms".to_owned(),
        beside: "–",
        value: spread(&p95),
        goal: Some(Goal::AtMost(10.0)),
    });
    all
}

/// The rows of the participants that `wanted` names.
fn rows(participants: &[Participant], wanted: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let cases = participants.iter().filter(|p| wanted(p.name)).flat_map(|p| &p.cases);
    let mut rows: Vec<_> = cases.map(|case| case.row).collect();
    rows.dedup();
    rows
}

/// Whose median is the best.
fn best(
    record: &Record,
    rows: &[&'static str],
    measure: Measure,
    of: Of,
    greatest: bool,
) -> Option<&'static str> {
    let with_value = rows.iter().filter_map(|row| Some((*row, record.median(row, measure, of)?)));
    let sorted = if greatest {
        with_value.max_by(|a, b| a.1.total_cmp(&b.1))
    } else {
        with_value.min_by(|a, b| a.1.total_cmp(&b.1))
    };
    sorted.map(|(row, _)| row)
}

fn ratio(
    record: &Record,
    what: &str,
    ours: (&str, Measure),
    theirs: Option<(&'static str, Measure)>,
    of: Of,
    goal: Option<Goal>,
) -> Ratio {
    let Some((row, measure)) = theirs else {
        return Ratio { what: what.to_owned(), beside: "–", value: None, goal };
    };
    let their_rounds = record.rounds(row, measure, of);
    let values: Vec<f64> = record
        .rounds(ours.0, ours.1, of)
        .into_iter()
        .filter_map(|(round, ours)| Some(ours / their_rounds.get(&round)?))
        .collect();
    Ratio { what: what.to_owned(), beside: row, value: spread(&values), goal }
}

fn spread(values: &[f64]) -> Option<(f64, f64, f64)> {
    let least = values.iter().copied().min_by(f64::total_cmp)?;
    let most = values.iter().copied().max_by(f64::total_cmp)?;
    Some((median(values)?, least, most))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::participant;
    use crate::record::Figure;

    fn record(figures: &[(&'static str, Measure, u32, f64)]) -> Record {
        let figures = figures.iter().map(|&(row, measure, round, rate)| Figure {
            round,
            row,
            measure: measure.name(),
            messages: 1000,
            seconds: 1000.0 / rate,
            latencies_ms: Vec::new(),
        });
        Record { figures: figures.collect(), failed: Vec::new() }
    }

    fn of<'a>(ratios: &'a [Ratio], what: &str) -> &'a Ratio {
        ratios.iter().find(|ratio| ratio.what == what).expect("it is one of them")
    }

    #[test]
    fn a_drain_is_held_to_the_best_worker_and_not_to_bare_sql() {
        let participants = participant::all();
        let drain = Measure::Drain;
        let record = record(&[
            (COGO, drain, 1, 30_000.0),
            (COGO, drain, 2, 40_000.0),
            ("pg-boss (npm)", drain, 1, 20_000.0),
            ("pg-boss (npm)", drain, 2, 20_000.0),
            ("apalis-postgres (crate)", drain, 1, 8_000.0),
            (PGMQ_ARCHIVE, Measure::Claims100, 1, 60_000.0),
        ]);
        let ratios = ratios(&record, &participants);
        let worker = of(&ratios, "drain, to the best peer through its worker");
        assert_eq!(worker.beside, "pg-boss (npm)");
        let (value, least, most) = worker.value.expect("both were measured");
        assert!(
            (value - 1.75).abs() < 1e-9 && (least - 1.5).abs() < 1e-9 && (most - 2.0).abs() < 1e-9
        );
        assert!(worker.goal.expect("it has a goal").met(value));
        // Only the rounds count that both have.
        let (value, ..) =
            of(&ratios, "drain, to pgmq's read + archive, 100 by 8").value.expect("one round");
        assert!((value - 0.5).abs() < 1e-9);
        assert!(of(&ratios, "enqueue one at a time by 32, to the best peer").value.is_none());
    }

    #[test]
    fn each_row_that_a_goal_names_is_measured() {
        let participants = participant::all();
        let rows = rows(&participants, |_| true);
        for row in [COGO, FLOOR_ROWS, FLOOR_SAME, PGMQ_ARCHIVE] {
            assert!(rows.contains(&row), "{row}");
        }
    }
}
