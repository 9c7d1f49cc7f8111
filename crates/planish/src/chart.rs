//! Plots as SVG: curves over two axes, the vertical one logarithmic.

use std::fmt::Write;

/// Sizes in pixels.
const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 480.0;
const LEFT: f64 = 74.0;
const RIGHT: f64 = 190.0; // room for the legend
const TOP: f64 = 44.0;
const BOTTOM: f64 = 52.0;

/// Colours that people with any kind of sight tell apart on white.
const COLORS: [&str; 8] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#7f7f7f",
];

/// A plot.
pub struct Chart<'a> {
    /// What stands over it.
    pub title: &'a str,
    /// What stands under the horizontal axis.
    pub across: &'a str,
    /// What stands beside the vertical axis.
    pub up: &'a str,
    /// The horizontal axis is logarithmic too: a mark for each doubling, else one for each whole number.
    pub doubling: bool,
    /// What is drawn, each curve in a colour of its own.
    pub curves: Vec<ChartCurve>,
}

/// A curve by its points, from left to right.
pub struct ChartCurve {
    /// What the legend calls it.
    pub name: String,
    /// Its points. One that has no place on the axes is left out.
    pub points: Vec<ChartPoint>,
}

/// A point of a curve.
pub struct ChartPoint {
    /// Its place across.
    pub x: f64,
    /// Its place upwards: a number above zero.
    pub y: f64,
    /// What is told of it.
    pub told: String,
}

impl Chart<'_> {
    /// The plot as a document of its own.
    pub fn svg(&self) -> String {
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n\
             <text x=\"{LEFT}\" y=\"26\" font-size=\"15\" font-weight=\"bold\">{}</text>\n",
            escaped(self.title)
        );
        if let Some(axes) = Axes::of(self) {
            axes.draw(&mut svg, self);
            for (index, curve) in self.curves.iter().enumerate() {
                axes.curve(&mut svg, index, curve, self.doubling);
            }
        }
        svg + "</svg>\n"
    }

    /// Where a point stands, if it has a place.
    fn place(&self, point: &ChartPoint) -> Option<(f64, f64)> {
        place(point, self.doubling)
    }
}

/// In marks of the horizontal axis and in decades.
fn place(point: &ChartPoint, doubling: bool) -> Option<(f64, f64)> {
    let x = if doubling { point.x.log2() } else { point.x };
    let y = point.y.log10();
    (x.is_finite() && y.is_finite()).then_some((x, y))
}

/// What the axes span.
struct Axes {
    marks: (f64, f64),
    decades: (i32, i32),
}

impl Axes {
    fn of(chart: &Chart<'_>) -> Option<Axes> {
        let points = chart.curves.iter().flat_map(|curve| &curve.points);
        let places: Vec<(f64, f64)> = points.filter_map(|point| chart.place(point)).collect();
        let least = |of: fn(&(f64, f64)) -> f64| places.iter().map(of).reduce(f64::min);
        let most = |of: fn(&(f64, f64)) -> f64| places.iter().map(of).reduce(f64::max);
        let decades = (
            least(|place| place.1)?.floor() as i32,
            most(|place| place.1)?.ceil() as i32,
        );
        let marks = (
            (least(|place| place.0)? - 0.25).floor(),
            (most(|place| place.0)? + 0.25).ceil(),
        );
        Some(Axes {
            // Nobody is less than one.
            marks: (if chart.doubling { marks.0.max(0.0) } else { marks.0 }, marks.1),
            decades: (decades.0, decades.1.max(decades.0 + 1)),
        })
    }

    fn x(&self, mark: f64) -> f64 {
        LEFT + (mark - self.marks.0) / (self.marks.1 - self.marks.0) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, decade: f64) -> f64 {
        let (low, high) = (f64::from(self.decades.0), f64::from(self.decades.1));
        TOP + (high - decade) / (high - low) * (HEIGHT - TOP - BOTTOM)
    }

    fn draw(&self, svg: &mut String, chart: &Chart<'_>) {
        let (left, right, bottom) = (LEFT, WIDTH - RIGHT, HEIGHT - BOTTOM);
        for decade in self.decades.0..=self.decades.1 {
            let y = self.y(decade.into());
            let value = format!("{:.*}", decade.min(0).unsigned_abs() as usize, 10f64.powi(decade));
            line(svg, (left, y), (right, y), "#d0d0d0");
            text(svg, (left - 8.0, y + 4.0), "end", &value);
            for part in (2..10).filter(|_| decade < self.decades.1) {
                let y = self.y(f64::from(decade) + f64::from(part).log10());
                line(svg, (left, y), (right, y), "#efefef");
            }
        }
        let mut mark = self.marks.0;
        while mark <= self.marks.1 {
            let x = self.x(mark);
            line(svg, (x, TOP), (x, bottom), "#e0e0e0");
            let value = if chart.doubling { mark.exp2() } else { mark };
            text(svg, (x, bottom + 18.0), "middle", &format!("{value}"));
            mark += 1.0;
        }
        text(svg, ((left + right) / 2.0, HEIGHT - 12.0), "middle", chart.across);
        let (x, y) = (18.0, (TOP + bottom) / 2.0);
        let label = escaped(chart.up);
        let _ = writeln!(
            svg,
            "<text x=\"{x}\" y=\"{y:.1}\" text-anchor=\"middle\" transform=\"rotate(-90 {x} {y:.1})\">{label}</text>"
        );
    }

    fn curve(&self, svg: &mut String, index: usize, curve: &ChartCurve, doubling: bool) {
        let color = COLORS[index % COLORS.len()];
        let placed = curve.points.iter().filter_map(|point| {
            let (mark, decade) = place(point, doubling)?;
            Some((point, self.x(mark), self.y(decade)))
        });
        let placed: Vec<(&ChartPoint, f64, f64)> = placed.collect();
        let path: Vec<String> = placed.iter().map(|(_, x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"/>",
            path.join(" ")
        );
        for (point, x, y) in &placed {
            let _ = writeln!(
                svg,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{color}\"><title>{}</title></circle>",
                escaped(&point.told)
            );
        }
        let (x, y) = (WIDTH - RIGHT + 14.0, TOP + 14.0 + 22.0 * index as f64);
        let _ = writeln!(
            svg,
            "<circle cx=\"{x}\" cy=\"{:.1}\" r=\"5\" fill=\"{color}\"/>",
            y - 4.0
        );
        text(svg, (x + 12.0, y), "start", &curve.name);
    }
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64), color: &str) {
    let _ = writeln!(
        svg,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{color}\"/>",
        from.0, from.1, to.0, to.1
    );
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, words: &str) {
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>",
        escaped(words)
    );
}

fn escaped(words: &str) -> String {
    words
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(x: f64, y: f64) -> ChartPoint {
        ChartPoint {
            x,
            y,
            told: "a < b".to_owned(),
        }
    }

    #[test]
    fn points_lie_inside_and_the_axes_hold_them() {
        let curve = |name: &str, points: Vec<ChartPoint>| ChartCurve {
            name: name.to_owned(),
            points,
        };
        let mut chart = Chart {
            title: "A <title>",
            across: "clients",
            up: "tokens & more",
            doubling: false,
            curves: vec![
                curve("one & two", vec![point(2.5, 0.5), point(4.5, 0.005)]),
                curve("three", vec![point(3.5, 0.04), point(3.5, 0.0), point(3.5, f64::NAN)]),
            ],
        };
        let svg = chart.svg();
        assert_eq!(svg.matches("<polyline").count(), 2);
        // A point and its title for each that has a place, and a mark for each curve in the legend.
        assert_eq!((svg.matches("<circle").count(), svg.matches("<title>").count()), (5, 3));
        assert!(svg.contains("A &lt;title&gt;") && svg.contains("one &amp; two") && !svg.contains("NaN"));
        let axes = Axes::of(&chart).unwrap();
        assert_eq!((axes.marks, axes.decades), ((2.0, 5.0), (-3, 0)));
        let (low, high) = (axes.y(0.005_f64.log10()), axes.y(0.04_f64.log10()));
        assert!(low > high && axes.x(4.5) > axes.x(2.5));
        assert!((TOP..=HEIGHT - BOTTOM).contains(&low) && (LEFT..=WIDTH - RIGHT).contains(&axes.x(4.5)));
        chart.doubling = true;
        chart.curves = vec![curve("all", vec![point(1.0, 90.0), point(64.0, 900.0)])];
        let axes = Axes::of(&chart).unwrap();
        assert_eq!((axes.marks, axes.decades), ((0.0, 7.0), (1, 3)));
        assert!(chart.svg().contains(">64</text>"));
        chart.curves.clear();
        assert!(chart.svg().ends_with("</svg>\n"));
    }
}
