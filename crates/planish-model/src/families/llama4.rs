//! Llama4ForCausalLM: rotated layers that see a chunk of positions, among them layers without positions that see all; experts whose
//! inputs are weighed, and a shared one. It runs as long as all positions are of the first chunk, where rotated layers see all, too, and
//! scores do not grow yet.

use planish_ops::{RopePairs, Routing, Scoring};
use serde_json::json;

use super::Family;
use super::common_experts::{Paths, Routed};
use super::parts::{Sizes, activation, epsilon};
use crate::config::Config;
use crate::rope::read_rope;
use crate::{
    Architecture, AttentionSpec, BlockSpec, BranchSpec, Error, ExpertsSpec, FusedRows, FusedStack, LayerSpec,
    LinearSpec, NormSpec, PositionLimit, RopeSpec, StackPlace,
};

pub(super) const FAMILY: Family = Family {
    architecture: "Llama4ForCausalLM",
    model_type: "llama4_text",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({
        "vocab_size": 202048, "hidden_size": 5120, "num_hidden_layers": 48, "num_attention_heads": 40, "head_dim": 128,
        "num_key_value_heads": 8, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
        "intermediate_size": 8192, "intermediate_size_mlp": 16384, "num_local_experts": 16, "num_experts_per_tok": 1,
        "interleave_moe_layer_step": 1, "no_rope_layer_interval": 4, "attention_chunk_size": 8192, "floor_scale": 8192
    });
    let config = config.with_defaults(&defaults);
    let sizes = Sizes::read(config, 128)?;
    let dense = Sizes {
        intermediate: config.count("intermediate_size_mlp")?,
        ..sizes
    };
    let epsilon = epsilon(config, "rms_norm_eps", 1e-5)?;
    let activation = activation(config, "hidden_act", "silu")?;
    let bias = config.flag("attention_bias", false)?;
    let head_norms = config.flag("use_qk_norm", true)?;
    let routing = Routing {
        chosen: config.count("num_experts_per_tok")?,
        scoring: Scoring::SigmoidOfChosen,
        groups: None,
        normalize: None,
        scale: 1.0,
    };
    let routed = Routed::read(config, "intermediate_size", "num_local_experts", routing)?;
    let (rotates, routes) = (
        rotated_layers(config, sizes.layers)?,
        routed_layers(config, sizes.layers)?,
    );
    let head_norm = NormSpec {
        weight: false,
        ..NormSpec::rms("", sizes.head_dim, epsilon)
    };
    let layer = |index: usize| {
        let path = |part: &str| format!("model.layers.{index}.{part}");
        let norm = |part: &str| NormSpec::rms(path(part), sizes.hidden, epsilon);
        // A rotation changes no length: the norms may stand before it.
        let head_norm = (head_norms && rotates[index]).then(|| head_norm.clone());
        let attention = AttentionSpec {
            rope: rotates[index].then_some(0),
            query_norm: head_norm.clone(),
            key_norm: head_norm,
            ..sizes.attention(&path("self_attn"), ["q_proj", "k_proj", "v_proj", "o_proj"], bias, bias)
        };
        let names = ["gate_proj", "up_proj", "down_proj"];
        let feed_forward: BlockSpec = match routes[index] {
            true => experts(&routed, &sizes, path("feed_forward")).into(),
            false => dense.gated(&path("feed_forward"), names, false, activation).into(),
        };
        Ok(LayerSpec::sequential([
            BranchSpec::new(norm("input_layernorm"), attention.into()),
            BranchSpec::new(norm("post_attention_layernorm"), feed_forward),
        ]))
    };
    let final_norm = NormSpec::rms("model.norm", sizes.hidden, epsilon);
    let head = sizes.head(config, "lm_head", false)?;
    let mut architecture = sizes.decoder(FAMILY.architecture, "model.embed_tokens", layer, final_norm, head)?;
    architecture.ropes = vec![RopeSpec {
        pairs: RopePairs::Neighbours,
        ..read_rope(config, sizes.head_dim)?
    }];
    architecture.limit = limit(config, &rotates)?;
    if let Some(limit) = architecture.limit {
        architecture.context = architecture.context.min(limit.positions);
    }
    Ok(architecture)
}

/// Where the first chunk ends, or scores of layers without positions begin to grow.
fn limit(config: Config<'_>, rotates: &[bool]) -> Result<Option<PositionLimit>, Error> {
    let chunk = match rotates.contains(&true) {
        true => config.optional_count("attention_chunk_size")?,
        false => None,
    };
    let chunk = chunk.map(|positions| PositionLimit {
        positions,
        key: "attention_chunk_size",
    });
    let grows = rotates.contains(&false) && config.flag("attn_temperature_tuning", true)?;
    let growth = PositionLimit {
        positions: config.count("floor_scale")? - 1,
        key: "floor_scale",
    };
    if grows && growth.positions == 0 {
        return Err(config.error(growth.key, "at least 2"));
    }
    let limits = chunk.into_iter().chain(grows.then_some(growth));
    Ok(limits.min_by_key(|limit| limit.positions))
}

/// By a flag for each layer, or all but every `no_rope_layer_interval`-th.
fn rotated_layers(config: Config<'_>, layers: usize) -> Result<Vec<bool>, Error> {
    const KEY: &str = "no_rope_layers";
    match config.numbers(KEY)? {
        Some(flags) if flags.len() >= layers => Ok(flags.iter().map(|&flag| flag != 0.0).collect()),
        Some(flags) if !flags.is_empty() => Err(config.error(KEY, "a number for every layer")),
        _ => {
            let interval = config.count("no_rope_layer_interval")?;
            Ok((1..=layers).map(|layer| !layer.is_multiple_of(interval)).collect())
        }
    }
}

/// By a list of layers, or every `interleave_moe_layer_step`-th.
fn routed_layers(config: Config<'_>, layers: usize) -> Result<Vec<bool>, Error> {
    match config.numbers("moe_layers")? {
        Some(listed) => Ok((0..layers).map(|layer| listed.contains(&(layer as f64))).collect()),
        None => {
            let step = config.count("interleave_moe_layer_step")?;
            Ok((1..=layers).map(|layer| layer.is_multiple_of(step)).collect())
        }
    }
}

/// Gate and up stand one after the other in one tensor, columns before rows; MLX has one for each.
fn experts(routed: &Routed, sizes: &Sizes, path: String) -> ExpertsSpec {
    let router = LinearSpec::new(format!("{path}.router"), routed.experts, routed.hidden);
    let shared = routed.shared(sizes, &format!("{path}.shared_expert"), sizes.intermediate, false);
    let paths = Paths {
        hub: path.clone(),
        names: ["gate_proj", "up_proj", "down_proj"],
        module: path.clone(),
    };
    let mut experts = ExpertsSpec {
        router: vec![router],
        weighs_inputs: true,
        shared: Some(shared),
        ..routed.at(&paths)
    };
    let both = |start| FusedStack {
        name: format!("{path}.experts.gate_up_proj"),
        total: 2 * routed.intermediate,
        rows: FusedRows::From(start),
    };
    let down = FusedStack::whole(format!("{path}.experts.down_proj"), routed.hidden);
    let gate = experts.gate.as_mut().map(|gate| (gate, both(0)));
    let others = [(&mut experts.up, both(routed.intermediate)), (&mut experts.down, down)];
    for (stack, fused) in gate.into_iter().chain(others) {
        stack.places.pop();
        stack.places.push(StackPlace::Columns(fused));
    }
    experts
}
