//! Charts of results, as SVG: throughput and p99 against workflows in flight, a line for each thing measured.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::Context as _;

use crate::results::Row;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 400.0;
/// The room for numbers, and on the right for the names of the lines.
const LEFT: f64 = 70.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
/// The least distance between the names of two lines.
const NAME_HEIGHT: f64 = 15.0;
/// Okabe and Ito's, which can be told apart by everybody; dashes tell them apart in print.
const STYLES: [(&str, &str); 5] =
    [("#0072b2", ""), ("#d55e00", "6 3"), ("#009e73", "2 3"), ("#cc79a7", "8 3 2 3"), ("#555555", "1 4")];

/// How figures become heights.
#[derive(Clone, Copy, PartialEq)]
enum Scale {
    FromZero,
    Logarithmic,
}

/// Writes `throughput.svg` and `p99.svg` into `directory`, which is made if it is not there.
///
/// # Errors
/// If there is nothing to draw, or the directory cannot be written.
pub(crate) fn write(rows: &[Row], directory: &Path) -> anyhow::Result<()> {
    let throughput = chart(rows, "workflows_per_s", "workflows/s", Scale::FromZero);
    let p99 = chart(rows, "p99_ms", "p99, ms", Scale::Logarithmic);
    for (name, svg) in [("throughput.svg", throughput), ("p99.svg", p99)] {
        let svg = svg.context("no measurement with several in flight is in the results")?;
        let cannot = || format!("cannot write {name} into {}, which --into names", directory.display());
        fs::create_dir_all(directory).and_then(|()| fs::write(directory.join(name), svg)).with_context(cannot)?;
    }
    Ok(())
}

/// A line: what was measured, and its figure for each number in flight.
struct Line<'a> {
    name: &'a str,
    points: Vec<(f64, f64)>,
}

fn lines<'a>(rows: &'a [Row], figure: &str) -> Vec<Line<'a>> {
    let mut lines: Vec<Line<'a>> = Vec::new();
    for row in rows {
        let (Some(x), Some(y)) = (row.figure("in_flight"), row.figure(figure)) else { continue };
        match lines.iter_mut().find(|line| line.name == row.measured()) {
            Some(line) => line.points.push((x, y)),
            None => lines.push(Line { name: row.measured(), points: vec![(x, y)] }),
        }
    }
    for line in &mut lines {
        line.points.sort_by(|one, other| one.0.total_cmp(&other.0));
    }
    lines
}

fn chart(rows: &[Row], figure: &str, title: &str, scale: Scale) -> Option<String> {
    let lines = lines(rows, figure);
    let points = || lines.iter().flat_map(|line| &line.points);
    let (least, most) = (
        points().map(|point| point.1).reduce(f64::min).filter(|least| *least > 0.0)?,
        points().map(|point| point.1).reduce(f64::max)?,
    );
    let widest = points().map(|point| point.0).reduce(f64::max).filter(|widest| *widest > 1.0)?;
    let ticks = ticks(least, most, scale);
    let (low, high) = (*ticks.first()?, *ticks.last()?);
    let x = |value: f64| LEFT + (WIDTH - LEFT - RIGHT) * value.log2() / widest.log2();
    let y = |value: f64| {
        let share = match scale {
            Scale::FromZero => value / high,
            Scale::Logarithmic => (value / low).log10() / (high / low).log10(),
        };
        HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share
    };
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n<text x=\"{LEFT}\" y=\"22\" font-size=\"14\">{title}</text>\n"
    );
    for tick in &ticks {
        let (at, right) = (y(*tick), WIDTH - RIGHT);
        // Writing into a text cannot fail.
        let _ = writeln!(svg, "<path d=\"M{LEFT} {at:.1}H{right}\" stroke=\"#ddd\"/>");
        let _ = writeln!(svg, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{tick}</text>", LEFT - 8.0, at + 4.0);
    }
    let mut numbers: Vec<f64> = points().map(|point| point.0).collect();
    numbers.sort_by(f64::total_cmp);
    numbers.dedup();
    for number in numbers {
        let at = HEIGHT - BOTTOM + 18.0;
        let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"{at}\" text-anchor=\"middle\">{number}</text>", x(number));
    }
    let middle = (LEFT + WIDTH - RIGHT) / 2.0;
    let _ = writeln!(svg, "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">in flight</text>", HEIGHT - 12.0);
    let names = apart(lines.iter().map(|line| line.points.last().map_or(0.0, |last| y(last.1))).collect());
    for ((line, name_at), (colour, dashes)) in lines.iter().zip(names).zip(STYLES.iter().cycle()) {
        let path: Vec<String> =
            line.points.iter().map(|point| format!("{:.1},{:.1}", x(point.0), y(point.1))).collect();
        let path = path.join(" ");
        let _ = writeln!(
            svg,
            "<polyline points=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dashes}\"/>"
        );
        let name = line.name.replace('&', "&amp;").replace('<', "&lt;");
        let at = WIDTH - RIGHT + 8.0;
        let _ = writeln!(svg, "<text x=\"{at}\" y=\"{:.1}\" fill=\"{colour}\">{name}</text>", name_at + 4.0);
    }
    svg.push_str("</svg>\n");
    Some(svg)
}

/// Round numbers from below the least to above the most.
fn ticks(least: f64, most: f64, scale: Scale) -> Vec<f64> {
    match scale {
        Scale::FromZero => {
            let magnitude = 10_f64.powf(most.log10().floor());
            let step = [0.2, 0.5, 1.0, 2.0].map(|part| part * magnitude).into_iter().find(|step| most / step <= 6.0);
            let step = step.unwrap_or(magnitude);
            (0..=(most / step).ceil() as usize).map(|tick| tick as f64 * step).collect()
        }
        Scale::Logarithmic => {
            let (first, last) = (least.log10().floor() as i32, (most * 1.000_001).log10().ceil() as i32);
            (first..=last).map(|power| 10_f64.powi(power)).collect()
        }
    }
}

/// Moves names down that would lie on one another, in the order of their heights.
fn apart(heights: Vec<f64>) -> Vec<f64> {
    let mut order: Vec<usize> = (0..heights.len()).collect();
    order.sort_by(|one, other| heights[*one].total_cmp(&heights[*other]));
    let (mut moved, mut free) = (heights.clone(), f64::MIN);
    for place in order {
        moved[place] = heights[place].max(free);
        free = moved[place] + NAME_HEIGHT;
    }
    moved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_reach_around_what_is_drawn() {
        assert_eq!(ticks(91.0, 3_367.0, Scale::FromZero), [0.0, 1_000.0, 2_000.0, 3_000.0, 4_000.0]);
        assert_eq!(ticks(4.4, 510.0, Scale::Logarithmic), [1.0, 10.0, 100.0, 1_000.0]);
    }

    #[test]
    fn names_that_would_lie_on_one_another_move_apart() {
        assert_eq!(apart(vec![12.0, 10.0, 100.0]), [25.0, 10.0, 100.0]);
    }
}
