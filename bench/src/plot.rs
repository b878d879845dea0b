//! Small plots as SVG: both axes logarithmic, Herald's curves whole and its limits' dashed.

use std::fmt::Write as _;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 400.0;
/// Room for the labels: left, top, right, bottom.
const MARGIN: [f64; 4] = [80.0, 44.0, 20.0, 52.0];
/// What a legend line takes.
const LEGEND_LINE: f64 = 18.0;
/// Told apart by people who do not see red and green (Okabe and Ito 2008), on white and on black.
const COLOURS: [&str; 5] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00"];

/// One curve.
pub struct Curve {
    /// Its name in the legend; none for a limit, which has its curve's colour.
    pub label: String,
    /// Its colour's number.
    pub colour: usize,
    /// Whether it is a limit.
    pub is_limit: bool,
    /// Its points, ascending.
    pub points: Vec<(f64, f64)>,
}

/// A plot.
pub struct Plot {
    /// Above it.
    pub title: String,
    /// Below it: what grows.
    pub along: String,
    /// The unit of what is measured.
    pub unit: String,
    /// What it shows.
    pub curves: Vec<Curve>,
}

/// One axis: the powers of ten that it begins and ends with, and where.
struct Axis {
    from: f64,
    to: f64,
    start: f64,
    end: f64,
}

impl Axis {
    fn new(values: impl Iterator<Item = f64> + Clone, start: f64, end: f64) -> Self {
        let least = values.clone().fold(f64::INFINITY, f64::min).max(1e-3);
        let most = values.fold(0.0, f64::max).max(least);
        let (from, to) = (least.log10().floor(), most.log10().ceil());
        Self { from, to: to.max(from + 1.0), start, end }
    }

    fn at(&self, value: f64) -> f64 {
        let part = (value.max(1e-3).log10() - self.from) / (self.to - self.from);
        self.start + part * (self.end - self.start)
    }

    fn tens(&self) -> impl Iterator<Item = f64> {
        (self.from as i32..=self.to as i32).map(|power| 10_f64.powi(power))
    }
}

impl Plot {
    /// The plot's SVG.
    #[must_use]
    pub fn svg(&self) -> String {
        let [left, top, right, bottom] = MARGIN;
        let legends = self.curves.iter().filter(|curve| !curve.is_limit).count() as f64;
        let height = HEIGHT + legends * LEGEND_LINE;
        let points = || self.curves.iter().flat_map(|curve| curve.points.iter().copied());
        let x = Axis::new(points().map(|(x, _)| x), left, WIDTH - right);
        let y = Axis::new(points().map(|(_, y)| y), HEIGHT - bottom, top);
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n\
             <text x=\"{left}\" y=\"24\" font-size=\"15\">{}</text>\n",
            escape(&self.title)
        );
        for ten in x.tens() {
            let at = x.at(ten);
            let (from, to) = (top, HEIGHT - bottom);
            let _ = write!(
                out,
                "<line x1=\"{at:.1}\" y1=\"{from}\" x2=\"{at:.1}\" y2=\"{to}\" stroke=\"#ddd\"/>\n\
                 <text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n",
                to + 18.0,
                short(ten)
            );
        }
        for ten in y.tens() {
            let at = y.at(ten);
            let _ = write!(
                out,
                "<line x1=\"{left}\" y1=\"{at:.1}\" x2=\"{}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\n\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n",
                WIDTH - right,
                left - 8.0,
                at + 4.0,
                short(ten)
            );
        }
        let _ = write!(
            out,
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{}</text>\n\
             <text x=\"{left}\" y=\"{:.0}\">{}</text>\n",
            (left + WIDTH - right) / 2.0,
            HEIGHT - 12.0,
            escape(&self.along),
            top - 6.0,
            escape(&self.unit)
        );
        let mut legend = HEIGHT + 6.0;
        for curve in &self.curves {
            let colour = COLOURS[curve.colour % COLOURS.len()];
            let line: Vec<String> = curve
                .points
                .iter()
                .map(|(px, py)| format!("{:.1},{:.1}", x.at(*px), y.at(*py)))
                .collect();
            let dash = if curve.is_limit { " stroke-dasharray=\"5 4\"" } else { "" };
            let _ = writeln!(
                out,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>",
                line.join(" ")
            );
            if !curve.is_limit {
                let _ = write!(
                    out,
                    "<line x1=\"{left}\" y1=\"{:.0}\" x2=\"{}\" y2=\"{:.0}\" stroke=\"{colour}\" \
                     stroke-width=\"2\"/>\n<text x=\"{}\" y=\"{legend:.0}\">{} (dashed: its limit)</text>\n",
                    legend - 4.0,
                    left + 24.0,
                    legend - 4.0,
                    left + 32.0,
                    escape(&curve.label)
                );
                legend += LEGEND_LINE;
            }
        }
        out.push_str("</svg>\n");
        out
    }
}

/// A power of ten as people write it.
fn short(number: f64) -> String {
    match number {
        number if number >= 1e6 => format!("{:.0} M", number / 1e6),
        number if number >= 1e3 => format!("{:.0} k", number / 1e3),
        number if number >= 1.0 => format!("{number:.0}"),
        number => format!("{number}"),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decade_is_as_wide_wherever_it_is() {
        let axis = Axis::new([1.0, 500.0].into_iter(), 0.0, 300.0);
        assert_eq!([1.0, 10.0, 1000.0].map(|value| axis.at(value)), [0.0, 100.0, 300.0]);
        assert_eq!(axis.tens().collect::<Vec<_>>(), [1.0, 10.0, 100.0, 1000.0]);
    }

    #[test]
    fn a_plot_shows_herald_whole_and_its_limit_dashed() {
        let curve = |is_limit| Curve {
            label: "a < b".to_owned(),
            colour: 0,
            is_limit,
            points: vec![(1.0, 10.0), (100.0, 20.0)],
        };
        let plot = Plot {
            title: "t".to_owned(),
            along: "x".to_owned(),
            unit: "1/s".to_owned(),
            curves: vec![curve(false), curve(true)],
        };
        let svg = plot.svg();
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert_eq!(svg.matches("stroke-dasharray").count(), 1);
        assert!(svg.contains("a &lt; b (dashed"));
    }
}
