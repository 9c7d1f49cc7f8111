"""How many bits mlx-lm's recipes of mixed widths give each layer, for models of several shapes and depths.

Writes crates/planish-quantize/tests/golden/mixes.json. For each model: its config.json; `tensors`, the names and shapes of its
checkpoint (experts one by one, as on the Hub); `mixes`, by recipe the bits of every layer that mlx-lm packed. Weights are zeros:
only names and shapes matter. Made with mlx-lm 0.32.2; run: python scripts/golden/mixes.py
"""

import importlib
import json
import pathlib

import mlx_lm
from mlx.utils import tree_flatten
from mlx_lm.convert import QUANT_RECIPES, mixed_quant_predicate_builder
from mlx_lm.utils import quantize_model

GROUP = 32
TARGET = pathlib.Path(__file__).parents[2] / "crates/planish-quantize/tests/golden/mixes.json"
SMALL = dict(vocab_size=96, hidden_size=64, intermediate_size=96, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=64, rms_norm_eps=1e-6, rope_theta=10000.0, tie_word_embeddings=False)
LATENT = dict(q_lora_rank=32, kv_lora_rank=32, qk_nope_head_dim=16, qk_rope_head_dim=16, v_head_dim=16)
YARN = dict(type="yarn", factor=2.0, original_max_position_embeddings=32, mscale=1.0, mscale_all_dim=1.0)
EXPERTS = dict(num_experts_per_tok=2, moe_intermediate_size=32)
MODELS = {
    "llama of 3 layers": dict(SMALL, model_type="llama", num_hidden_layers=3),
    "llama of 13 layers, tied": dict(SMALL, model_type="llama", num_hidden_layers=13, tie_word_embeddings=True),
    "qwen2 of 28 layers": dict(SMALL, model_type="qwen2", num_hidden_layers=28),
    "qwen3 of 8 layers whose down_proj the group does not divide": dict(
        SMALL, model_type="qwen3", num_hidden_layers=8, head_dim=16, intermediate_size=80),
    "phi3 of 17 layers": dict(SMALL, model_type="phi3", num_hidden_layers=17),
    "gemma2 of 9 layers": dict(
        SMALL, model_type="gemma2", num_hidden_layers=9, head_dim=16, attn_logit_softcapping=50.0,
        final_logit_softcapping=30.0, query_pre_attn_scalar=16.0, tie_word_embeddings=True),
    "qwen3_moe of 6 layers": dict(
        SMALL, **EXPERTS, model_type="qwen3_moe", num_hidden_layers=6, head_dim=16, num_experts=4, decoder_sparse_step=1,
        mlp_only_layers=[0], norm_topk_prob=True),
    "deepseek_v2 of 10 layers": dict(
        SMALL, **EXPERTS, **LATENT, model_type="deepseek_v2", num_hidden_layers=10, num_key_value_heads=4, n_shared_experts=1,
        n_routed_experts=4, routed_scaling_factor=1.0, topk_method="gready", n_group=1, topk_group=1, moe_layer_freq=1,
        first_k_dense_replace=1, attention_bias=False, rope_scaling=YARN),
}


def build(config):
    module = importlib.import_module(f"mlx_lm.models.{config['model_type']}")
    return module.Model(module.ModelArgs.from_dict(config))


def on_the_hub(name, shape):
    """Stacks of experts by their names on the Hub."""
    if ".switch_mlp." not in name:
        return {name: shape}
    return {name.replace("switch_mlp", f"experts.{expert}"): shape[1:] for expert in range(shape[0])}


def row(label, config):
    print(label, flush=True)
    tensors = {}
    for name, value in tree_flatten(build(config).parameters()):
        tensors |= on_the_hub(name, list(value.shape))
    mixes = {}
    for recipe in QUANT_RECIPES:
        model = build(config)
        predicate = mixed_quant_predicate_builder(recipe, model, GROUP)
        _, quantized = quantize_model(model, config, GROUP, 4, quant_predicate=predicate)
        packed = {name.removesuffix(".scales") for name, _ in tree_flatten(model.parameters()) if name.endswith(".scales")}
        choice = quantized["quantization"]
        assert all(choice[name]["group_size"] == GROUP for name in packed)
        mixes[recipe] = {name: choice[name]["bits"] for name in sorted(packed)}
    return dict(label=label, config=config, tensors=tensors, mixes=mixes)


def main():
    rows = ",\n".join(json.dumps(row(label, config)) for label, config in MODELS.items())
    versions = json.dumps({"mlx-lm": mlx_lm.__version__})
    TARGET.write_text(f'{{"versions": {versions}, "group": {GROUP}, "models": [\n{rows}\n]}}\n')


main()
