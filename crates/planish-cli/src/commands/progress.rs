//! Progress on standard error: bars with rate and time left on a terminal, nothing where output is piped.

use std::io::IsTerminal;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use planish::{BudgetProgress, CalibrationProgress, Download, Progress};

/// A bar that counts bytes, with a word about what is being done. Disappears when dropped.
pub struct Bar {
    bar: ProgressBar,
}

impl Bar {
    /// Shows itself at the first step, if standard error is a terminal.
    pub fn new() -> Bar {
        let target = if std::io::stderr().is_terminal() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(0), target);
        let template = "{bytes:>10}/{total_bytes} {bar:24} {binary_bytes_per_sec:>12} {eta:>4} left  {wide_msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Bar { bar }
    }

    /// A step of a conversion.
    pub fn conversion(&self, progress: Progress) {
        self.bar.set_length(progress.total_bytes);
        self.bar.set_position(progress.done_bytes);
        self.bar.set_message(progress.tensor.to_owned());
    }

    /// A step of a download.
    pub fn download(&self, step: Download) {
        match step {
            Download::Start {
                file,
                total_bytes,
                done_bytes,
            } => {
                self.bar.set_length(total_bytes);
                self.bar.set_position(done_bytes);
                self.bar.reset_eta();
                self.bar.set_message(file.to_owned());
            }
            Download::Received { bytes } => self.bar.inc(bytes),
            Download::End => self.bar.set_position(self.bar.length().unwrap_or(0)),
            Download::Notice(text) => self.notice(text),
        }
    }

    /// A line on standard error, above the bar; also without a terminal.
    pub fn notice(&self, text: &str) {
        self.bar.suspend(|| eprintln!("{text}"));
    }
}

/// A bar that counts answers, with the rate of all their tokens. Disappears when dropped.
pub struct AnswersBar {
    bar: ProgressBar,
    start: Instant,
}

impl AnswersBar {
    /// Shows itself at the first token, if standard error is a terminal.
    pub fn new(total: usize) -> AnswersBar {
        let target = if std::io::stderr().is_terminal() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(total as u64), target);
        if let Ok(style) = ProgressStyle::with_template("{pos:>6}/{len} answers {bar:24} {msg}") {
            bar.set_style(style);
        }
        AnswersBar {
            bar,
            start: Instant::now(),
        }
    }

    /// So many tokens are there.
    pub fn token(&self, tokens: u32) {
        if !self.bar.is_hidden() {
            let rate = f64::from(tokens) / self.start.elapsed().as_secs_f64();
            self.bar.set_message(format!("{rate:.0} tokens/s"));
        }
    }

    /// An answer is finished.
    pub fn answer(&self) {
        self.bar.inc(1);
    }

    /// Runs `write` without the bar in its way.
    pub fn suspend<T>(&self, write: impl FnOnce() -> T) -> T {
        self.bar.suspend(write)
    }
}

/// A bar that counts the tokens that go through a model. Disappears when dropped.
pub struct TokensBar {
    bar: ProgressBar,
}

impl TokensBar {
    /// Shows itself at the first step, if standard error is a terminal.
    pub fn new() -> TokensBar {
        let target = if std::io::stderr().is_terminal() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(0), target);
        if let Ok(style) = ProgressStyle::with_template("{pos:>8}/{len} tokens {bar:24} {per_sec} {eta:>4} left") {
            bar.set_style(style);
        }
        TokensBar { bar }
    }

    /// So far it is.
    pub fn tokens(&self, progress: CalibrationProgress) {
        self.bar.set_length(progress.total as u64);
        self.bar.set_position(progress.done as u64);
    }
}

/// A bar of layers that are tried one by one. Disappears when dropped.
pub struct LayersBar {
    bar: ProgressBar,
}

impl LayersBar {
    /// Shows itself at the first layer, if standard error is a terminal.
    pub fn new() -> LayersBar {
        let target = if std::io::stderr().is_terminal() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(0), target);
        let template = "{percent:>3} % measured {bar:24} {per_sec} {eta:>4} left  {wide_msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        LayersBar { bar }
    }

    /// So far it is.
    pub fn layer(&self, progress: BudgetProgress<'_>) {
        self.bar.set_length(progress.total);
        self.bar.set_position(progress.done);
        self.bar
            .set_message(format!("{} in {} bits", progress.layer, progress.bits));
    }
}

impl Drop for LayersBar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A bar that counts weights, in millions. Disappears when dropped.
pub struct WeightsBar {
    bar: ProgressBar,
}

impl WeightsBar {
    /// Shows itself at the first step, if standard error is a terminal.
    pub fn new() -> WeightsBar {
        let target = if std::io::stderr().is_terminal() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(0), target);
        let template = "{human_pos:>12}/{human_len} weights {bar:24} {per_sec} {eta:>4} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        WeightsBar { bar }
    }

    /// So far it is.
    pub fn weights(&self, done: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(done);
    }
}

impl Drop for WeightsBar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for TokensBar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for AnswersBar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Bytes as people read them, e.g. `1.2 GB`.
pub fn bytes(count: u64) -> String {
    indicatif::DecimalBytes(count).to_string()
}
