//! What families with routed experts share: names of weights, routers, shared experts, dense layers between.

use planish_ops::{Activation, ExpertGroups, Routing, Scoring};

use super::parts::{Sizes, activation};
use crate::config::Config;
use crate::{
    Error, ExpertsSpec, FusedRows, FusedStack, LinearSpec, ScoreCorrectionSpec, SharedExpertsSpec, StackPlace,
    StackSpec,
};

/// The routed experts of a family.
#[derive(Clone, Copy)]
pub(super) struct Routed {
    pub(super) hidden: usize,
    /// Values between the products of an expert.
    pub(super) intermediate: usize,
    pub(super) experts: usize,
    pub(super) routing: Routing,
    pub(super) activation: Activation,
}

/// Where a layer's block of experts stands.
pub(super) struct Paths<'a> {
    /// In Hub files and in those of MLX.
    pub(super) hub: String,
    /// Gate, up and down of an expert in Hub files, each below `{hub}.experts.{index}`.
    pub(super) names: [&'a str; 3],
    /// Among the modules of transformers 5.
    pub(super) module: String,
}

impl Paths<'_> {
    /// Most families': the same path everywhere.
    pub(super) fn usual(index: usize) -> Paths<'static> {
        let path = format!("model.layers.{index}.mlp");
        Paths {
            hub: path.clone(),
            names: ["gate_proj", "up_proj", "down_proj"],
            module: path,
        }
    }

    /// Mixtral's.
    pub(super) fn mixtral(index: usize) -> Paths<'static> {
        Paths {
            hub: format!("model.layers.{index}.block_sparse_moe"),
            names: ["w1", "w3", "w2"],
            module: format!("model.layers.{index}.mlp"),
        }
    }
}

impl Routed {
    /// Sizes by these keys.
    pub(super) fn read(
        config: Config<'_>,
        intermediate_key: &str,
        experts_key: &str,
        routing: Routing,
    ) -> Result<Routed, Error> {
        let experts = config.count(experts_key)?;
        if routing.chosen > experts {
            return Err(config.error("num_experts_per_tok", "at most the number of experts"));
        }
        Ok(Routed {
            hidden: config.count("hidden_size")?,
            intermediate: config.count(intermediate_key)?,
            experts,
            routing,
            activation: activation(config, "hidden_act", "silu")?,
        })
    }

    /// The experts of a layer; neither a score_correction nor shared experts.
    pub(super) fn at(&self, paths: &Paths<'_>) -> ExpertsSpec {
        let Paths { hub, names, module } = paths;
        let router = |path: &str| LinearSpec::new(format!("{path}.gate"), self.experts, self.hidden);
        let fused = |rows| {
            let name = format!("{module}.experts.gate_up_proj");
            let total = 2 * self.intermediate;
            FusedStack { name, total, rows }
        };
        let whole = FusedStack::whole(format!("{module}.experts.down_proj"), self.hidden);
        let stack = |name: &str, mlx: &str, rows, cols, fused| StackSpec {
            experts: self.experts,
            rows,
            cols,
            places: vec![
                StackPlace::Each(format!("{hub}.experts.{{}}.{name}")),
                StackPlace::Fused(FusedStack::whole(format!("{hub}.switch_mlp.{mlx}"), rows)),
                StackPlace::Fused(FusedStack::whole(format!("{hub}.experts.{mlx}.weight"), rows)),
                StackPlace::Fused(fused),
            ],
            biases: Vec::new(),
        };
        ExpertsSpec {
            router: vec![router(hub), router(module)],
            router_norm: None,
            factors: None,
            score_correction: None,
            routing: self.routing,
            weighs_inputs: false,
            gate: Some(stack(
                names[0],
                "gate_proj",
                self.intermediate,
                self.hidden,
                fused(FusedRows::From(0)),
            )),
            up: stack(
                names[1],
                "up_proj",
                self.intermediate,
                self.hidden,
                fused(FusedRows::From(self.intermediate)),
            ),
            down: stack(names[2], "down_proj", self.hidden, self.intermediate, whole),
            activation: self.activation,
            shared: None,
        }
    }

    /// The same without gates.
    pub(super) fn ungated_at(&self, paths: &Paths<'_>) -> ExpertsSpec {
        let Paths { hub, names, module } = paths;
        let mut spec = self.at(paths);
        spec.gate = None;
        let stacks = [(&mut spec.up, names[1], "fc1"), (&mut spec.down, names[2], "fc2")];
        for (stack, name, mlx) in stacks {
            stack.places = vec![
                StackPlace::Each(format!("{hub}.experts.{{}}.{name}")),
                StackPlace::Fused(FusedStack::whole(format!("{hub}.switch_mlp.{mlx}"), stack.rows)),
                StackPlace::Fused(FusedStack::whole(format!("{module}.experts.{name}"), stack.rows)),
            ];
        }
        spec
    }

    /// Shared experts with `intermediate` values between their products, without a gate.
    pub(super) fn shared(&self, sizes: &Sizes, path: &str, intermediate: usize, bias: bool) -> SharedExpertsSpec {
        let names = ["gate_proj", "up_proj", "down_proj"];
        let sizes = Sizes { intermediate, ..*sizes };
        SharedExpertsSpec {
            feed_forward: sizes.gated(path, names, bias, self.activation),
            gate: None,
        }
    }
}

/// Experts in the layers that `mlp_layer_types` says, or in all but the first `first_k_dense_replace`; with a correction, and shared
/// ones beside them.
pub(super) struct LateExperts {
    routed: Routed,
    first: usize,
    kinds: Option<Vec<bool>>, // whether a layer has some
    shared: usize,
    shared_name: &'static str,
    corrected: bool,
    bias: bool,
}

impl LateExperts {
    pub(super) fn read(config: Config<'_>, routing: Routing) -> Result<LateExperts, Error> {
        LateExperts::counted(config, routing, ["n_routed_experts", "n_shared_experts"])
    }

    /// The same where these keys say how many experts are chosen from, and how many are shared.
    pub(super) fn counted(config: Config<'_>, routing: Routing, keys: [&str; 2]) -> Result<LateExperts, Error> {
        Ok(LateExperts {
            routed: Routed::read(config, "moe_intermediate_size", keys[0], routing)?,
            first: config.whole("first_k_dense_replace", 0)?,
            kinds: read_kinds(config)?,
            shared: config.whole(keys[1], 0)?,
            shared_name: "shared_experts",
            corrected: matches!(routing.scoring, Scoring::Sigmoid),
            bias: config.flag("mlp_bias", false)?,
        })
    }

    /// With shared experts of this name.
    pub(super) fn with_shared_name(self, shared_name: &'static str) -> LateExperts {
        LateExperts { shared_name, ..self }
    }

    /// Those of a layer that has some.
    pub(super) fn at(&self, sizes: &Sizes, index: usize) -> Option<ExpertsSpec> {
        let sparse = match &self.kinds {
            Some(kinds) => kinds[index],
            None => index >= self.first,
        };
        if !sparse {
            return None;
        }
        let paths = Paths::usual(index);
        let path = &paths.hub;
        let score_correction = ScoreCorrectionSpec {
            names: ["gate.e_score_correction_bias", "e_score_correction_bias"]
                .map(|name| format!("{path}.{name}"))
                .to_vec(),
            required: true,
        };
        let (intermediate, shared) = (
            self.shared * self.routed.intermediate,
            format!("{path}.{}", self.shared_name),
        );
        Some(ExpertsSpec {
            score_correction: self.corrected.then_some(score_correction),
            shared: (intermediate > 0).then(|| self.routed.shared(sizes, &shared, intermediate, self.bias)),
            ..self.routed.at(&paths)
        })
    }
}

/// Which layers have experts by `mlp_layer_types`, if the config has it.
pub(super) fn read_kinds(config: Config<'_>) -> Result<Option<Vec<bool>>, Error> {
    const KEY: &str = "mlp_layer_types";
    let Some(kinds) = config.texts(KEY)? else {
        return Ok(None);
    };
    let fits = kinds.len() >= config.layers("num_hidden_layers")?;
    match fits && kinds.iter().all(|kind| matches!(*kind, "dense" | "sparse")) {
        true => Ok(Some(kinds.into_iter().map(|kind| kind == "sparse").collect())),
        false => Err(config.error(KEY, "dense or sparse for every layer")),
    }
}

/// A softmax over all experts, divided by the sum over the chosen ones where `normalized`.
pub(super) fn softmax_routing(config: Config<'_>, chosen_key: &str, normalized: bool) -> Result<Routing, Error> {
    Ok(Routing {
        chosen: config.count(chosen_key)?,
        scoring: Scoring::Softmax,
        groups: None,
        normalize: normalized.then_some(0.0),
        scale: 1.0,
    })
}

/// What GLM 4, dots and DeepSeek-V3 have in common: logistic scores, groups judged by their best two.
pub(super) fn sigmoid_routing(config: Config<'_>) -> Result<Routing, Error> {
    sigmoid_routing_of(config, "n_routed_experts")
}

/// The same where this key says how many experts are chosen from.
pub(super) fn sigmoid_routing_of(config: Config<'_>, experts_key: &str) -> Result<Routing, Error> {
    let chosen = config.count("num_experts_per_tok")?;
    Ok(Routing {
        chosen,
        scoring: Scoring::Sigmoid,
        groups: read_groups(config, config.count(experts_key)?, chosen, 2)?,
        normalize: config.flag("norm_topk_prob", true)?.then_some(1e-20),
        scale: config.number("routed_scaling_factor")? as f32,
    })
}

/// `n_group` groups of experts, of which the best `topk_group` remain.
pub(super) fn read_groups(
    config: Config<'_>,
    experts: usize,
    chosen: usize,
    best: usize,
) -> Result<Option<ExpertGroups>, Error> {
    let count = config.optional_count("n_group")?.unwrap_or(1);
    let kept = config.optional_count("topk_group")?.unwrap_or(1);
    if count == 1 {
        return Ok(None);
    }
    if !experts.is_multiple_of(count) || experts / count < best {
        return Err(config.error(
            "n_group",
            "a divisor of the number of experts that leaves enough in a group",
        ));
    }
    if kept > count || kept * (experts / count) < chosen {
        return Err(config.error("topk_group", "at most n_group, with enough experts to choose from"));
    }
    Ok(Some(ExpertGroups { count, kept, best }))
}
