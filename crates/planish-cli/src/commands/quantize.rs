//! `planish quantize`: a plain checkpoint or GGUF file to a packed one.

use std::path::PathBuf;

use planish::{
    CalibratedProgress, CalibrationProgress, CodeChoice, Encoder, FloatMode, Method, QuantizeError, Quantizing,
    QuantizingStep, Recipe, Widths,
};

use crate::hints::with_hint;

use super::budget_flags::{self, BudgetFlags};
use super::output_flags::{DtypeFlag, FormatFlag, OutputFlags};
use super::packing_flags::{bits, overrides, packing};
use super::progress::{LayersBar, TokensBar, WeightsBar};
use super::run_flags::DeviceFlag;
use super::texts::read_text;

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

/// Steps before the weights are written, on the terminal: a bar at a time.
struct Steps<'a> {
    widths: &'a BudgetFlags,
    tokens: Option<TokensBar>,
    layers: Option<LayersBar>,
    weights: Option<WeightsBar>,
    /// Why what was measured is not kept.
    failure: Option<std::io::Error>,
}

impl<'a> Steps<'a> {
    fn new(widths: &'a BudgetFlags) -> Steps<'a> {
        Steps {
            widths,
            tokens: None,
            layers: None,
            weights: None,
            failure: None,
        }
    }

    fn step(&mut self, step: QuantizingStep<'_>) {
        match step {
            QuantizingStep::OnProcessor(notice) => eprintln!("quantizing on the CPU: {}", with_hint(notice)),
            QuantizingStep::Measuring(progress) => {
                self.layers.get_or_insert_with(LayersBar::new).layer(progress);
                if let Err(error) = self.widths.keep(progress.sensitivities) {
                    self.failure.get_or_insert(error);
                }
            }
            QuantizingStep::Widths(allocation) => {
                self.layers = None;
                if let Some(error) = self.failure.take() {
                    eprintln!(
                        "note: {}: what was measured is not kept: {error}",
                        self.widths.kept_in()
                    );
                }
                eprintln!("layers: {}", allocation.summary());
            }
            QuantizingStep::Inputs(progress) => self.tokens(progress),
            QuantizingStep::Seen(text) => {
                self.tokens = None;
                eprintln!("ran over {text}");
            }
            QuantizingStep::Calibrated(CalibratedProgress::Writing(done, total)) => {
                self.tokens(CalibrationProgress { done, total });
            }
            QuantizingStep::Calibrated(CalibratedProgress::Packing(done, total)) => {
                self.tokens = None;
                self.weights.get_or_insert_with(WeightsBar::new).weights(done, total);
            }
            _ => {}
        }
    }

    fn tokens(&mut self, progress: CalibrationProgress) {
        self.tokens.get_or_insert_with(TokensBar::new).tokens(progress);
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
    let recipe = arguments.recipe(widths.as_ref())?;
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
    let text = arguments.text.as_deref().map(|path| {
        let name = path.file_name().unwrap_or(path.as_os_str());
        Ok::<_, anyhow::Error>((name.to_string_lossy().into_owned(), read_text(path)?))
    });
    let searches = !matches!(recipe.method, Method::Peer(_));
    anyhow::ensure!(
        searches || matches!(arguments.device, DeviceFlag::Auto | DeviceFlag::Cpu),
        "--device: the codes of peers are chosen on the processor; only --method search, weighted and calibrated have a GPU"
    );
    let quantizing = Quantizing {
        choice: match (arguments.method, &arguments.imatrix) {
            (MethodFlag::Weighted, Some(path)) => CodeChoice::Imatrix(path.clone()),
            (MethodFlag::Weighted, None) => CodeChoice::Weighted,
            (MethodFlag::Calibrated, _) => CodeChoice::Calibrated,
            _ => CodeChoice::ByRecipe,
        },
        recipe,
        widths,
        text: text.transpose()?,
        text_tokens: arguments.text_tokens,
        seed: arguments.seed,
        device: arguments.device.device(),
    };
    let mut steps = Steps::new(&arguments.widths);
    arguments
        .files
        .run(|source, output, on_progress| quantizing.run(source, output, &mut |step| steps.step(step), on_progress))
}
