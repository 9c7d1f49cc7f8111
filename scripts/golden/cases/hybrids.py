"""Families with layers that remember a state of fixed size: short convolutions, gated delta nets, Mamba 1 and 2."""

import torch

from cases import Case

MAMBA = dict(vocab_size=64, hidden_size=32, intermediate_size=48, mamba_n_heads=8, mamba_d_head=8, mamba_expand=2,
             mamba_d_state=8, mamba_n_groups=2, mamba_chunk_size=8)
# A family without attention.
NO_ATTENTION = dict.fromkeys(["intermediate_size", "num_attention_heads", "num_key_value_heads", "max_position_embeddings"])
QWEN35 = dict(vocab_size=48, hidden_size=32, intermediate_size=32, head_dim=16, linear_key_head_dim=8, linear_value_head_dim=8,
              max_position_embeddings=128)
DELTA = dict(vocab_size=64, hidden_size=32, head_dim=16, linear_num_key_heads=2, linear_num_value_heads=4,
             linear_key_head_dim=8, linear_value_head_dim=8, moe_intermediate_size=16, shared_expert_intermediate_size=32,
             num_experts_per_tok=2, max_position_embeddings=128)

CASES = {
    "lfm2": Case("lfm2", dict(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=3, block_auto_adjust_ff_dim=False,
        layer_types=["conv", "full_attention", "conv"])),
    "lfm2_biases": Case("lfm2", dict(
        vocab_size=67, hidden_size=40, intermediate_size=70, num_key_value_heads=1, layer_types=["full_attention", "conv"],
        conv_bias=True, conv_L_cache=4, block_multiple_of=8, block_ffn_dim_multiplier=1.3, tie_word_embeddings=False,
        rope_parameters=dict(rope_type="linear", rope_theta=10000.0, factor=2.0)),
        group=8, stored=torch.float16),
    "qwen3_next": Case("qwen3_next", dict(
        **DELTA, num_experts=4, layer_types=["linear_attention", "full_attention"]), tokens=80),
    "qwen3_next_dense": Case("qwen3_next", {
        **DELTA, "num_experts": 0, "head_dim": 24, "num_key_value_heads": 1,
        "linear_num_value_heads": 2, "linear_key_head_dim": 20, "linear_value_head_dim": 24, "linear_conv_kernel_dim": 3,
        "attention_bias": True, "tie_word_embeddings": True, "layer_types": ["full_attention", "linear_attention"],
        "rope_parameters": dict(rope_type="default", rope_theta=5000.0, partial_rotary_factor=0.5)}, tokens=70, spread=0.3),
    "granitemoehybrid": Case("granitemoehybrid", dict(
        **MAMBA, num_hidden_layers=3, num_local_experts=0, shared_intermediate_size=48, mamba_proj_bias=True,
        tie_word_embeddings=True, embedding_multiplier=6.0, residual_multiplier=0.3, attention_multiplier=0.15,
        logits_scaling=4.0, layer_types=["linear_attention", "full_attention", "linear_attention"])),
    "granitemoehybrid_experts": Case("granitemoehybrid", {
        **MAMBA, "intermediate_size": 16, "num_local_experts": 4, "shared_intermediate_size": 32,
        "mamba_conv_bias": False, "attention_bias": True, "position_embedding_type": "rope", "attention_multiplier": 0.2,
        "layer_types": ["full_attention", "linear_attention"]}),
    "falcon_h1": Case("falcon_h1", dict(
        **MAMBA, mamba_d_ssm=64, mamba_rms_norm=True, mamba_norm_before_gate=False, tie_word_embeddings=True,
        embedding_multiplier=5.5, lm_head_multiplier=0.25, key_multiplier=0.4, attention_in_multiplier=1.5,
        attention_out_multiplier=0.7, ssm_in_multiplier=1.25, ssm_out_multiplier=0.6, mlp_multipliers=[0.8, 0.3],
        ssm_multipliers=[0.7, 0.5, 1.5, 0.6, 0.4])),
    "falcon_h1_biases": Case("falcon_h1", {
        **MAMBA, "vocab_size": 67, "mamba_d_ssm": 40, "mamba_d_head": 5, "mamba_n_groups": 1, "mamba_d_conv": 2,
        "mamba_rms_norm": False, "mamba_proj_bias": True, "projectors_bias": True, "attention_bias": True,
        "mlp_bias": True, "attention_out_multiplier": 0.5}, group=8, stored=torch.float16),
    "bamba": Case("bamba", dict(
        **{**MAMBA, "mamba_n_groups": 1}, num_attention_heads=4, num_key_value_heads=2, attn_layer_indices=[0]), whole=True),
    "mamba2": Case("mamba2", dict(
        NO_ATTENTION, vocab_size=64, hidden_size=32, num_heads=8, head_dim=8, state_size=8, n_groups=2, chunk_size=8, use_bias=True)),
    "mamba": Case("mamba", dict(NO_ATTENTION, vocab_size=64, hidden_size=32, state_size=8, time_step_rank=16)),
    "mamba_biases": Case("mamba", dict(
        NO_ATTENTION, vocab_size=67, hidden_size=40, state_size=5, time_step_rank=8, conv_kernel=3, use_bias=True, use_conv_bias=False,
        tie_word_embeddings=False), group=8, stored=torch.float16),
    "falcon_mamba": Case("falcon_mamba", dict(
        NO_ATTENTION, vocab_size=64, hidden_size=32, state_size=8, time_step_rank=16, mixer_rms_eps=1e-3)),
    "jamba": Case("jamba", dict(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=4, attn_layer_period=3, attn_layer_offset=1,
        expert_layer_period=2, expert_layer_offset=1, num_experts=4, num_experts_per_tok=2, mamba_d_state=8, mamba_dt_rank=16)),
    "jamba_dense": Case("jamba", dict(
        vocab_size=67, hidden_size=40, intermediate_size=72, num_key_value_heads=1, attn_layer_period=2, attn_layer_offset=0,
        num_experts=1, mamba_d_state=6, mamba_dt_rank=8, mamba_d_conv=3, mamba_expand=1, mamba_conv_bias=False, mamba_proj_bias=True,
        tie_word_embeddings=True), group=8, stored=torch.float16),
    "lfm2_moe": Case("lfm2_moe", dict(
        vocab_size=64, hidden_size=32, intermediate_size=40, moe_intermediate_size=16, num_experts=4, num_experts_per_tok=2,
        num_dense_layers=1, layer_types=["conv", "full_attention"]), group=8),
    "qwen3_5": Case("qwen3_5_text", dict(
        QWEN35, linear_num_key_heads=2, linear_num_value_heads=4, layer_types=["linear_attention", "full_attention"]), tokens=70),
    "qwen3_5_moe": Case("qwen3_5_moe_text", dict(
        QWEN35, intermediate_size=None, linear_num_key_heads=2, linear_num_value_heads=2, moe_intermediate_size=16,
        shared_expert_intermediate_size=16, num_experts=3, num_experts_per_tok=2,
        layer_types=["full_attention", "linear_attention"])),
    "falcon_h1_norm_first": Case("falcon_h1", dict(
        **MAMBA, mamba_d_ssm=64, mamba_rms_norm=True, mamba_norm_before_gate=True, mamba_conv_bias=False,
        num_hidden_layers=1)),
    "kimi_linear": Case("kimi_linear", dict(
        vocab_size=16, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
        layer_types=["linear_attention", "full_attention"], mlp_layer_types=["dense", "sparse"], linear_head_dim=8, linear_num_heads=2,
        linear_conv_kernel_dim=3, kv_lora_rank=8, qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=8, moe_intermediate_size=8,
        num_local_experts=4, num_experts_per_tok=2, n_shared_experts=1, pad_token_id=None, rms_norm_eps=1e-5), tokens=20, group=8),
}
