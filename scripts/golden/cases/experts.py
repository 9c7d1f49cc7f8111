"""Families with routed experts, and those with latent attention."""

import torch

from cases import Case

TINY = dict(vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
YARN = dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=16)
LATENT = {**TINY, **dict(num_key_value_heads=4, intermediate_size=48, moe_intermediate_size=16, n_shared_experts=1,
                         kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=12)}

CASES = {
    "mixtral": Case("mixtral", {**TINY, **dict(
        intermediate_size=24, num_local_experts=4, num_experts_per_tok=2, sliding_window=9)}, group=8, module_layout=True),
    "qwen2_moe": Case("qwen2_moe", {**TINY, **dict(
        num_hidden_layers=3, intermediate_size=40, moe_intermediate_size=16, shared_expert_intermediate_size=24, num_experts=6,
        num_experts_per_tok=3, decoder_sparse_step=2, use_sliding_window=True, sliding_window=9, max_window_layers=1)}, group=8),
    "qwen2_moe_normalized": Case("qwen2_moe", {**TINY, **dict(
        intermediate_size=40, moe_intermediate_size=16, shared_expert_intermediate_size=24, num_experts=6,
        num_experts_per_tok=2, norm_topk_prob=True, mlp_only_layers=[0], tie_word_embeddings=True)}, group=8),
    "qwen3_moe": Case("qwen3_moe", {**TINY, **dict(
        head_dim=16, intermediate_size=40, moe_intermediate_size=16, num_experts=5, num_experts_per_tok=3, norm_topk_prob=True)},
        tokens=60, group=8, module_layout=True),
    "olmoe": Case("olmoe", {**TINY, **dict(intermediate_size=16, num_experts=6, num_experts_per_tok=4, num_key_value_heads=1)}),
    "phimoe": Case("phimoe", {**TINY, **dict(
        intermediate_size=24, num_local_experts=4, attention_bias=True, lm_head_bias=True, router_jitter_noise=0.3)}, group=8,
        module_layout=True),
    "granitemoe": Case("granitemoe", {**TINY, **dict(
        intermediate_size=24, num_local_experts=4, num_experts_per_tok=2, embedding_multiplier=3.0, logits_scaling=2.0,
        residual_multiplier=0.5, attention_multiplier=0.25, tie_word_embeddings=True)}, group=8),
    "gpt_oss": Case("gpt_oss", {**TINY, **dict(
        head_dim=8, intermediate_size=24, num_local_experts=4, num_experts_per_tok=3, sliding_window=9, swiglu_limit=1.5,
        rope_parameters={**YARN, **dict(truncate=False)})}, tokens=40, group=8),
    "glm4_moe": Case("glm4_moe", {**TINY, **dict(
        head_dim=16, intermediate_size=40, moe_intermediate_size=16, n_routed_experts=6, num_experts_per_tok=3, n_group=1,
        topk_group=1, first_k_dense_replace=1, routed_scaling_factor=1.5, use_qk_norm=True, attention_bias=True,
        num_mtp_layers=0)}, group=8),
    "ernie4_5_moe": Case("ernie4_5_moe", {**TINY, **dict(
        num_hidden_layers=3, intermediate_size=40, moe_intermediate_size=16, moe_num_experts=6, moe_k=3,
        moe_num_shared_experts=2, moe_layer_end_index=1, use_bias=True, tie_word_embeddings=False)}, group=8),
    "dots1": Case("dots1", {**TINY, **dict(
        intermediate_size=40, moe_intermediate_size=16, n_routed_experts=6, num_experts_per_tok=2, n_shared_experts=2,
        first_k_dense_replace=1, norm_topk_prob=True, sliding_window=9, max_window_layers=1, attention_bias=True)}, group=8),
    "deepseek_v2": Case("deepseek_v2", {**LATENT, **dict(
        n_routed_experts=6, num_experts_per_tok=2, first_k_dense_replace=1, q_lora_rank=None, routed_scaling_factor=1.5,
        rope_parameters={**YARN, **dict(mscale=0.7, mscale_all_dim=0.8)})}, tokens=40, group=8),
    "deepseek_v2_groups": Case("deepseek_v2", {**LATENT, **dict(
        n_routed_experts=8, num_experts_per_tok=3, n_group=4, topk_group=2, topk_method="group_limited_greedy",
        q_lora_rank=24, attention_bias=True, mlp_bias=True)}, group=8),
    "deepseek_v3": Case("deepseek_v3", {**LATENT, **dict(
        n_routed_experts=8, num_experts_per_tok=3, n_group=4, topk_group=2, first_k_dense_replace=1, q_lora_rank=24,
        num_mtp_layers=0, rope_parameters={**YARN, **dict(mscale=1.0, mscale_all_dim=1.0)})}, tokens=40, group=8, module_layout=True),
    "deepseek_v3_halves": Case("deepseek_v3", {**LATENT, **dict(
        num_hidden_layers=1, n_routed_experts=4, num_experts_per_tok=2, n_group=1, topk_group=1, first_k_dense_replace=0,
        q_lora_rank=None, rope_interleave=False, norm_topk_prob=False, num_mtp_layers=0, attention_bias=True)},
        group=8, stored=torch.float32),
}

# What mlx-lm converts to stacks of packed experts (mlx_models.py), and what it asks of config.json beside transformers' keys.
PACKABLE = dict(vocab_size=64, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                intermediate_size=32, moe_intermediate_size=32)
MLX_CASES = {
    "mixtral": (Case("mixtral", {**PACKABLE, **dict(num_local_experts=5, num_experts_per_tok=2)}), dict(rope_theta=1e6)),
    "qwen2_moe": (Case("qwen2_moe", {**PACKABLE, **dict(
        shared_expert_intermediate_size=64, num_experts=5, num_experts_per_tok=2)}), dict(rope_theta=10000.0)),
    "granitemoe": (Case("granitemoe", {**PACKABLE, **dict(
        intermediate_size=64, num_local_experts=4, num_experts_per_tok=2, embedding_multiplier=3.0, logits_scaling=2.0, residual_multiplier=0.5,
        attention_multiplier=0.25, tie_word_embeddings=True)}), dict(rope_theta=10000.0)),
    "gpt_oss": (Case("gpt_oss", {**PACKABLE, **dict(
        head_dim=16, num_local_experts=5, num_experts_per_tok=3, sliding_window=9,
        rope_parameters=dict(rope_type="default", rope_theta=150000.0))}), dict(rope_theta=150000)),
    "dots1": (Case("dots1", {**PACKABLE, **dict(
        n_routed_experts=5, num_experts_per_tok=2, n_shared_experts=1, first_k_dense_replace=1, norm_topk_prob=True,
        sliding_window=None)}), dict(rope_theta=10000.0)),
    "deepseek_v3": (Case("deepseek_v3", {**PACKABLE, **dict(
        num_key_value_heads=4, n_routed_experts=8, num_experts_per_tok=3, n_group=4, topk_group=2, n_shared_experts=1,
        first_k_dense_replace=1, q_lora_rank=32, kv_lora_rank=64, qk_nope_head_dim=32, qk_rope_head_dim=4, v_head_dim=8,
        num_mtp_layers=0)}), dict(rope_theta=10000.0)),
}
