//! Medians over the rounds, the ratios that were asked for, and whether they are met.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::durable::UP;
use crate::load::{AT_ONCE, Measured};
use crate::rivals::{CRATE, NPM};

/// All that was measured, by way and number of calls at once.
#[derive(Default)]
pub(crate) struct Report {
    order: Vec<&'static str>,
    rounds: BTreeMap<(&'static str, usize), Vec<Round>>,
}

struct Round {
    p50: f64,
    p95: f64,
    calls_a_second: f64,
    cpu_a_call: f64,
}

impl Report {
    pub(crate) fn add(
        &mut self,
        way: &'static str,
        at_once: usize,
        measured: Measured,
        cpu: Option<Duration>,
    ) {
        if !self.order.contains(&way) {
            self.order.push(way);
        }
        let millis = |duration: Duration| duration.as_secs_f64() * 1000.0;
        self.rounds.entry((way, at_once)).or_default().push(Round {
            p50: millis(measured.quantile(0.5)),
            p95: millis(measured.quantile(0.95)),
            calls_a_second: measured.calls_a_second(),
            cpu_a_call: millis(cpu.unwrap_or_default()) / measured.each.len() as f64,
        });
    }

    fn median(&self, way: &str, at_once: usize, of: impl Fn(&Round) -> f64) -> Option<f64> {
        let (_, rounds) = self.rounds.iter().find(|((w, n), _)| *w == way && *n == at_once)?;
        let mut values: Vec<f64> = rounds.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    }

    pub(crate) fn text(&self) -> String {
        let mut text = String::from("\n| way |");
        for at_once in AT_ONCE {
            let _ = write!(text, " {at_once}: p50 ms | p95 ms | calls/s | CPU ms |");
        }
        text.push_str("\n|---|");
        text.push_str(&"---|".repeat(AT_ONCE.len() * 4));
        for way in &self.order {
            let _ = write!(text, "\n| {way} |");
            for at_once in AT_ONCE {
                let of =
                    |pick: fn(&Round) -> f64| self.median(way, at_once, pick).unwrap_or(f64::NAN);
                let _ = write!(
                    text,
                    " {:.2} | {:.2} | {:.0} | {:.2} |",
                    of(|r| r.p50),
                    of(|r| r.p95),
                    of(|r| r.calls_a_second),
                    of(|r| r.cpu_a_call)
                );
            }
        }
        text.push('\n');
        self.verdict(&mut text);
        text
    }

    fn verdict(&self, text: &mut String) {
        let p50 = |way| self.median(way, 1, |round| round.p50);
        let rate = |way, at_once| self.median(way, at_once, |round| round.calls_a_second);
        let ratio = |ours: Option<f64>, theirs: Option<f64>| Some(ours? / theirs?);
        let goals = [
            ("p50 one at a time, to npm's mcp-proxy", ratio(p50(UP), p50(NPM)), "at most", 1.0),
            (
                "calls/s at 16, to npm's mcp-proxy",
                ratio(rate(UP, 16), rate(NPM, 16)),
                "at least",
                2.0,
            ),
            (
                "calls/s at 64, to the crate mcp-proxy",
                ratio(rate(UP, 64), rate(CRATE, 64)),
                "at least",
                1.0,
            ),
        ];
        let mut missed = 0;
        for (what, ratio, bound, goal) in goals {
            let Some(ratio) = ratio else { continue };
            let met = if bound == "at most" { ratio <= goal } else { ratio >= goal };
            missed += usize::from(!met);
            let word = if met { "met" } else { "MISSED" };
            let _ = writeln!(text, "{what}: {ratio:.2} ({bound} {goal:.1}: {word})");
        }
        let verdict = match missed {
            0 => "Verdict: all that was compared is met.".to_owned(),
            missed => format!("Verdict: {missed} missed."),
        };
        text.push_str(&verdict);
    }
}
