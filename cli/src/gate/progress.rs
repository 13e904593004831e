//! How far a gate has come: on a terminal a line for each step under way, drawn anew; elsewhere a line for each that
//! has ended, and one now and then for what takes long.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cogo::clock::Stopwatch;
use cogo::gate::{Outcome, Progress, StageReport, StepReport};

use crate::connect::{Global, LogFormat};
use crate::output::{
    Ink, can_redraw, columns_on_stderr, note, paint_note, printable, redraw_below, shorten,
};

/// How often the lines under way are drawn; more often nobody sees.
const DRAW_EVERY: Duration = Duration::from_millis(100);
/// How often is said of a step that it is still under way, where lines stay.
const SAY_EVERY: Duration = Duration::from_secs(30);
/// What turns while something is under way.
const TURNING: [char; 4] = ['◐', '◓', '◑', '◒'];

/// Where the person looks.
#[derive(Debug)]
pub(super) struct Screen {
    in_place: bool,
    /// The lines are read by GitHub's runner, which folds stages and marks failures by commands within them.
    github: bool,
    shown: Mutex<Shown>,
}

#[derive(Debug, Default)]
struct Shown {
    under_way: Vec<UnderWay>,
    drawn: usize,
    turn: usize,
}

#[derive(Debug)]
struct UnderWay {
    stage: String,
    step: String,
    since: Stopwatch,
    said: Stopwatch,
    doing: String,
}

impl Screen {
    pub(super) fn new(global: &Global) -> Self {
        let in_lines = global.log_format == LogFormat::Text;
        let github = std::env::var_os("GITHUB_ACTIONS").is_some_and(|value| value == "true");
        Self {
            in_place: in_lines && can_redraw(),
            github: in_lines && github,
            shown: Mutex::default(),
        }
    }

    /// Shows how long the steps under way have taken; never ends.
    pub(super) async fn keep_up(&self) -> ! {
        loop {
            tokio::time::sleep(DRAW_EVERY).await;
            let mut shown = self.shown();
            shown.turn += 1;
            if self.in_place {
                shown.draw(&[]);
            } else {
                shown.say();
            }
        }
    }

    /// What a step that takes long is at.
    pub(super) fn doing(&self, stage: &str, step: &str, doing: &str) {
        if let Some(found) = self.shown().find(stage, step) {
            found.doing = printable(doing.trim());
        }
    }

    /// Takes away what is drawn anew.
    pub(super) fn clear(&self) {
        let mut shown = self.shown();
        shown.under_way.clear();
        if self.in_place {
            shown.draw(&[]);
        }
    }

    /// Writes lines for good.
    fn keep(&self, lines: &[String]) {
        let mut shown = self.shown();
        if self.in_place {
            shown.draw(lines);
        } else {
            lines.iter().for_each(|line| note(line));
        }
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        // What is held is complete between any two statements, so a panic elsewhere spoils nothing.
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shown {
    fn find(&mut self, stage: &str, step: &str) -> Option<&mut UnderWay> {
        self.under_way.iter_mut().find(|one| one.stage == stage && one.step == step)
    }

    fn draw(&mut self, kept: &[String]) {
        let room = columns_on_stderr().saturating_sub(1);
        let turning = TURNING[self.turn / 2 % TURNING.len()];
        let line = |one: &UnderWay| {
            let took = seconds(one.since.elapsed());
            let text = format!("  {turning} {}  {took}  {}", printable(&one.step), one.doing);
            paint_note(Ink::Faint, &shorten(text.trim_end(), room))
        };
        let changing: Vec<_> = self.under_way.iter().map(line).collect();
        redraw_below(self.drawn, kept, &changing);
        self.drawn = changing.len();
    }

    fn say(&mut self) {
        for one in self.under_way.iter_mut().filter(|one| one.said.elapsed() > SAY_EVERY) {
            one.said = Stopwatch::start();
            let took = seconds(one.since.elapsed());
            note(format!("  … {} for {took} now  {}", printable(&one.step), one.doing).trim_end());
        }
    }
}

impl Progress for Screen {
    fn stage(&self, stage: &str) {
        if self.github {
            note(&format!("::group::{stage}"));
        }
        self.keep(&[paint_note(Ink::Strong, stage)]);
    }

    fn step(&self, stage: &str, step: &str) {
        let (stage, step) = (stage.to_owned(), step.to_owned());
        let (since, said) = (Stopwatch::start(), Stopwatch::start());
        let one = UnderWay { stage, step, since, said, doing: String::new() };
        self.shown().under_way.push(one);
    }

    fn stepped(&self, stage: &str, step: &StepReport) {
        self.shown().under_way.retain(|one| one.stage != stage || one.step != step.name);
        let (mark, ink) = mark(&step.outcome);
        let took = match step.outcome {
            Outcome::Skipped { .. } => String::new(),
            _ => format!("  {}", seconds(step.took)),
        };
        let (name, text) = (printable(&step.name), self.said(step.outcome.text()));
        let mut lines = vec![format!("  {} {name}{took}  {text}", paint_note(ink, mark))];
        if let Outcome::Failed { remedy: Some(remedy), .. } = &step.outcome {
            lines.push(format!("      {}", self.said(remedy)));
        }
        self.keep(&lines);
    }

    fn staged(&self, stage: &StageReport) {
        let (mark, ink) = mark(&stage.outcome);
        let (mark, word) = (paint_note(ink, mark), stage.outcome.word());
        let more = match (&stage.outcome, &stage.failed_step) {
            (Outcome::Failed { .. }, Some(step)) => format!(" at {}", printable(step)),
            (Outcome::Passed { .. }, _) => String::new(),
            (outcome, _) => format!(": {}", self.said(outcome.text())),
        };
        let took = seconds(stage.took);
        self.keep(&[format!("{mark} {} {word}{more}  {took}", stage.name)]);
        if self.github {
            note("::endgroup::");
            if let Outcome::Failed { reason, .. } = &stage.outcome {
                let step = stage.failed_step.as_deref().unwrap_or("no step");
                let title = property(&format!("{} / {step}", stage.name));
                note(&format!("::error title={title}::{}", data(reason)));
            }
        }
    }
}

impl Screen {
    /// A text of others, in one line. GitHub's runner finds its old commands anywhere in a line.
    fn said(&self, text: &str) -> String {
        let text = printable(text);
        if self.github { text.replace("##[", "# # [") } else { text }
    }
}

/// A mark, and its colour.
pub(super) fn mark(outcome: &Outcome) -> (&'static str, Ink) {
    match outcome {
        Outcome::Passed { .. } => ("✓", Ink::Good),
        Outcome::Failed { .. } => ("✗", Ink::Bad),
        Outcome::Skipped { .. } => ("–", Ink::Warn),
    }
}

/// `0.3 s`, `2 min 5 s`.
pub(super) fn seconds(took: Duration) -> String {
    match took.as_secs() {
        whole if whole >= 60 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{:.1} s", took.as_secs_f64()),
    }
}

/// A text within a workflow command.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// A text as a property of a workflow command.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_cannot_end_a_workflow_command() {
        assert_eq!(data("100%\n::stop::"), "100%25%0A::stop::");
        assert_eq!(property("a: b, c"), "a%3A b%2C c");
    }

    #[test]
    fn times_are_short() {
        assert_eq!(seconds(Duration::from_millis(340)), "0.3 s");
        assert_eq!(seconds(Duration::from_secs(125)), "2 min 5 s");
    }
}
