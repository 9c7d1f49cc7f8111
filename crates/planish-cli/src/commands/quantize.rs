//! `planish quantize`: a plain checkpoint or GGUF file to a packed one.

use std::path::PathBuf;
use std::sync::Arc;

use planish::{
    Allocation, CalibratedOptions, CalibratedProgress, CalibrationProgress, CalibrationText, Device, Encoder, Error,
    FloatMode, InputSquares, Method, OnProgress, Output, QuantizeError, QuantizingDevice, Recipe, Report, Source,
    calibrate, quantize, quantize_calibrated, read_imatrix,
};

use crate::hints::with_hint;

use super::budget_flags::{self, BudgetFlags, Widths};
use super::output_flags::{DtypeFlag, FormatFlag, OutputFlags};
use super::packing_flags::{bits, overrides, packing};
use super::progress::{TokensBar, WeightsBar};
use super::run_flags::DeviceFlag;
use super::texts::read_text;

/// Tokens of one text that the model writes, at most.
const LONGEST: usize = 512;

/// How scale, bias and codes of a group are chosen.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum MethodFlag {
    /// The least weighted error that a search over scales and biases finds (default); never more than with the rules below
    Search,
    /// As search, each column's error weighted by the inputs of the layer: runs the model over a text first
    Weighted,
    /// The least error of what layers give on what really goes into them, one layer after another, each error made up for by other
    /// weights and later layers: by far the closest to the model, and the slowest. Runs the model over a text first
    Calibrated,
    /// As transformers does it
    Transformers,
    /// As MLX does it on Metal and CUDA, like the published MLX models
    Mlx,
    /// As MLX does it on the CPU
    MlxCpu,
}

/// What codes of MLX are.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModeFlag {
    /// Whole numbers with a scale and a bias
    Affine,
    /// 4-bit floats, a power of two over 32 of them
    Mxfp4,
    /// 8-bit floats, a power of two over 32 of them
    Mxfp8,
    /// 4-bit floats, an 8-bit float over 16 of them
    Nvfp4,
}

impl ModeFlag {
    fn floats(self) -> Option<FloatMode> {
        match self {
            ModeFlag::Affine => None,
            ModeFlag::Mxfp4 => Some(FloatMode::Mxfp4),
            ModeFlag::Mxfp8 => Some(FloatMode::Mxfp8),
            ModeFlag::Nvfp4 => Some(FloatMode::Nvfp4),
        }
    }
}

/// Flags of `planish quantize`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    files: OutputFlags,
    /// Bits per weight: 2, 3, 4, 5, 6 or 8 (metal: 2, 4 or 8)
    #[arg(long, value_name = "BITS", default_value = "4", value_parser = bits)]
    bits: u32,
    #[command(flatten)]
    widths: BudgetFlags,
    /// Weights that share a scale and a bias: a multiple of 8 (MLX: 32, 64 or 128) [default: 64]
    #[arg(long, value_name = "SIZE")]
    group_size: Option<usize>,
    /// Target format
    #[arg(long, value_enum, default_value = "metal")]
    format: FormatFlag,
    /// For --format mlx: what codes are. The modes of floats have bits and groups of their own, and a rule for codes
    #[arg(long, value_enum, default_value = "affine")]
    mode: ModeFlag,
    /// How scales, biases and codes are chosen
    #[arg(long, value_enum, default_value = "search")]
    method: MethodFlag,
    /// For --method weighted and calibrated, and --budget: a text, or JSON lines of messages, instead of what the model writes itself
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// For --method weighted and calibrated: tokens that the model runs over
    #[arg(long, value_name = "N", default_value_t = 8192)]
    text_tokens: usize,
    /// For --method weighted and calibrated, and --budget: seed of the first text that the model writes
    #[arg(long, value_name = "SEED", default_value_t = 1, conflicts_with = "text")]
    seed: u64,
    /// For --method weighted: llama.cpp's importance matrix (llama-imatrix), in place of running the model
    #[arg(long, value_name = "FILE", conflicts_with_all = ["text", "text_tokens", "seed"])]
    imatrix: Option<PathBuf>,
    /// Leave this module plain: its full name, the start or end of it, or a regular expression from its start, as in
    /// transformers' modules_to_not_convert (repeatable)
    #[arg(long, value_name = "NAME")]
    exclude: Vec<String>,
    /// Pack the output head too, which --format metal leaves plain
    #[arg(long)]
    include_head: bool,
    /// Pack the routed experts too, which --format metal leaves plain (--format mlx packs them anyway)
    #[arg(long)]
    include_experts: bool,
    /// Other bits for modules in whose name REGEX is found; the first that matches counts (MLX only, repeatable)
    #[arg(long = "override", value_name = "REGEX=BITS[,GROUP]|none")]
    overrides: Vec<String>,
    /// Type of plain tensors, scales and biases [default: that of the source; for GGUF that of its scales]
    #[arg(long, value_enum)]
    dtype: Option<DtypeFlag>,
    /// Quantize weights that hold NaN or infinity instead of refusing them
    #[arg(long)]
    allow_nan: bool,
    /// What chooses codes: an NVIDIA GPU (auto: where there is one) or the processor. By search they are the same on both
    #[arg(long, value_enum, default_value = "auto")]
    device: DeviceFlag,
}

impl Arguments {
    fn recipe(&self, widths: Option<&Widths>) -> anyhow::Result<Recipe> {
        let recipe = match (self.mode.floats(), widths) {
            (Some(mode), widths) => {
                anyhow::ensure!(
                    self.method == MethodFlag::Search && widths.is_none(),
                    "--mode: the codes of floats are chosen as MLX does it; --method, --recipe and --budget are for --mode affine"
                );
                let recipe = Recipe::of_floats(mode);
                anyhow::ensure!(
                    self.format == FormatFlag::Mlx,
                    "--mode: the metal format holds whole numbers only: use --format mlx"
                );
                anyhow::ensure!(
                    matches!(self.bits, 4) || self.bits == mode.bits(),
                    "--bits: this mode has {} bits",
                    mode.bits()
                );
                anyhow::ensure!(
                    self.group_size.is_none_or(|group| group == mode.group()),
                    "--group-size: this mode has groups of {}",
                    mode.group()
                );
                recipe
            }
            (None, Some(widths)) => Recipe::new(self.format.target(), budget_flags::most(widths, self.group_size)?),
            (None, None) => Recipe::new(self.format.target(), packing(self.bits, self.group_size)?),
        };
        let packing = recipe.packing;
        let recipe = Recipe {
            method: self.method.method(),
            exclude: self.exclude.clone(),
            include_head: self.include_head,
            include_experts: self.include_experts,
            overrides: overrides(&self.overrides, packing)?,
            dtype: self.dtype.map(DtypeFlag::float_type),
            allow_non_finite: self.allow_nan,
            ..recipe
        };
        anyhow::ensure!(
            widths.is_none() || self.format == FormatFlag::Mlx,
            "the metal format has one bit-width for all layers, so it cannot hold {}: use --format mlx",
            self.widths.flag()
        );
        match recipe.check() {
            Err(QuantizeError::MetalOverrides) => anyhow::bail!(
                "the metal format has one bit-width for all layers, so it cannot hold --override: use --format mlx, or \
                 --exclude to keep layers plain"
            ),
            checked => checked?,
        }
        Ok(recipe)
    }
}

impl Arguments {
    /// Runs the model over the text.
    fn inputs(&self, source: &Source, text: Option<&str>) -> Result<InputSquares, Error> {
        if let Some(path) = &self.imatrix {
            return read_imatrix(source, path);
        }
        let text = self.calibration_text(source, text, self.text_tokens)?;
        let bar = TokensBar::new();
        let inputs = calibrate(source, &text, None, &mut |progress| bar.tokens(progress))?;
        drop(bar);
        eprintln!("ran over {}", inputs.description());
        Ok(inputs)
    }
}

impl Arguments {
    /// The width of every layer.
    fn allocation(
        &self,
        (source, output): (&Source, &Output),
        recipe: &Recipe,
        widths: Widths,
        text: Option<&str>,
    ) -> Result<Allocation, Error> {
        match widths {
            Widths::Budget(budget) => {
                let text = self.text.as_deref().zip(text);
                self.widths.spend((source, output), recipe, (budget, self.seed), text)
            }
            Widths::Mix(mix) => {
                let checkpoint = source.checkpoint();
                Ok(mix.allocation(recipe, checkpoint.config(), checkpoint.entries())?)
            }
            Widths::File(allocation) => Ok(*allocation),
        }
    }

    /// `tokens` of the text, if it is given, or of what the model is to write.
    fn calibration_text(&self, source: &Source, text: Option<&str>, tokens: usize) -> Result<CalibrationText, Error> {
        match (text, &self.text) {
            (Some(text), Some(path)) => {
                let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
                CalibrationText::given(source, &name, text, tokens)
            }
            _ => Ok(CalibrationText::OwnWriting {
                seed: self.seed,
                tokens,
                longest: LONGEST,
            }),
        }
    }

    /// Packs layer after layer by what goes into it.
    fn calibrated(
        &self,
        source: &Source,
        text: Option<&str>,
        (recipe, device): (&Recipe, &QuantizingDevice),
        (output, on_progress): (&Output, &mut OnProgress),
    ) -> Result<Report, Error> {
        let options = CalibratedOptions {
            text: self.calibration_text(source, text, self.text_tokens)?,
            threads: None,
            device: device.device,
            calibrator: device.calibrator.clone(),
        };
        let (mut writing, mut packing) = (None, None);
        let mut on_calibration = |progress| match progress {
            CalibratedProgress::Writing(done, total) => {
                let bar = writing.get_or_insert_with(TokensBar::new);
                bar.tokens(CalibrationProgress { done, total });
            }
            CalibratedProgress::Packing(done, total) => {
                writing = None;
                packing.get_or_insert_with(WeightsBar::new).weights(done, total);
            }
        };
        quantize_calibrated(source, recipe, &options, output, &mut on_calibration, on_progress)
    }
}

impl MethodFlag {
    /// What curves are called by.
    pub fn name(self) -> String {
        let value = clap::ValueEnum::to_possible_value(&self);
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// The method, for weighted without what is known of inputs.
    pub fn method(self) -> Method {
        match self {
            // What is known of the inputs is put in when they were seen.
            MethodFlag::Search | MethodFlag::Weighted | MethodFlag::Calibrated => Method::Search,
            MethodFlag::Transformers => Method::Peer(Encoder::Transformers),
            MethodFlag::Mlx => Method::Peer(Encoder::MlxMetal),
            MethodFlag::MlxCpu => Method::Peer(Encoder::MlxCpu),
        }
    }
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let widths = arguments.widths.widths()?;
    let mut recipe = arguments.recipe(widths.as_ref())?;
    let weighted = arguments.method == MethodFlag::Weighted;
    let calibrated = arguments.method == MethodFlag::Calibrated;
    anyhow::ensure!(
        weighted || calibrated || arguments.widths.takes_text() || arguments.text.is_none(),
        "--text: only --method weighted and calibrated, and --budget, run the model over a text"
    );
    anyhow::ensure!(
        weighted || arguments.imatrix.is_none(),
        "--imatrix: only --method weighted weighs inputs"
    );
    let text = arguments.text.as_deref();
    let text = text.map(read_text).transpose()?;
    let searches = !matches!(recipe.method, Method::Peer(_));
    anyhow::ensure!(
        searches || matches!(arguments.device, DeviceFlag::Auto | DeviceFlag::Cpu),
        "--device: the codes of peers are chosen on the processor; only --method search, weighted and calibrated have a GPU"
    );
    let asked = if searches {
        arguments.device.device()
    } else {
        Device::Cpu
    };
    let mut device = QuantizingDevice::open(asked).map_err(Error::Model)?;
    if let Some(notice) = device.notice.take() {
        eprintln!("quantizing on the CPU: {}", with_hint(&notice.into()));
    }
    recipe.searcher = device.searcher.take();
    arguments.files.run(|source, output, on_progress| {
        let text = text.as_deref();
        if let Some(widths) = widths {
            let allocation = arguments.allocation((source, output), &recipe, widths, text)?;
            eprintln!("layers: {}", budget_flags::tell(&allocation));
            recipe.packing = allocation.default_packing();
            recipe.allocation = Some(Arc::new(allocation));
        }
        if weighted {
            recipe.method = Method::Weighted(Arc::new(arguments.inputs(source, text)?));
        }
        if calibrated {
            return arguments.calibrated(source, text, (&recipe, &device), (output, on_progress));
        }
        quantize(source, &recipe, output, on_progress)
    })
}
