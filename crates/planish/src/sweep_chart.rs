//! The plot of a sweep: mean KL divergence, on a logarithmic scale, over bits per packed weight, as SVG.

use crate::{Chart, ChartCurve, ChartPoint, SweepRow};

/// A plot of rows whose divergence is a number above zero; one line for each curve, in the order of the rows.
pub fn sweep_chart(title: &str, rows: &[SweepRow]) -> String {
    let mut curves: Vec<ChartCurve> = Vec::new();
    for row in rows {
        let drawn = row.divergence.is_finite() && row.divergence > 0.0 && row.packed_bits.is_finite();
        if !drawn {
            continue;
        }
        let point = ChartPoint {
            x: row.packed_bits,
            y: row.divergence,
            told: format!(
                "{}, {}: {:.4} at {:.3} bits",
                row.curve, row.setting, row.divergence, row.packed_bits
            ),
        };
        match curves.iter_mut().find(|curve| curve.name == row.curve) {
            Some(curve) => curve.points.push(point),
            None => curves.push(ChartCurve {
                name: row.curve.clone(),
                points: vec![point],
            }),
        }
    }
    for curve in &mut curves {
        curve.points.sort_by(|left, right| left.x.total_cmp(&right.x));
    }
    let chart = Chart {
        title,
        across: "bits per packed weight, scales and biases counted",
        up: "mean KL divergence, nats",
        doubling: false,
        curves,
    };
    chart.svg()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_points_of_their_curves_from_left_to_right() {
        let row = |curve: &str, bits: f64, divergence: f64| SweepRow {
            curve: curve.to_owned(),
            setting: "a < b".to_owned(),
            packed_bits: bits,
            bits,
            divergence,
            divergence_interval: None,
            perplexity: 1.0,
            top1_agreement: 1.0,
            seconds: 0.0,
        };
        let rows = [
            row("one", 4.5, 0.005),
            row("one", 2.5, 0.5),
            row("two", 3.5, 0.04),
            row("two", 3.5, 0.0),
        ];
        let svg = sweep_chart("A", &rows);
        assert_eq!(
            (svg.matches("<polyline").count(), svg.matches("<title>").count()),
            (2, 3)
        );
        let first = svg.find("0.5000 at 2.500 bits").unwrap();
        assert!(first < svg.find("0.0050 at 4.500 bits").unwrap());
        assert!(svg.contains("one, a &lt; b"));
        assert!(sweep_chart("nothing", &[]).ends_with("</svg>\n"));
    }
}
