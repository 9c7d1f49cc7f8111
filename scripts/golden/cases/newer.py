"""Families of 2025 and 2026 that are translations of older ones, dense and with latent attention."""

from cases import Case
from cases.experts import LATENT, TINY, YARN

SLIDING, FULL = "sliding_attention", "full_attention"
ONE = dict(num_hidden_layers=1)
DENSE = dict(TINY, vocab_size=48, intermediate_size=32)
MOE = dict(LATENT, vocab_size=48, intermediate_size=32, n_routed_experts=4, num_experts_per_tok=2)
LATENT_DENSE = {key: value for key, value in MOE.items() if key not in ("moe_intermediate_size", "n_shared_experts", "n_routed_experts", "num_experts_per_tok")}
FEW = dict(TINY, vocab_size=48, head_dim=8, intermediate_size=24)

CASES = {
    "internlm3": Case("internlm3", dict(DENSE, head_dim=16, num_hidden_layers=1, attention_bias=True, mlp_bias=True),
                      published=dict(architectures=["InternLM3ForCausalLM"], qkv_bias=True, bias=True), group=8),
    "iquestcoder": Case("iquestcoder", dict(DENSE, head_dim=16, num_hidden_layers=1),
                        published=dict(architectures=["IQuestCoderForCausalLM"]), group=8),
    "cwm": Case("cwm", dict(DENSE, head_dim=16, sliding_window=6, layer_types=[FULL, SLIDING], rope_parameters=dict(
        rope_type="llama3", rope_theta=10000.0, factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0,
        original_max_position_embeddings=32)), group=8),
    "jais2": Case("jais2", DENSE, group=8),
    "olmo": Case("olmo", dict(DENSE, attention_bias=True, tie_word_embeddings=True), group=8),
    "solar_open": Case("solar_open", {**FEW, **dict(
        ONE, intermediate_size=None, moe_intermediate_size=16, n_routed_experts=4, num_experts_per_tok=3, attention_bias=True,
        routed_scaling_factor=1.5)}, group=8),
    "glm4_moe_lite": Case("glm4_moe_lite", dict(
        MOE, hidden_size=40, num_attention_heads=3, num_key_value_heads=3, v_head_dim=16, q_lora_rank=24, routed_scaling_factor=1.8), group=8),
    "youtu": Case("youtu", dict(LATENT_DENSE, q_lora_rank=24, num_hidden_layers=1), group=8),
    "minicpm3": Case("minicpm3", dict(
        LATENT_DENSE, q_lora_rank=24, v_head_dim=None, scale_emb=3, scale_depth=1.2, dim_model_base=16), group=8),
    "mistral4": Case("mistral4", dict(
        MOE, n_group=2, topk_group=1, first_k_dense_replace=1, q_lora_rank=24, rope_parameters=dict(
            YARN, mscale=1.0, mscale_all_dim=1.0, beta_fast=32.0, beta_slow=1.0, llama_4_scaling_beta=0.3)), tokens=40, group=8),
    "minimax_m2": Case("minimax_m2", {**FEW, **dict(
        ONE, intermediate_size=16, num_local_experts=5, num_experts_per_tok=2, rope_parameters=dict(
            rope_type="default", rope_theta=10000.0, partial_rotary_factor=0.5))}, group=8),
    "afmoe": Case("afmoe", {**FEW, **dict(
        moe_intermediate_size=16, num_experts=4, num_experts_per_tok=2, num_shared_experts=1,
        num_dense_layers=1, sliding_window=6, layer_types=[SLIDING, FULL], mup_enabled=True, route_scale=1.3)}, group=8),
    "hunyuan_v1_moe": Case("hunyuan_v1_moe", {**FEW, **dict(
        ONE, num_experts=4, moe_topk=2)}, group=8),
    "exaone_moe": Case("exaone_moe", {**FEW, **dict(
        moe_intermediate_size=16, num_experts=4, num_experts_per_tok=2, sliding_window=6,
        layer_types=[SLIDING, FULL])}, group=8),
    "granitemoeshared": Case("granitemoeshared", {**FEW, **dict(
        ONE, num_local_experts=3, num_experts_per_tok=2, shared_intermediate_size=32, embedding_multiplier=3.0,
        logits_scaling=2.0, residual_multiplier=0.5, attention_multiplier=0.25)}, group=8),
}
