//! Frequencies of the rotary position embedding and their scalings, as transformers' `modeling_rope_utils` computes them:
//! `frequency[i] = theta^(-2i / rotated)` radians per position, changed for longer contexts. Arithmetic is f32 where
//! transformers' is.

use std::f64::consts::PI;

use planish_ops::RopePairs;

use crate::Error;
use crate::config::Config;

/// One position encoding.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeSpec {
    /// Wavelength base.
    pub theta: f64,
    /// Values of a head that are rotated; even.
    pub rotated: usize,
    /// Which values are rotated together.
    pub pairs: RopePairs,
    /// Change for long contexts.
    pub scaling: RopeScaling,
}

/// How frequencies are changed for contexts longer than those of pretraining.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    Default,
    /// All divided by the factor.
    Linear {
        /// The factor.
        factor: f64,
    },
    /// The base grows once the sequence is longer than `context` (dynamic NTK).
    Dynamic {
        /// The factor.
        factor: f64,
        /// Positions that need no change.
        context: usize,
    },
    /// Long wavelengths divided by the factor, short ones kept, a ramp between (Llama 3.1).
    Llama3 {
        /// The factor.
        factor: f64,
        /// Bound of the long wavelengths, in turns over `context`.
        low_frequency: f64,
        /// Bound of the short wavelengths, in turns over `context`.
        high_frequency: f64,
        /// Positions of pretraining.
        context: usize,
    },
    /// As Llama3 with a linear ramp over dimensions, and cosines and sines scaled (Peng et al., 2023).
    Yarn {
        /// The factor.
        factor: f64,
        /// Turns over `context` above which a dimension is kept.
        fast: f64,
        /// Turns over `context` below which a dimension is interpolated.
        slow: f64,
        /// Positions of pretraining.
        context: usize,
        /// Multiplies cosines and sines.
        attention_factor: f64,
        /// Round the ends of the ramp to whole dimensions.
        truncate: bool,
    },
    /// All divided by the factor, and only the first pairs of a head are rotated, by the frequencies of a head that is rotated whole
    /// (Gemma 4).
    Proportional {
        /// The factor.
        factor: f64,
        /// How many.
        pairs: usize,
    },
    /// Every frequency divided by a factor of its own, others once the sequence is longer than `context` (Ding et al., 2024).
    LongRope {
        /// Up to `context` positions. // (rotated / 2)
        short: Vec<f32>,
        /// Beyond. // (rotated / 2)
        long: Vec<f32>,
        /// Positions of pretraining.
        context: usize,
        /// Multiplies cosines and sines.
        attention_factor: f64,
    },
}

impl RopeSpec {
    /// What multiplies cosines and sines.
    pub fn attention_factor(&self) -> f32 {
        match self.scaling {
            RopeScaling::Yarn { attention_factor, .. } | RopeScaling::LongRope { attention_factor, .. } => {
                attention_factor as f32
            }
            _ => 1.0,
        }
    }

    /// Radians per position for a sequence of `length` positions. // (rotated / 2)
    pub fn frequencies(&self, length: usize) -> Vec<f32> {
        match &self.scaling {
            RopeScaling::Default => self.inverse(self.theta),
            &RopeScaling::Linear { factor } => self
                .inverse(self.theta)
                .into_iter()
                .map(|frequency| frequency / factor as f32)
                .collect(),
            &RopeScaling::Dynamic { factor, context } => {
                let stretch = factor * length.max(context) as f64 / context as f64 - (factor - 1.0);
                let rotated = self.rotated as f64;
                self.inverse(self.theta * stretch.powf(rotated / (rotated - 2.0)))
            }
            RopeScaling::Llama3 { .. } => self.inverse(self.theta).into_iter().map(|f| self.llama3(f)).collect(),
            &RopeScaling::Proportional { factor, pairs } => {
                let mut frequencies = self.inverse(self.theta);
                for (pair, frequency) in frequencies.iter_mut().enumerate() {
                    *frequency = if pair < pairs { *frequency / factor as f32 } else { 0.0 };
                }
                frequencies
            }
            RopeScaling::Yarn { .. } => self.yarn(),
            RopeScaling::LongRope {
                short, long, context, ..
            } => {
                let factors = if length > *context { long } else { short };
                let powers = self.powers(self.theta).zip(factors);
                powers.map(|(power, factor)| 1.0 / (factor * power)).collect()
            }
        }
    }

    /// Whether [`RopeSpec::frequencies`] depends on the length.
    pub fn depends_on_length(&self) -> bool {
        matches!(self.scaling, RopeScaling::Dynamic { .. } | RopeScaling::LongRope { .. })
    }

    fn powers(&self, base: f64) -> impl Iterator<Item = f32> {
        let rotated = self.rotated as f32;
        (0..self.rotated / 2).map(move |i| (base as f32).powf((2 * i) as f32 / rotated))
    }

    fn inverse(&self, base: f64) -> Vec<f32> {
        self.powers(base).map(|power| 1.0 / power).collect()
    }

    fn llama3(&self, frequency: f32) -> f32 {
        let RopeScaling::Llama3 {
            factor,
            low_frequency,
            high_frequency,
            context,
        } = self.scaling
        else {
            return frequency;
        };
        let wavelength = (2.0 * PI) as f32 / frequency;
        let context = context as f64;
        if wavelength < (context / high_frequency) as f32 {
            return frequency;
        }
        if wavelength > (context / low_frequency) as f32 {
            return frequency / factor as f32;
        }
        let span = (high_frequency - low_frequency) as f32;
        let smooth = (context as f32 / wavelength - low_frequency as f32) / span;
        (1.0 - smooth) * frequency / factor as f32 + smooth * frequency
    }

    fn yarn(&self) -> Vec<f32> {
        let RopeScaling::Yarn {
            factor,
            fast,
            slow,
            context,
            truncate,
            ..
        } = self.scaling
        else {
            return Vec::new();
        };
        let rotated = self.rotated as f64;
        let dimension = |turns: f64| rotated * (context as f64 / (turns * 2.0 * PI)).ln() / (2.0 * self.theta.ln());
        let (low, high) = (dimension(fast), dimension(slow));
        let (low, high) = if truncate {
            (low.floor(), high.ceil())
        } else {
            (low, high)
        };
        let (low, mut high) = (low.max(0.0), high.min(rotated - 1.0));
        if low == high {
            high += 0.001;
        }
        let ramp = |i: usize| ((i as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0);
        let blend = |(i, power): (usize, f32)| {
            let kept = 1.0 - ramp(i);
            1.0 / (factor as f32 * power) * (1.0 - kept) + 1.0 / power * kept
        };
        self.powers(self.theta).enumerate().map(blend).collect()
    }
}
/// Reads `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling` (before) for heads of `head_dim` values.
pub(crate) fn read_rope(config: Config<'_>, head_dim: usize) -> Result<RopeSpec, Error> {
    let parameters = config.object("rope_scaling")?.or(config.object("rope_parameters")?);
    rope_of(config, parameters, "rope_theta", head_dim, false)
}

/// As [`read_rope`] for heads that are rotated whole, whatever `partial_rotary_factor` says.
pub(crate) fn read_whole_rope(config: Config<'_>, head_dim: usize) -> Result<RopeSpec, Error> {
    let parameters = config.object("rope_scaling")?.or(config.object("rope_parameters")?);
    rope_of(config, parameters, "rope_theta", head_dim, true)
}

/// Reads one position encoding of several: `rope_parameters` has an object for the kind of layer, or the older `theta_key`
/// stands beside a `rope_scaling` that only layers without a window use.
pub(crate) fn read_rope_of_kind(
    config: Config<'_>,
    kind: &'static str,
    theta_key: &'static str,
    head_dim: usize,
) -> Result<RopeSpec, Error> {
    let scaling = config.object("rope_scaling")?.filter(|_| kind == "full_attention");
    let parameters = match config.object("rope_parameters")? {
        Some(kinds) => Some(kinds.object(kind)?.ok_or_else(|| kinds.error(kind, "an object"))?),
        None => scaling,
    };
    rope_of(config, parameters, theta_key, head_dim, false)
}

fn rope_of(
    config: Config<'_>,
    parameters: Option<Config<'_>>,
    theta_key: &str,
    head_dim: usize,
    whole: bool,
) -> Result<RopeSpec, Error> {
    let number = |key: &str| match parameters {
        Some(parameters) => parameters.optional_number(key),
        None => Ok(None),
    };
    let theta = match number("rope_theta")? {
        Some(theta) => theta,
        None => config.optional_number(theta_key)?.unwrap_or(10_000.0),
    };
    // Without scaling most families of transformers rotate whole heads whatever this key says.
    let kind = match parameters {
        Some(parameters) => parameters
            .optional_text("rope_type")?
            .or(parameters.optional_text("type")?),
        None => None,
    };
    let ignored = kind.unwrap_or("default") == "default" && !config.knows("partial_rotary_factor");
    let partial = match number("partial_rotary_factor")? {
        _ if ignored || whole || kind == Some("proportional") => 1.0,
        Some(partial) => partial,
        None => config.optional_number("partial_rotary_factor")?.unwrap_or(1.0),
    };
    let rotated = (head_dim as f64 * partial) as usize;
    if rotated == 0 || rotated % 2 == 1 || rotated > head_dim {
        return Err(config.error("head_dim", "an even number of rotated values in a head"));
    }
    if !(theta.is_finite() && theta > 1.0) {
        return Err(config.error(theta_key, "a number above 1"));
    }
    let scaling = match parameters {
        Some(parameters) => read_scaling(config, parameters, rotated / 2)?,
        None => RopeScaling::Default,
    };
    Ok(RopeSpec {
        theta,
        rotated,
        pairs: RopePairs::Halves,
        scaling,
    })
}

/// `pairs` is how many frequencies there are.
fn read_scaling(config: Config<'_>, scaling: Config<'_>, pairs: usize) -> Result<RopeScaling, Error> {
    let kind_key = if scaling.value("rope_type").is_some() {
        "rope_type"
    } else {
        "type"
    };
    let context = || config.count("max_position_embeddings");
    let original = || match config.optional_count("original_max_position_embeddings")? {
        Some(original) => Ok(original),
        None => scaling
            .optional_count("original_max_position_embeddings")?
            .map_or_else(context, Ok),
    };
    let factor = || match scaling.number("factor")? {
        factor if factor.is_finite() && factor > 0.0 => Ok(factor),
        _ => Err(scaling.error("factor", "a positive number")),
    };
    match scaling.optional_text(kind_key)?.unwrap_or("default") {
        // Positions in time, height and width are one in text.
        "default" | "mrope" => Ok(RopeScaling::Default),
        "linear" => Ok(RopeScaling::Linear { factor: factor()? }),
        "dynamic" => Ok(RopeScaling::Dynamic {
            factor: factor()?,
            context: context()?,
        }),
        "llama3" => Ok(RopeScaling::Llama3 {
            factor: factor()?,
            low_frequency: scaling.number("low_freq_factor")?,
            high_frequency: scaling.number("high_freq_factor")?,
            context: original()?,
        }),
        "yarn" => read_yarn(scaling, context()?, original()?),
        "longrope" | "su" => read_long_rope(scaling, context()?, original()?, pairs),
        "proportional" => Ok(RopeScaling::Proportional {
            factor: match scaling.value("factor") {
                Some(_) => factor()?,
                None => 1.0,
            },
            pairs: match scaling.optional_number("partial_rotary_factor")?.unwrap_or(1.0) {
                partial if partial > 0.0 && partial <= 1.0 => (partial * (2 * pairs) as f64) as usize / 2,
                _ => return Err(scaling.error("partial_rotary_factor", "a part of 1")),
            },
        }),
        _ => Err(scaling.error(
            kind_key,
            "one of default, linear, dynamic, llama3, yarn, longrope, proportional",
        )),
    }
}

fn read_yarn(scaling: Config<'_>, context: usize, original: usize) -> Result<RopeScaling, Error> {
    let factor = scaling
        .optional_number("factor")?
        .unwrap_or(context as f64 / original as f64);
    if !(factor.is_finite() && factor > 0.0) {
        return Err(scaling.error("factor", "a positive number"));
    }
    let or_default = |key: &str, default: f64| {
        Ok::<f64, Error>(
            scaling
                .optional_number(key)?
                .filter(|&value| value != 0.0)
                .unwrap_or(default),
        )
    };
    let scale = |multiplier: f64| {
        if factor <= 1.0 {
            1.0
        } else {
            0.1 * multiplier * factor.ln() + 1.0
        }
    };
    let (all, one) = (or_default("mscale_all_dim", 0.0)?, or_default("mscale", 0.0)?);
    let attention_factor = match scaling.optional_number("attention_factor")? {
        Some(attention_factor) => attention_factor,
        None if all != 0.0 && one != 0.0 => scale(one) / scale(all),
        None => scale(1.0),
    };
    Ok(RopeScaling::Yarn {
        factor,
        fast: or_default("beta_fast", 32.0)?,
        slow: or_default("beta_slow", 1.0)?,
        context: original,
        attention_factor,
        truncate: scaling.flag("truncate", true)?,
    })
}

fn read_long_rope(scaling: Config<'_>, context: usize, original: usize, pairs: usize) -> Result<RopeScaling, Error> {
    let factors = |key| {
        let numbers = scaling.numbers(key)?.filter(|numbers| numbers.len() == pairs);
        let numbers = numbers.ok_or_else(|| scaling.error(key, &format!("a list of {pairs} numbers")))?;
        Ok::<_, Error>(numbers.into_iter().map(|number| number as f32).collect())
    };
    let factor = scaling
        .optional_number("factor")?
        .unwrap_or(context as f64 / original as f64);
    let grown = if factor <= 1.0 {
        1.0
    } else {
        (1.0 + factor.ln() / (original as f64).ln()).sqrt()
    };
    Ok(RopeScaling::LongRope {
        short: factors("short_factor")?,
        long: factors("long_factor")?,
        context: original,
        attention_factor: scaling.optional_number("attention_factor")?.unwrap_or(grown),
    })
}
