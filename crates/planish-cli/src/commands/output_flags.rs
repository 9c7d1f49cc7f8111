//! Flags and messages shared by the commands that write a checkpoint.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Instant;

use planish::{Error, FloatType, OnProgress, Output, Report, Source, Target};

use super::interrupt;
use super::progress::{Bar, bytes};
use super::source::open;

/// The dialects that can be written.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormatFlag {
    /// transformers' MetalConfig: 2, 4 or 8 bits, linear layers only
    Metal,
    /// MLX and mlx-lm: 2, 3, 4, 5, 6 or 8 bits, embeddings and output head too
    Mlx,
}

impl FormatFlag {
    /// The dialect.
    pub fn target(self) -> Target {
        match self {
            FormatFlag::Metal => Target::Metal,
            FormatFlag::Mlx => Target::Mlx,
        }
    }
}

/// Types of plain tensors, scales and biases.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum DtypeFlag {
    /// 16 bits, the range of float32
    Bfloat16,
    /// 16 bits, more digits, up to 65504
    Float16,
    /// 32 bits
    Float32,
}

impl DtypeFlag {
    /// The type.
    pub fn float_type(self) -> FloatType {
        match self {
            DtypeFlag::Bfloat16 => FloatType::BF16,
            DtypeFlag::Float16 => FloatType::F16,
            DtypeFlag::Float32 => FloatType::F32,
        }
    }
}

/// Where a checkpoint comes from and goes to.
#[derive(clap::Args, Clone, Debug)]
pub struct OutputFlags {
    /// A folder, a .gguf file, or a Hub id (org/name)
    #[arg(value_name = "MODEL")]
    pub model: OsString,
    /// The folder to write (a file for `convert --to gguf`); it appears only when whole
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Replace the output if it is a model
    #[arg(long)]
    pub force: bool,
    /// Go on where a run with the same options was killed or ran out of disk, from its last whole tensor; and if this run ends
    /// early, by a signal too, leave what it has done (hidden, beside DIR) for the next
    #[arg(long)]
    pub resume: bool,
    /// Also copy files that are links to somewhere outside of the model's folder and the cache of the Hub
    #[arg(long)]
    pub copy_linked: bool,
    /// Write the largest value that a type holds in place of a larger one, where a value is too large for the type it is given
    #[arg(long)]
    pub clamp: bool,
    /// A folder of an adapter of PEFT (LoRA, DoRA) or mlx-lm, merged into the weights first
    #[arg(long, value_name = "DIR")]
    pub adapter: Option<PathBuf>,
    /// Branch, tag or commit of a Hub model
    #[arg(long, value_name = "REVISION")]
    pub revision: Option<String>,
}

impl OutputFlags {
    /// Opens the model, runs `convert` with a progress bar, and tells on standard error what was done.
    pub fn run(
        &self,
        convert: impl FnOnce(&Source, &Output, &mut OnProgress) -> Result<Report, Error>,
    ) -> anyhow::Result<()> {
        let mut source = open(&self.model, self.revision.as_deref())?;
        if let Some(adapter) = &self.adapter {
            source = source.adapted(adapter)?;
        }
        let watch = interrupt::watch();
        let output = Output {
            force: self.force,
            clamp: self.clamp,
            resume: self.resume,
            copy_linked: self.copy_linked,
            stop: watch.flag().clone(),
            ..Output::new(&self.out)
        };
        let start = Instant::now();
        let bar = Bar::new();
        let report = convert(&source, &output, &mut |progress| bar.conversion(progress));
        drop(bar);
        if report.is_err() && self.resume && planish::is_unfinished(&self.out) {
            eprintln!(
                "note: what is done stays, hidden, beside {}: the same command goes on with it",
                self.out.display()
            );
        }
        let report = report?;
        self.tell(&report, start.elapsed().as_secs_f64());
        Ok(())
    }

    fn tell(&self, report: &Report, seconds: f64) {
        for (module, reason) in &report.plain {
            eprintln!("plain: {module}: {reason}");
        }
        for note in &report.notes {
            eprintln!("note: {note}");
        }
        let rate = report.source_bytes as f64 / seconds.max(1e-9) / 1e9;
        eprintln!(
            "{}: {} ({:.3} bits per weight, {} packed tensors) from {} in {seconds:.1} s, {rate:.2} GB/s",
            self.out.display(),
            bytes(report.output_bytes),
            report.bits_per_weight(),
            report.packed,
            bytes(report.source_bytes),
        );
    }
}
