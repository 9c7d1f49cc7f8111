//! The chart of `planish demo`: a row for each version of the model, bars for its size and its perplexity.

use console::{Term, style};

use super::progress::bytes;

/// One row.
pub struct Row {
    /// What to call it, at most 6 characters.
    pub name: String,
    /// Of all tensors.
    pub bytes: u64,
    /// Relative root mean square error of the packed layers; `None` for the original.
    pub error: Option<f64>,
    /// On the held-out stories.
    pub perplexity: f64,
}

/// Columns that names, numbers and gaps take beside the two bars.
const TEXT_COLUMNS: usize = 44;
/// Columns where nobody can be asked, and at most: longer bars say no more.
const DEFAULT_COLUMNS: usize = 80;
const MAX_COLUMNS: usize = 100;

/// The whole chart. Its bars fill the terminal, coloured where standard output is one that shows colours.
pub fn chart(rows: &[&Row]) -> String {
    let asked = Term::stdout().size_checked().map(|(_, columns)| usize::from(columns));
    render(rows, asked.unwrap_or(DEFAULT_COLUMNS))
}

fn render(rows: &[&Row], columns: usize) -> String {
    let bar_columns = columns.min(MAX_COLUMNS).saturating_sub(TEXT_COLUMNS) / 2;
    let largest = rows.iter().map(|row| row.bytes).max().unwrap_or(0) as f64;
    let worst = rows.iter().map(|row| row.perplexity).fold(0.0, f64::max);
    let header = format!(
        "{:6}  {:>9} {:bar_columns$}  {:>8}  {:>10}",
        "", "size", "", "error", "perplexity"
    );
    let mut text = format!("{}\n", style(header.trim_end()).bold());
    for row in rows {
        let error = row
            .error
            .map_or_else(|| "-".to_owned(), |error| format!("{:.2} %", 100.0 * error));
        let size_bar = bar(row.bytes as f64 / largest, bar_columns);
        let perplexity_bar = bar(row.perplexity / worst, bar_columns);
        let line = format!(
            "{:6}  {:>9} {}  {error:>8}  {:>10.3} {}",
            row.name,
            bytes(row.bytes),
            style(size_bar).cyan(),
            row.perplexity,
            style(perplexity_bar.trim_end()).yellow(),
        );
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A bar that fills `part` of `columns`, but never nothing, and blanks after it.
fn bar(part: f64, columns: usize) -> String {
    let filled = (part * columns as f64).round() as usize;
    let filled = filled.clamp(1, columns.max(1)).min(columns);
    format!("{}{}", "█".repeat(filled), " ".repeat(columns - filled))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_share_what_the_text_leaves() {
        console::set_colors_enabled(false);
        assert_eq!(bar(0.5, 4), "██  ");
        assert_eq!(bar(0.0, 4), "█   ");
        assert_eq!(bar(1.0, 0), "");
        let row = |name: &str, bytes, perplexity| Row {
            name: name.to_owned(),
            bytes,
            error: Some(0.1),
            perplexity,
        };
        let rows = [&row("float", 2_000_000, 2.0), &row("4 bits", 1_000_000, 8.0)];
        for columns in [20, 60, 80, 200] {
            let text = render(&rows, columns);
            let widest = text.lines().map(|line| line.chars().count()).max().unwrap();
            assert!(
                widest <= columns.clamp(TEXT_COLUMNS, MAX_COLUMNS),
                "{widest} of {columns}"
            );
            assert_eq!(text.lines().count(), 3);
        }
    }
}
