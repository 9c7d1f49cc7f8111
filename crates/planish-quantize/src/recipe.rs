//! What a user asks of a quantization: the dialect, bits and group, the rule for codes, exceptions.

use std::sync::Arc;

use fancy_regex::Regex;
use planish_checkpoint::{Dialect, Mode, Run};
use planish_format::{Encoder, FloatMode, FloatType, Packing, Rule, Searcher};

use crate::{Allocation, ChosenCodes, Error, InputSquares, Remedy};

/// The dialect that a packed checkpoint is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// `quantization_config.quant_method = "metal"` of transformers.
    Metal,
    /// `quantization` of MLX and mlx-lm.
    Mlx,
}

impl Target {
    /// The dialect's name in files and cards.
    pub fn name(self) -> &'static str {
        match self {
            Target::Metal => "metal",
            Target::Mlx => "mlx",
        }
    }

    /// The bits that a code may have in the dialect.
    pub fn widths(self) -> &'static [u32] {
        match self {
            Target::Metal => &Dialect::METAL_WIDTHS,
            Target::Mlx => &Packing::WIDTHS,
        }
    }

    /// What a person calls the dialect.
    pub(crate) fn description(self) -> &'static str {
        match self {
            Target::Metal => "transformers `MetalConfig`",
            Target::Mlx => "MLX",
        }
    }

    /// The library that loads the dialect, as the Hub calls it.
    pub(crate) fn library(self) -> &'static str {
        match self {
            Target::Metal => "transformers",
            Target::Mlx => "mlx",
        }
    }

    /// The rule by which the dialect's own library chooses codes.
    pub fn default_encoder(self) -> Encoder {
        match self {
            Target::Metal => Encoder::Transformers,
            Target::Mlx => Encoder::MlxMetal,
        }
    }
}

/// How scales, biases and codes are chosen.
#[derive(Clone, Debug)]
pub enum Method {
    /// As a peer does, bit for bit.
    Peer(Encoder),
    /// By the search of planish-format, which needs no data and whose error is never above that of a peer.
    Search,
    /// By the same search, with the error of each column weighted by the mean square of its input. Weights whose inputs are not known
    /// are as with [`Method::Search`].
    Weighted(Arc<InputSquares>),
    /// As was chosen before; by the search where nothing was.
    Chosen(Arc<dyn ChosenCodes>),
}

impl Method {
    /// What a card says of it.
    pub fn description(&self) -> String {
        let words = match self {
            Method::Peer(Encoder::Transformers) => "the rule of transformers",
            Method::Peer(Encoder::MlxMetal) => "the rule of MLX on Metal and CUDA",
            Method::Peer(Encoder::MlxCpu) => "the rule of MLX on the CPU",
            Method::Search => "search (least weighted error, without data)",
            Method::Weighted(inputs) => {
                let text = inputs.description();
                return format!("search (least error weighted by the layers' inputs, over {text})");
            }
            Method::Chosen(codes) => return codes.description(),
        };
        words.to_owned()
    }

    /// What planish-format does for it.
    pub(crate) fn rule<'a>(&self, importance: Option<&'a [f32]>) -> Rule<'a> {
        match self {
            Method::Peer(encoder) => Rule::Encoder(*encoder),
            Method::Search | Method::Weighted(_) | Method::Chosen(_) => Rule::Search { importance },
        }
    }
}

/// An exception for the layers whose module name a regular expression finds (anywhere in the name).
#[derive(Clone, Debug)]
pub struct Override {
    /// Searched for in the module name, e.g. `mlp\.down_proj$`.
    pub pattern: Regex,
    /// Bits and group of these layers; `None` where they stay plain.
    pub packing: Option<Packing>,
}

impl Override {
    /// Reads `REGEX=BITS`, `REGEX=BITS,GROUP` or `REGEX=none`; the group defaults to that of `packing`.
    ///
    /// # Errors
    /// [`Error::Override`] and [`Error::Pattern`] name the part that is wrong.
    pub fn parse(text: &str, packing: Packing) -> Result<Override, Error> {
        let wrong = |what: &str| Error::Override {
            text: text.to_owned(),
            what: what.to_owned(),
        };
        let (pattern, choice) = text.rsplit_once('=').ok_or_else(|| wrong("there is no '='"))?;
        let regex = Regex::new(pattern).map_err(|error| Error::Pattern {
            pattern: pattern.to_owned(),
            what: error.to_string(),
        })?;
        if choice == "none" {
            return Ok(Override {
                pattern: regex,
                packing: None,
            });
        }
        let (bits, group) = choice
            .split_once(',')
            .map_or((choice, None), |(bits, group)| (bits, Some(group)));
        let bits = bits.trim().parse().map_err(|_| wrong("the bits are not a number"))?;
        let group = match group {
            Some(group) => group.trim().parse().map_err(|_| wrong("the group is not a number"))?,
            None => packing.group(),
        };
        let packing = Packing::checked(bits, group).map_err(|error| wrong(&error.to_string()))?;
        Ok(Override {
            pattern: regex,
            packing: Some(packing),
        })
    }
}

/// A quantization as a user asks for it.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The dialect whose rules choose the layers.
    pub target: Target,
    /// Bits and group of every layer without an exception.
    pub packing: Packing,
    /// Codes that are floats, in the layers whose bits and group are those of `packing`; the method does not choose them. Only MLX can
    /// hold them. See [`Recipe::of_floats`].
    pub floats: Option<FloatMode>,
    /// How codes are chosen.
    pub method: Method,
    /// Patterns of modules that stay plain, matched as transformers matches `modules_to_not_convert`.
    pub exclude: Vec<String>,
    /// Also pack the output head, which the metal rules leave plain.
    pub include_head: bool,
    /// Also pack the routed experts, which the metal rules leave plain; the MLX rules pack them anyway.
    pub include_experts: bool,
    /// Exceptions by layer; the first that matches counts. Only MLX can hold them.
    pub overrides: Vec<Override>,
    /// Bits and group by name, for layers without an exception. Only MLX can hold them.
    pub allocation: Option<Arc<Allocation>>,
    /// The type of the plain tensors, scales and biases; `None` keeps that of each weight.
    pub dtype: Option<FloatType>,
    /// Quantize weights that hold NaN or infinity instead of refusing them.
    pub allow_non_finite: bool,
    /// What searches for codes in place of the processor. The bytes are the same.
    pub searcher: Option<Arc<dyn Searcher>>,
}

impl Recipe {
    /// `packing` for every layer that `target`'s own library would pack, its codes chosen by search.
    pub fn new(target: Target, packing: Packing) -> Recipe {
        Recipe {
            target,
            packing,
            floats: None,
            method: Method::Search,
            exclude: Vec::new(),
            include_head: false,
            include_experts: false,
            overrides: Vec::new(),
            allocation: None,
            dtype: None,
            allow_non_finite: false,
            searcher: None,
        }
    }

    /// Codes that are floats of a mode of MLX, chosen as MLX does it.
    ///
    /// # Panics
    /// Never: the modes have bits and groups that a packing can have.
    pub fn of_floats(mode: FloatMode) -> Recipe {
        let packing = Packing::new(mode.bits(), mode.group());
        Recipe {
            floats: Some(mode),
            ..Recipe::new(
                Target::Mlx,
                packing.unwrap_or_else(|| unreachable!("a packing of {mode:?}")),
            )
        }
    }

    /// What a card says of how codes were chosen.
    pub(crate) fn rule(&self) -> String {
        match self.floats {
            Some(mode) => format!("the rule of MLX for {}", Mode::of_floats(mode).name()),
            None => self.method.description(),
        }
    }

    /// A recipe for weights that are packed while they are loaded, where the dialect is no end in itself and time matters: the rules
    /// of metal for layers and codes, or those of MLX where metal cannot hold what is asked.
    ///
    /// # Errors
    /// As [`Recipe::check`], where MLX cannot hold it either.
    pub fn for_loading(packing: Packing, exclude: Vec<String>, overrides: Vec<Override>) -> Result<Recipe, Error> {
        let holds = Target::Metal.widths().contains(&packing.bits()) && overrides.is_empty();
        let target = if holds { Target::Metal } else { Target::Mlx };
        let recipe = Recipe {
            method: Method::Peer(target.default_encoder()),
            exclude,
            overrides,
            ..Recipe::new(target, packing)
        };
        recipe.check()?;
        Ok(recipe)
    }

    /// Says every choice that the written bytes depend on, beyond the list of tensors.
    pub(crate) fn identify(&self, say: &mut dyn FnMut(&str, String)) {
        let packing = |packing: Packing| format!("{} bits in groups of {}", packing.bits(), packing.group());
        let exception = |exception: &Override| {
            let packing = exception.packing.map_or("none".to_owned(), packing);
            format!("{}={packing}", exception.pattern.as_str())
        };
        let overrides: Vec<String> = self.overrides.iter().map(exception).collect();
        say("the format", self.target.name().to_owned());
        say("the packing", packing(self.packing));
        say("the method", self.rule());
        say("the list of plain modules", format!("{:?}", self.exclude));
        say("packing of the head", self.include_head.to_string());
        say("packing of the experts", self.include_experts.to_string());
        say("the list of exceptions", format!("{overrides:?}"));
        if let Some(allocation) = &self.allocation {
            say("the bits of each layer", allocation.identity());
        }
        say("the type of plain tensors", format!("{:?}", self.dtype));
        say("leave for NaN", self.allow_non_finite.to_string());
        match &self.method {
            Method::Peer(_) | Method::Search => {}
            Method::Weighted(inputs) => say("the checksum of the layers' inputs", inputs.checksum()),
            Method::Chosen(codes) => say("the checksum of the chosen codes", codes.checksum()),
        }
    }

    /// Every choice that the written bytes depend on, for whoever keeps what belongs to one recipe only.
    pub fn identity(&self) -> Run {
        let mut identity = Run::new();
        self.identify(&mut |what, value| identity.push((what.to_owned(), value)));
        identity
    }

    /// What the target dialect cannot hold is refused here.
    ///
    /// # Errors
    /// [`Error::Inexpressible`] or [`Error::MetalOverrides`].
    pub fn check(&self) -> Result<(), Error> {
        let bits = self.packing.bits();
        if let Some(mode) = self.floats {
            self.check_floats(mode)?;
        }
        match self.target {
            Target::Metal if !self.target.widths().contains(&bits) => Err(Error::inexpressible(
                format!("the metal format holds 2, 4 and 8 bits, not {bits}: choose one of these"),
                Remedy::Dialect(Target::Mlx),
            )),
            Target::Metal if !self.overrides.is_empty() || self.allocation.is_some() => Err(Error::MetalOverrides),
            Target::Mlx => {
                let overrides = self.overrides.iter().map(|exception| exception.packing);
                let allocated = self.allocation.iter().flat_map(|allocation| allocation.layers());
                let packings = overrides.chain(allocated.map(|(_, packing)| *packing));
                let packings = std::iter::once(self.packing).chain(packings.flatten());
                let affine = packings.filter(|&packing| self.floats.is_none() || packing != self.packing);
                affine.map(Packing::group).try_for_each(check_mlx_group)
            }
            Target::Metal => Ok(()),
        }
    }
}

impl Recipe {
    /// What goes with codes that are floats.
    fn check_floats(&self, mode: FloatMode) -> Result<(), Error> {
        let name = Mode::of_floats(mode).name();
        let wrong = |what: &str| Err(Error::inexpressible(format!("{name}: {what}"), None));
        match self.target {
            Target::Metal => Err(Error::inexpressible(
                format!("the metal format has no {name}: its codes are whole numbers"),
                Remedy::Dialect(Target::Mlx),
            )),
            Target::Mlx if (self.packing.bits(), self.packing.group()) != (mode.bits(), mode.group()) => {
                wrong(&format!("has {} bits in groups of {}", mode.bits(), mode.group()))
            }
            Target::Mlx if self.allocation.is_some() => {
                wrong("bits of each layer are for codes that are whole numbers")
            }
            Target::Mlx if self.allow_non_finite => wrong("a group with NaN or infinity has no scale"),
            Target::Mlx => Ok(()),
        }
    }
}

/// MLX has kernels for three groups only.
pub(crate) fn check_mlx_group(group: usize) -> Result<(), Error> {
    if matches!(group, 32 | 64 | 128) {
        return Ok(());
    }
    Err(Error::inexpressible(
        format!("MLX has kernels for groups of 32, 64 and 128, not {group}: choose one of these"),
        Remedy::Dialect(Target::Metal),
    ))
}
