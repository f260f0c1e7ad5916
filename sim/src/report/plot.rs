//! Line plots as SVG inside a page: no script, no font and no address from outside.

use std::fmt::Write as _;

/// Colours that stay apart for most colour-blind eyes (Okabe and Ito, 2008).
const COLOURS: [&str; 7] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000",
];
const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 70.0;
const BOTTOM: f64 = 36.0;
const TOP: f64 = 10.0;
/// Points of a line that are drawn; more would only make the page heavy.
const MAX_POINTS: usize = 1_000;

/// One line of a plot.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Line {
    /// What it shows.
    pub name: String,
    /// (x, y) in order of x.
    pub points: Vec<(f64, f64)>,
}

/// Lines over a common axis.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plot {
    /// Above it.
    pub title: String,
    /// What x is.
    pub x: String,
    /// What y is.
    pub y: String,
    /// At most as many as there are colours.
    pub lines: Vec<Line>,
    /// Moments to mark on the x axis, with a word each: faults.
    pub marks: Vec<(f64, String)>,
    /// y goes up by powers of ten, from 1; what is less stands at 1.
    pub by_tens: bool,
}

impl Plot {
    /// As a `figure` element.
    pub fn to_html(&self) -> String {
        let (mut right, mut top) = (0.0_f64, 0.0_f64);
        for (x, y) in self.lines.iter().flat_map(|line| &line.points) {
            right = right.max(*x);
            top = top.max(*y);
        }
        let right = round_up(right);
        let top = if self.by_tens {
            libm::ceil(libm::log10(top.max(10.0)))
        } else {
            round_up(top)
        };
        let height = |value: f64| match self.by_tens {
            true => libm::log10(value.max(1.0)),
            false => value,
        };
        let x = |value: f64| LEFT + value / right * (WIDTH - LEFT - 10.0);
        let y = |value: f64| TOP + (1.0 - value / top) * (HEIGHT - TOP - BOTTOM);
        let mut out = format!(
            "<figure><figcaption>{}</figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
             aria-label=\"{}\">",
            escape(&self.title),
            escape(&self.title)
        );
        let ticks = if self.by_tens { top as u32 } else { 4 };
        for tick in 0..=ticks {
            let share = f64::from(tick) / f64::from(ticks);
            let at_y = y(top * share);
            let said = match self.by_tens {
                true => libm::pow(10.0, f64::from(tick)),
                false => top * share,
            };
            put(
                &mut out,
                format_args!(
                    "<line x1=\"{LEFT}\" y1=\"{at_y:.1}\" x2=\"{:.1}\" y2=\"{at_y:.1}\" class=\"grid\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" class=\"end\">{}</text>",
                    x(right),
                    LEFT - 6.0,
                    at_y + 4.0,
                    number(said)
                ),
            );
        }
        for tick in 0..=4 {
            let value = right * f64::from(tick) / 4.0;
            put(
                &mut out,
                format_args!(
                    "<text x=\"{:.1}\" y=\"{:.1}\" class=\"mid\">{}</text>",
                    x(value),
                    HEIGHT - BOTTOM + 15.0,
                    number(value)
                ),
            );
        }
        put(
            &mut out,
            format_args!(
                "<text x=\"{:.1}\" y=\"{:.1}\" class=\"mid\">{}</text>\
             <text x=\"12\" y=\"{:.1}\" class=\"mid\" transform=\"rotate(-90 12 {:.1})\">{}</text>",
                (LEFT + WIDTH) / 2.0,
                HEIGHT - 4.0,
                escape(&self.x),
                HEIGHT / 2.0,
                HEIGHT / 2.0,
                escape(&self.y)
            ),
        );
        for (at, word) in &self.marks {
            let at = x(at.min(right));
            put(
                &mut out,
                format_args!(
                    "<line x1=\"{at:.1}\" y1=\"{TOP}\" x2=\"{at:.1}\" y2=\"{:.1}\" class=\"mark\"><title>{}</title></line>",
                    HEIGHT - BOTTOM,
                    escape(word)
                ),
            );
        }
        for (line, colour) in self.lines.iter().zip(COLOURS.iter().cycle()) {
            out.push_str("<polyline points=\"");
            for (px, py) in thin(&line.points) {
                put(&mut out, format_args!("{:.1},{:.1} ", x(px), y(height(py))));
            }
            put(&mut out, format_args!("\" stroke=\"{colour}\"/>"));
        }
        out.push_str("</svg><p class=\"legend\">");
        for (line, colour) in self.lines.iter().zip(COLOURS.iter().cycle()) {
            put(
                &mut out,
                format_args!(
                    "<span><i style=\"background:{colour}\"></i>{}</span> ",
                    escape(&line.name)
                ),
            );
        }
        out.push_str("</p></figure>\n");
        out
    }
}

/// Writing into a string cannot fail.
fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).unwrap_or_default();
}

/// At most [`MAX_POINTS`]: of each bucket the highest, so that no peak disappears.
fn thin(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let bucket = points.len().div_ceil(MAX_POINTS).max(1);
    points
        .chunks(bucket)
        .filter_map(|chunk| chunk.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1)))
        .collect()
}

/// The next 1, 2 or 5 times a power of ten.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 || !value.is_finite() {
        return 1.0;
    }
    let power = libm::pow(10.0, libm::floor(libm::log10(value)));
    let steps = [1.0, 2.0, 4.0, 5.0, 8.0, 10.0];
    let step = steps.iter().find(|step| **step * power >= value);
    step.unwrap_or(&10.0) * power
}

fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 1e9 => format!("{}G", trimmed(value / 1e9)),
        v if v >= 1e6 => format!("{}M", trimmed(value / 1e6)),
        v if v >= 1e4 => format!("{}k", trimmed(value / 1e3)),
        _ => trimmed(value),
    }
}

fn trimmed(value: f64) -> String {
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    text.to_owned()
}

/// For text between tags and in attributes.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    // Scenario: axes end at round numbers above the largest value.
    #[test]
    fn axes_end_round() {
        let ends = [0.0, 0.7, 1.0, 3.0, 41.0, 60.0, 99_000.0].map(round_up);
        assert_eq!(ends, [1.0, 0.8, 1.0, 4.0, 50.0, 80.0, 100_000.0]);
        let words = [0.0, 0.25, 1_500.0, 20_000.0, 2.5e6, 3e9].map(number);
        assert_eq!(words, ["0", "0.25", "1500", "20k", "2.5M", "3G"]);
    }

    // Scenario: ten thousand points with one peak: a thousand are drawn, the peak among them.
    #[test]
    fn thinning_keeps_peaks() {
        let mut points: Vec<(f64, f64)> = (0..10_000).map(|n| (f64::from(n), 1.0)).collect();
        points[5_003].1 = 9.0;
        let thinned = thin(&points);
        assert_eq!(thinned.len(), MAX_POINTS);
        assert!(thinned.contains(&(5_003.0, 9.0)));
    }

    // Scenario: names come from a scenario's author; none of them becomes markup.
    #[test]
    fn names_are_escaped() {
        let plot = Plot {
            title: "<script>\"&".to_owned(),
            lines: vec![Line {
                name: "<b>".to_owned(),
                points: vec![(0.0, 0.0), (1.0, 2.0)],
            }],
            ..Plot::default()
        };
        let html = plot.to_html();
        assert!(html.contains("&lt;script&gt;&quot;&amp;"));
        assert!(!html.contains("<script>") && !html.contains("<b>"));
        // From the lower left corner to the upper right one.
        assert!(html.contains("points=\"70.0,184.0 750.0,10.0 \""), "{html}");
    }

    // Scenario: times from a millisecond to half a minute: each power of ten has its line, and what is below one stands at it.
    #[test]
    fn tens_have_their_lines() {
        let plot = Plot {
            lines: vec![Line {
                name: "p99".to_owned(),
                points: vec![(0.0, 0.0), (1.0, 100.0), (2.0, 30_000.0)],
            }],
            by_tens: true,
            ..Plot::default()
        };
        let html = plot.to_html();
        for said in ["1", "10", "100", "1000", "10k", "100k"] {
            assert!(
                html.contains(&format!("class=\"end\">{said}</text>")),
                "{said}"
            );
        }
        // 0 at the bottom, 100 two fifths up.
        assert!(html.contains("points=\"70.0,184.0 410.0,114.4 "), "{html}");
    }
}
