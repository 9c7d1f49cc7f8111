//! The plot of a sweep: mean KL divergence, on a logarithmic scale, over bits per packed weight, as SVG.

use std::fmt::Write;

use crate::SweepRow;

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

/// A plot of rows whose divergence is a number above zero; one line for each curve, in the order of the rows.
pub fn sweep_chart(title: &str, rows: &[SweepRow]) -> String {
    let drawn = |row: &&SweepRow| row.divergence.is_finite() && row.divergence > 0.0 && row.packed_bits.is_finite();
    let rows: Vec<&SweepRow> = rows.iter().filter(drawn).collect();
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n\
         <text x=\"{LEFT}\" y=\"26\" font-size=\"15\" font-weight=\"bold\">{}</text>\n",
        escaped(title)
    );
    if let Some(axes) = Axes::of(&rows) {
        axes.draw(&mut svg);
        let mut curves: Vec<&str> = Vec::new();
        for row in &rows {
            if !curves.contains(&row.curve.as_str()) {
                curves.push(&row.curve);
            }
        }
        for (index, curve) in curves.into_iter().enumerate() {
            let mut points: Vec<&SweepRow> = rows.iter().copied().filter(|row| row.curve == curve).collect();
            points.sort_by(|left, right| left.packed_bits.total_cmp(&right.packed_bits));
            axes.curve(&mut svg, index, curve, &points);
        }
    }
    svg + "</svg>\n"
}

/// What the axes span.
struct Axes {
    bits: (f64, f64),
    decades: (i32, i32),
}

impl Axes {
    fn of(rows: &[&SweepRow]) -> Option<Axes> {
        let least = |values: &dyn Fn(&SweepRow) -> f64| rows.iter().map(|row| values(row)).reduce(f64::min);
        let most = |values: &dyn Fn(&SweepRow) -> f64| rows.iter().map(|row| values(row)).reduce(f64::max);
        let bits = |row: &SweepRow| row.packed_bits;
        let decade = |row: &SweepRow| row.divergence.log10();
        let decades = (least(&decade)?.floor() as i32, most(&decade)?.ceil() as i32);
        Some(Axes {
            bits: ((least(&bits)? - 0.25).floor(), (most(&bits)? + 0.25).ceil()),
            decades: (decades.0, decades.1.max(decades.0 + 1)),
        })
    }

    fn x(&self, bits: f64) -> f64 {
        LEFT + (bits - self.bits.0) / (self.bits.1 - self.bits.0) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, divergence: f64) -> f64 {
        let (low, high) = (f64::from(self.decades.0), f64::from(self.decades.1));
        TOP + (high - divergence.log10()) / (high - low) * (HEIGHT - TOP - BOTTOM)
    }

    fn draw(&self, svg: &mut String) {
        let (left, right, bottom) = (LEFT, WIDTH - RIGHT, HEIGHT - BOTTOM);
        for decade in self.decades.0..=self.decades.1 {
            let y = self.y(10f64.powi(decade));
            let value = format!("{:.*}", decade.min(0).unsigned_abs() as usize, 10f64.powi(decade));
            line(svg, (left, y), (right, y), "#d0d0d0");
            text(svg, (left - 8.0, y + 4.0), "end", &value);
            for part in (2..10).filter(|_| decade < self.decades.1) {
                let y = self.y(f64::from(part) * 10f64.powi(decade));
                line(svg, (left, y), (right, y), "#efefef");
            }
        }
        let mut bits = self.bits.0;
        while bits <= self.bits.1 {
            let x = self.x(bits);
            line(svg, (x, TOP), (x, bottom), "#e0e0e0");
            text(svg, (x, bottom + 18.0), "middle", &format!("{bits}"));
            bits += 1.0;
        }
        text(
            svg,
            ((left + right) / 2.0, HEIGHT - 12.0),
            "middle",
            "bits per packed weight, scales and biases counted",
        );
        let (x, y) = (18.0, (TOP + bottom) / 2.0);
        let label = "mean KL divergence, nats";
        let _ = writeln!(
            svg,
            "<text x=\"{x}\" y=\"{y:.1}\" text-anchor=\"middle\" transform=\"rotate(-90 {x} {y:.1})\">{label}</text>"
        );
    }

    fn curve(&self, svg: &mut String, index: usize, name: &str, points: &[&SweepRow]) {
        let color = COLORS[index % COLORS.len()];
        let places: Vec<(f64, f64)> = points
            .iter()
            .map(|row| (self.x(row.packed_bits), self.y(row.divergence)))
            .collect();
        let path: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"/>",
            path.join(" ")
        );
        for (row, (x, y)) in points.iter().zip(&places) {
            let told = format!(
                "{}, {}: {:.4} at {:.3} bits",
                row.curve, row.setting, row.divergence, row.packed_bits
            );
            let _ = writeln!(
                svg,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{color}\"><title>{}</title></circle>",
                escaped(&told)
            );
        }
        let (x, y) = (WIDTH - RIGHT + 14.0, TOP + 14.0 + 22.0 * index as f64);
        let _ = writeln!(
            svg,
            "<circle cx=\"{x}\" cy=\"{:.1}\" r=\"5\" fill=\"{color}\"/>",
            y - 4.0
        );
        text(svg, (x + 12.0, y), "start", name);
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

    fn row(curve: &str, bits: f64, divergence: f64) -> SweepRow {
        SweepRow {
            curve: curve.to_owned(),
            setting: "a < b".to_owned(),
            packed_bits: bits,
            bits,
            divergence,
            divergence_interval: None,
            perplexity: 1.0,
            top1_agreement: 1.0,
            seconds: 0.0,
        }
    }

    #[test]
    fn points_lie_inside_and_lower_is_better() {
        let rows = [
            row("one & two", 2.5, 0.5),
            row("one & two", 4.5, 0.005),
            row("three", 3.5, 0.04),
            row("three", 3.5, 0.0),
            row("three", 3.5, f64::NAN),
        ];
        let svg = sweep_chart("A <title>", &rows);
        assert_eq!(svg.matches("<polyline").count(), 2);
        // A point and its title for each row that can be drawn, and a mark for each curve in the legend.
        assert_eq!((svg.matches("<circle").count(), svg.matches("<title>").count()), (5, 3));
        assert!(svg.contains("A &lt;title&gt;") && svg.contains("one &amp; two") && !svg.contains("NaN"));
        let axes = Axes::of(&rows.iter().take(3).collect::<Vec<_>>()).unwrap();
        assert_eq!((axes.bits, axes.decades), ((2.0, 5.0), (-3, 0)));
        assert!(axes.y(0.005) > axes.y(0.04) && axes.x(4.5) > axes.x(2.5));
        assert!((TOP..=HEIGHT - BOTTOM).contains(&axes.y(0.005)) && (LEFT..=WIDTH - RIGHT).contains(&axes.x(4.5)));
        assert!(sweep_chart("nothing", &[]).ends_with("</svg>\n"));
    }
}
