//! MambaForCausalLM and FalconMambaForCausalLM: layers of Mamba 1 and nothing else; and such a layer, which others share.

use serde_json::json;

use super::Family;
use super::parts::{Sizes, activation, epsilon, linear};
use crate::config::Config;
use crate::{Architecture, BranchSpec, ChannelScanSpec, ConvolutionSpec, Error, LayerSpec, NormSpec};

pub(super) const FAMILY: Family = Family {
    architecture: "MambaForCausalLM",
    model_type: "mamba",
    translate: |config| decoder(config, "MambaForCausalLM", |_| Ok(None)),
};

/// Normalizes what steps are made of, keys and queries, without weights.
pub(super) const FALCON_FAMILY: Family = Family {
    architecture: "FalconMambaForCausalLM",
    model_type: "falcon_mamba",
    translate: |config| {
        decoder(config, "FalconMambaForCausalLM", |config| {
            let norm = NormSpec {
                weight: false,
                ..NormSpec::rms("", 0, epsilon(config, "mixer_rms_eps", 1e-6)?)
            };
            Ok(Some([norm.clone(), norm.clone(), norm]))
        })
    },
};

/// A state has no end; the cache asks for one.
const CONTEXT: usize = 1 << 17;

/// Sizes of a layer of Mamba 1.
pub(super) struct Mamba {
    hidden: usize,
    channels: usize,
    key_dim: usize,
    rank: usize,
    bias: bool,
    convolution: ConvolutionSpec, // without a name
}

/// The words of a family's config.
pub(super) struct Keys {
    pub(super) state: &'static str,
    pub(super) taps: &'static str,
    pub(super) expand: &'static str,
    pub(super) rank: &'static str,
    pub(super) bias: &'static str,
    pub(super) convolution_bias: &'static str,
}

const KEYS: Keys = Keys {
    state: "state_size",
    taps: "conv_kernel",
    expand: "expand",
    rank: "time_step_rank",
    bias: "use_bias",
    convolution_bias: "use_conv_bias",
};

impl Mamba {
    pub(super) fn read(config: Config<'_>, hidden: usize, keys: &Keys) -> Result<Mamba, Error> {
        let count = |key: &str, default: usize| Ok::<_, Error>(config.optional_count(key)?.unwrap_or(default));
        let channels = count(keys.expand, 2)? * hidden;
        let taps = count(keys.taps, 4)?;
        if taps < 2 {
            return Err(config.error(keys.taps, "at least 2"));
        }
        let rank = match config.value(keys.rank).and_then(|value| value.as_str()) {
            Some("auto") => hidden.div_ceil(16),
            _ => count(keys.rank, hidden.div_ceil(16))?,
        };
        Ok(Mamba {
            hidden,
            channels,
            key_dim: count(keys.state, 16)?,
            rank,
            bias: config.flag(keys.bias, false)?,
            convolution: ConvolutionSpec {
                name: String::new(),
                parts: Vec::new(),
                channels,
                taps,
                bias: config.flag(keys.convolution_bias, true)?,
                activation: Some(activation(config, "hidden_act", "silu")?),
                factors: Vec::new(),
            },
        })
    }

    /// A layer; the norms get their sizes here.
    pub(super) fn layer(&self, path: &str, norms: Option<[NormSpec; 3]>) -> ChannelScanSpec {
        let (hidden, channels, key_dim, rank) = (self.hidden, self.channels, self.key_dim, self.rank);
        let name = |part: &str| format!("{path}.{part}");
        let both = linear(name("in_proj"), 2 * channels, hidden, self.bias);
        let of_values = linear(name("x_proj"), rank + 2 * key_dim, channels, false);
        let sized = |norm: NormSpec, size: usize| NormSpec {
            size,
            width: size,
            ..norm
        };
        ChannelScanSpec {
            inputs: both.cut_run(0, channels),
            gate: both.cut_run(channels, channels),
            convolution: ConvolutionSpec {
                name: name("conv1d"),
                parts: Vec::new(),
                ..self.convolution.clone()
            },
            step_inputs: of_values.cut_run(0, rank),
            key: of_values.cut_run(rank, key_dim),
            query: of_values.cut_run(rank + key_dim, key_dim),
            norms: norms.map(|[step, key, query]| [sized(step, rank), sized(key, key_dim), sized(query, key_dim)]),
            steps: linear(name("dt_proj"), channels, rank, false),
            step_bias: name("dt_proj.bias"),
            log_rates: name("A_log"),
            skip: name("D"),
            output: linear(name("out_proj"), hidden, channels, self.bias),
        }
    }
}

fn decoder(
    config: Config<'_>,
    name: &str,
    norms: impl Fn(Config<'_>) -> Result<Option<[NormSpec; 3]>, Error>,
) -> Result<Architecture, Error> {
    let defaults = json!({"hidden_size": 768, "num_hidden_layers": 32, "vocab_size": 50280});
    let config = config.with_defaults(&defaults);
    let hidden = config.count("hidden_size")?;
    let sizes = Sizes {
        hidden,
        vocabulary: config.count("vocab_size")?,
        intermediate: hidden,
        heads: 1,
        kv_heads: 1,
        head_dim: hidden,
        layers: config.layers("num_hidden_layers")?,
        context: CONTEXT,
    };
    let mamba = Mamba::read(config, hidden, &KEYS)?;
    let epsilon = epsilon(config, "layer_norm_epsilon", 1e-5)?;
    let norms = norms(config)?;
    let layer = |index: usize| {
        let path = |part: &str| format!("backbone.layers.{index}.{part}");
        let mixer = mamba.layer(&path("mixer"), norms.clone());
        let norm = NormSpec::rms(path("norm"), hidden, epsilon);
        Ok(LayerSpec::sequential([BranchSpec::new(norm, mixer.into())]))
    };
    let final_norm = NormSpec::rms("backbone.norm_f", hidden, epsilon);
    let head = sizes.head(config, "lm_head", true)?;
    sizes.decoder(name, "backbone.embeddings", layer, final_norm, head)
}
