//! Draws a look.

use ratatui::Frame as Canvas;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Clear, Paragraph, Row, Sparkline, Table, TableState, Wrap};

use crate::output::{Ink, colour_wanted, printable};
use crate::text::{millis, time_of_day};
use crate::top::frame::Frame;
use crate::top::keys::{Over, View};
use crate::top::panes::{self, Pane, TITLES};
use crate::top::rates::Second;

/// Below so many columns, or rows, there is room for one pane at a time.
const ROOMY: (u16, u16) = (100, 24);

const HELP: [(&str, &str); 10] = [
    ("Tab, 1 to 4", "choose a pane"),
    ("arrows, j k, PgUp PgDn", "choose a row"),
    ("Enter", "all of a row, and what to do about it"),
    ("/", "show only rows that hold a text; Esc shows all again"),
    ("p, space", "pause"),
    ("+ -", "look more often, less often"),
    ("r", "look now"),
    ("?", "this"),
    ("q, Esc, Ctrl-C", "end"),
    ("", "Rates are of the last minute. `≥` stands where not all of the log could be read along."),
];

pub(super) fn draw(canvas: &mut Canvas<'_>, frame: &Frame, view: &mut View) {
    let area = canvas.area();
    let [title, figures, body, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(if area.height >= 16 { 5 } else { 3 }),
        Constraint::Min(3),
        Constraint::Length(1),
    ])
    .areas(area);
    canvas.render_widget(self::title(frame, view), title);
    self::figures(canvas, frame, figures);
    if area.width >= ROOMY.0 && area.height >= ROOMY.1 {
        let [above, below] =
            Layout::vertical([Constraint::Fill(1), Constraint::Fill(1)]).areas(body);
        let halves = [Constraint::Fill(1), Constraint::Fill(1)];
        let [queues, workers] = Layout::horizontal(halves).areas(above);
        let [circuits, failures] =
            Layout::horizontal([Constraint::Fill(2), Constraint::Fill(3)]).areas(below);
        for (pane, area) in Pane::ALL.into_iter().zip([queues, workers, circuits, failures]) {
            table(canvas, frame, view, pane, area);
        }
    } else {
        table(canvas, frame, view, view.pane, body);
    }
    canvas.render_widget(self::foot(view), foot);
    match view.over {
        Over::Nothing => {}
        Over::Help => {
            let lines = HELP.iter().map(|(key, what)| (*key, (*what).to_owned())).collect();
            over(canvas, "Keys", lines);
        }
        Over::Detail => {
            let rows = view.rows(view.pane, frame);
            match rows.into_iter().nth(view.chosen[view.pane as usize]) {
                Some(row) => over(canvas, TITLES[view.pane as usize], row.detail),
                None => view.over = Over::Nothing,
            }
        }
    }
}

/// The style of an ink; without colours, weight alone.
fn style(ink: Ink) -> Style {
    let style = Style::default();
    let colour = |colour| if colour_wanted() { style.fg(colour) } else { style };
    match ink {
        Ink::Plain => style,
        Ink::Strong => style.add_modifier(Modifier::BOLD),
        Ink::Faint => style.add_modifier(Modifier::DIM),
        Ink::Good => colour(Color::Green),
        Ink::Bad => colour(Color::Red).add_modifier(Modifier::BOLD),
        Ink::Warn => colour(Color::Yellow),
        Ink::Name => colour(Color::Cyan),
    }
}

fn span(ink: Ink, text: impl AsRef<str>) -> Span<'static> {
    Span::styled(printable(text.as_ref()), style(ink))
}

fn title(frame: &Frame, view: &View) -> Line<'static> {
    let mut spans = vec![
        span(Ink::Strong, "cogo top  "),
        span(Ink::Faint, format!("{} UTC", &time_of_day(frame.at)[..8])),
    ];
    if view.paused {
        spans.push(span(Ink::Warn, "  paused"));
    }
    if let Some(problem) = &frame.problem {
        spans.push(span(Ink::Bad, format!("  {problem}")));
    }
    spans.extend(frame.tenant.iter().map(|of| span(Ink::Plain, format!("  tenant {of}"))));
    // Last, since it may be long.
    spans.push(span(Ink::Name, format!("  {}", frame.place)));
    Line::from(spans)
}

/// Rates with their curves, and what waits.
fn figures(canvas: &mut Canvas<'_>, frame: &Frame, area: Rect) {
    let areas: [Rect; 3] =
        Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1), Constraint::Fill(1)])
            .areas(area);
    let rates = &frame.rates;
    let about = if rates.sampled { "≥ " } else { "" };
    let latency = match (rates.p50_ms, rates.p95_ms) {
        (Some(p50), Some(p95)) => format!("  p50 {}  p95 {}", millis(p50), millis(p95)),
        _ => String::new(),
    };
    let done = format!(" Done {about}{:.1}/s{latency} ", rates.succeeded_per_s);
    curve(canvas, areas[0], done, Ink::Good, frame, |second| second.succeeded);
    let failed =
        format!(" Failed {about}{:.1}/s  dead {} ", rates.failed_per_s, rates.dead_lettered);
    curve(canvas, areas[1], failed, Ink::Bad, frame, |second| second.failed + second.dead_lettered);
    let (online, held) = frame.at_work();
    let open = frame.circuits.iter().filter(|circuit| !super::frame::is_closed(circuit)).count();
    let figure = |name: &str, number: i64, ink| {
        let ink = if number == 0 { Ink::Faint } else { ink };
        vec![span(ink, format!("{number:>7}")), span(Ink::Plain, format!(" {name}"))]
    };
    let pair = |one: Vec<Span<'static>>, other: Vec<Span<'static>>| {
        let gap = 24_usize.saturating_sub(one.iter().map(Span::width).sum());
        Line::from_iter(one.into_iter().chain([Span::raw(" ".repeat(gap))]).chain(other))
    };
    let queue = &frame.queue;
    let online = i64::try_from(online).unwrap_or(i64::MAX);
    let open = i64::try_from(open).unwrap_or(i64::MAX);
    let lines = vec![
        pair(figure("queued", queue.queued, Ink::Warn), figure("workers", online, Ink::Good)),
        pair(figure("claimed", queue.claimed, Ink::Good), figure("in hand", held, Ink::Good)),
        pair(figure("dead", queue.failed, Ink::Bad), figure("circuits open", open, Ink::Bad)),
    ];
    let oldest = queue.oldest_ms.filter(|_| queue.queued > 0).map(millis);
    let name = oldest.map_or(" Now ".to_owned(), |oldest| format!(" Now  oldest {oldest} "));
    canvas.render_widget(Paragraph::new(lines).block(Block::bordered().title(name)), areas[2]);
}

fn curve(
    canvas: &mut Canvas<'_>,
    area: Rect,
    name: String,
    ink: Ink,
    frame: &Frame,
    of: fn(&Second) -> u64,
) {
    let block = Block::bordered().title(name);
    let room = usize::from(block.inner(area).width);
    let seconds = &frame.rates.seconds;
    // The latest are at the right edge; where there is more room than seconds, each is as wide as fits.
    let wide = (room / seconds.len().max(1)).max(1);
    let shown = seconds.iter().skip(seconds.len().saturating_sub(room / wide));
    let mut bars: Vec<u64> = shown.flat_map(|second| vec![of(second); wide]).collect();
    let gap = room.saturating_sub(bars.len());
    bars.splice(0..0, vec![0; gap]);
    canvas.render_widget(Sparkline::default().block(block).data(bars).style(style(ink)), area);
}

fn table(canvas: &mut Canvas<'_>, frame: &Frame, view: &mut View, pane: Pane, area: Rect) {
    let rows = view.rows(pane, frame);
    let is_chosen = view.pane == pane;
    let number = pane as usize;
    let name = format!(" {} {} ", number + 1, TITLES[number]);
    let border = if is_chosen { style(Ink::Name) } else { style(Ink::Faint) };
    let block = Block::bordered().title(span(Ink::Strong, name)).border_style(border);
    if rows.is_empty() {
        let text = match view.filter.is_empty() {
            true => pane.nothing(frame).to_owned(),
            false => format!("None holds {:?}.", view.filter),
        };
        let text = Paragraph::new(span(Ink::Faint, text)).wrap(Wrap { trim: true });
        canvas.render_widget(text.block(block), area);
        return;
    }
    let chosen = &mut view.chosen[number];
    *chosen = (*chosen).min(rows.len() - 1);
    let widths = widths(pane, &rows);
    let heading = pane.heading().iter().map(|name| Cell::new(span(Ink::Faint, name)));
    let rows = rows
        .iter()
        .map(|row| Row::new(row.cells.iter().map(|(text, ink)| Cell::new(span(*ink, text)))));
    let mut table = Table::new(rows, widths).header(Row::new(heading)).block(block);
    if is_chosen {
        table = table.row_highlight_style(Style::default().add_modifier(Modifier::REVERSED));
    }
    let mut state = TableState::default().with_selected(*chosen);
    canvas.render_stateful_widget(table, area, &mut state);
}

/// As wide as what stands there; the last column takes what is left, and long names give way.
fn widths(pane: Pane, rows: &[panes::Row]) -> Vec<Constraint> {
    let heading = pane.heading();
    let width = |at: usize| {
        let cells = rows.iter().filter_map(|row| row.cells.get(at));
        let widest = cells.map(|(text, _)| text.chars().count()).max().unwrap_or(0);
        u16::try_from(widest.max(heading[at].len())).unwrap_or(u16::MAX)
    };
    let column = |at: usize| match at + 1 == heading.len() {
        true => Constraint::Min(width(at).min(12)),
        false => Constraint::Max(width(at).min(32)),
    };
    (0..heading.len()).map(column).collect()
}

fn foot(view: &View) -> Line<'static> {
    if view.writes {
        return Line::from(vec![
            span(Ink::Strong, format!("/{}", view.filter)),
            span(Ink::Faint, "  Enter keeps it, Esc shows all"),
        ]);
    }
    let mut text =
        format!("q end  ? keys  Tab pane  Enter detail  / filter  p pause  every {:?}", view.every);
    if !view.filter.is_empty() {
        text = format!("only {:?} (Esc: all)  {text}", view.filter);
    }
    Line::from(span(Ink::Faint, text))
}

/// Names and values in a window over everything.
fn over(canvas: &mut Canvas<'_>, name: &str, lines: Vec<(&'static str, String)>) {
    let whole = canvas.area();
    let left = lines.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let width = whole.width.saturating_sub(4).min(110);
    let room = usize::from(width).saturating_sub(left + 6).max(10);
    let mut text = Vec::new();
    for (name, value) in lines {
        let value: Vec<char> = printable(&value).chars().collect();
        let parts = value.chunks(room).map(|part| part.iter().collect::<String>());
        for (at, part) in parts.enumerate() {
            let name = if at == 0 { name } else { "" };
            let name = span(Ink::Faint, format!("{name:>left$}  "));
            text.push(Line::from(vec![name, span(Ink::Plain, part)]));
        }
    }
    let height = u16::try_from(text.len()).unwrap_or(u16::MAX).saturating_add(2);
    let height = height.min(whole.height);
    let area = Rect { x: (whole.width - width) / 2, y: (whole.height - height) / 2, width, height };
    let block = Block::bordered().title(span(Ink::Strong, format!(" {name} ")));
    let block = block.title_bottom(Line::from(" Esc closes ").alignment(Alignment::Right));
    canvas.render_widget(Clear, area);
    canvas.render_widget(Paragraph::new(text).block(block.border_style(style(Ink::Name))), area);
}
