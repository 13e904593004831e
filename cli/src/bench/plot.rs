//! Plots, as SVG: bars for figures of one unit, lines for what goes over something else.

use std::fmt::Debug;

use plotters::prelude::*;

use crate::bench::measure::{Measurement, Series};
use crate::bench::report::Told;

const WIDTH: u32 = 900;
/// A bar with its gap.
const ROW: u32 = 26;
/// Heading and scale.
const FRAME: u32 = 110;
const FONT: &str = "sans-serif";
const BAR: RGBColor = RGBColor(52, 101, 164);
const LINES: [RGBColor; 6] = [
    RGBColor(52, 101, 164),
    RGBColor(204, 0, 0),
    RGBColor(78, 154, 6),
    RGBColor(117, 80, 123),
    RGBColor(193, 125, 17),
    RGBColor(85, 87, 83),
];

/// The plots of a scenario: their names and what is in them.
pub(super) fn all(told: &Told) -> Vec<(String, String)> {
    let mut plots = Vec::new();
    let mut units: Vec<&str> = Vec::new();
    for measured in &told.measurements {
        if !units.contains(&measured.unit) {
            units.push(measured.unit);
        }
    }
    for unit in units {
        let of_unit = told.measurements.iter().filter(|measured| measured.unit == unit);
        let bars: Vec<&Measurement> = of_unit.filter(|m| m.median.is_finite()).collect();
        let name = format!("{}-{}.svg", told.name, plain(unit));
        plots.extend(drawn(bars_of(told.name, unit, &bars)).map(|svg| (name, svg)));
    }
    let mut kinds: Vec<(&str, &str)> = Vec::new();
    for series in &told.series {
        if !kinds.contains(&(series.x, series.y)) {
            kinds.push((series.x, series.y));
        }
    }
    for (x, y) in kinds {
        let lines: Vec<&Series> =
            told.series.iter().filter(|series| (series.x, series.y) == (x, y)).collect();
        let name = format!("{}-{}-over-{}.svg", told.name, plain(y), plain(x));
        plots.extend(drawn(lines_of(told.name, x, y, &lines)).map(|svg| (name, svg)));
    }
    plots
}

/// A plot that cannot be drawn is left out: the figures stand in the report.
fn drawn<E: Debug>(svg: Result<String, E>) -> Option<String> {
    svg.inspect_err(|error| tracing::warn!("A plot cannot be drawn: {error:?}")).ok()
}

type Drawn = Result<String, Box<dyn std::error::Error>>;

/// A bar for each figure, with a line from the least to the most of its rounds.
fn bars_of(scenario: &str, unit: &str, bars: &[&Measurement]) -> Drawn {
    let count = u32::try_from(bars.len())?;
    let most = bars.iter().map(|bar| bar.max).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let mut svg = String::new();
    {
        let area =
            SVGBackend::with_string(&mut svg, (WIDTH, FRAME + ROW * count)).into_drawing_area();
        area.fill(&WHITE)?;
        let labels: Vec<String> =
            bars.iter().map(|bar| format!("{}: {}", bar.case, bar.metric)).collect();
        // About as wide as the longest label is; without a font nobody can tell exactly.
        let longest = labels.iter().map(|label| label.chars().count()).max().unwrap_or(0);
        let room = u32::try_from(longest)?.saturating_mul(7).clamp(100, WIDTH / 2);
        let mut chart = ChartBuilder::on(&area)
            .caption(format!("cogo bench {scenario}: {unit}"), (FONT, 18))
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(room)
            .build_cartesian_2d(0.0..most * 1.08, (0..bars.len()).into_segmented())?;
        let label = |at: &SegmentValue<usize>| match at {
            SegmentValue::CenterOf(at) | SegmentValue::Exact(at) => {
                labels.get(*at).cloned().unwrap_or_default()
            }
            SegmentValue::Last => String::new(),
        };
        chart
            .configure_mesh()
            .disable_y_mesh()
            .y_labels(bars.len())
            .y_label_formatter(&label)
            .x_desc(unit)
            .label_style((FONT, 12))
            .draw()?;
        chart.draw_series(bars.iter().enumerate().map(|(at, bar)| {
            let corners =
                [(0.0, SegmentValue::Exact(at)), (bar.median, SegmentValue::Exact(at + 1))];
            let mut bar = Rectangle::new(corners, BAR.mix(0.8).filled());
            bar.set_margin(4, 4, 0, 0);
            bar
        }))?;
        chart.draw_series(bars.iter().enumerate().map(|(at, bar)| {
            let middle = SegmentValue::CenterOf(at);
            PathElement::new([(bar.min, middle.clone()), (bar.max, middle)], BLACK.stroke_width(2))
        }))?;
        area.present()?;
    }
    Ok(svg)
}

/// A line for each series, all with one scale.
fn lines_of(scenario: &str, x: &str, y: &str, lines: &[&Series]) -> Drawn {
    let points = || lines.iter().flat_map(|line| &line.points);
    let most = |of: fn(&(f64, f64)) -> f64| {
        points().map(of).filter(|v| v.is_finite()).fold(f64::MIN_POSITIVE, f64::max)
    };
    let (right, top) = (most(|point| point.0), most(|point| point.1));
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, 480)).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(format!("cogo bench {scenario}: {y} over {x}"), (FONT, 18))
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(70)
            .build_cartesian_2d(0.0..right * 1.02, 0.0..top * 1.08)?;
        chart.configure_mesh().x_desc(x).y_desc(y).label_style((FONT, 12)).draw()?;
        for (at, line) in lines.iter().enumerate() {
            let colour = LINES[at % LINES.len()];
            chart
                .draw_series(LineSeries::new(line.points.iter().copied(), colour.stroke_width(2)))?
                .label(line.case.clone())
                .legend(move |(x, y)| {
                    PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2))
                });
        }
        chart
            .configure_series_labels()
            .background_style(WHITE.mix(0.8))
            .label_font((FONT, 12))
            .draw()?;
        area.present()?;
    }
    Ok(svg)
}

/// A word for the name of a file.
fn plain(text: &str) -> String {
    let words: Vec<&str> =
        text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    words.join("-")
}
