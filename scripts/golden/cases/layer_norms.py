"""Families with layer norms: one or two norms a layer, parallel or one after another, fused queries, keys and values."""

import torch

from cases import Case

# GPT-2 and Falcon spell these keys in their own way.
GPT2 = dict(hidden_size=None, intermediate_size=None, num_hidden_layers=None, num_attention_heads=None,
            num_key_value_heads=None, max_position_embeddings=None, vocab_size=64, n_embd=24, n_layer=2, n_head=4,
            n_positions=48)
GPTJ = dict(GPT2, n_embd=32)
FALCON = dict(intermediate_size=None, num_key_value_heads=None, vocab_size=64, ffn_hidden_size=48)
OPT = dict(intermediate_size=None, num_key_value_heads=None, vocab_size=64, ffn_dim=64)
FEW = dict(vocab_size=64, intermediate_size=64)
WIDE = dict(vocab_size=64, hidden_size=32, intermediate_size=80, num_attention_heads=2, num_key_value_heads=1)  # heads of 16
ODD = dict(vocab_size=67, hidden_size=40, intermediate_size=72)

CASES = {
    "phi": Case("phi", WIDE),
    "phi_head_norms": Case("phi", dict(
        ODD, qk_layernorm=True, hidden_act="gelu", rope_parameters=dict(
            rope_type="linear", rope_theta=10000.0, factor=2.0, partial_rotary_factor=0.45)), group=8),
    "starcoder2": Case("starcoder2", dict(FEW, sliding_window=7), tokens=40),
    "starcoder2_plain": Case("starcoder2", dict(ODD, use_bias=False, tie_word_embeddings=False, hidden_act="gelu"), group=8),
    "stablelm": Case("stablelm", dict(WIDE, use_qkv_bias=True)),
    "stablelm_parallel": Case("stablelm", dict(
        FEW, use_parallel_residual=True, qk_layernorm=True, tie_word_embeddings=True,
        rope_parameters=dict(rope_type="default", rope_theta=500.0, partial_rotary_factor=0.5))),
    "stablelm_one_key_head": Case("stablelm", dict(
        FEW, hidden_size=32, intermediate_size=32, num_key_value_heads=1, num_hidden_layers=1, qk_layernorm=True,
        tie_word_embeddings=True)),
    "gpt_neox": Case("gpt_neox", dict(WIDE, num_key_value_heads=None)),
    "gpt_neox_sequential": Case("gpt_neox", dict(
        ODD, num_key_value_heads=None, use_parallel_residual=False, attention_bias=False, tie_word_embeddings=True,
        hidden_act="gelu_new", rope_parameters=dict(
            rope_type="linear", rope_theta=700.0, factor=2.0, partial_rotary_factor=1.0)), group=8),
    "gptj": Case("gptj", dict(GPTJ, n_layer=1, rotary_dim=4), group=8),
    "codegen": Case("codegen", dict(GPTJ, n_layer=1, rotary_dim=6), group=8),
    "persimmon": Case("persimmon", dict(WIDE, num_key_value_heads=None, num_hidden_layers=1)),
    "gpt2": Case("gpt2", GPT2, group=8),
    "gpt2_scaled": Case("gpt2", dict(
        GPT2, vocab_size=67, n_embd=24, n_inner=40, n_head=3, scale_attn_by_inverse_layer_idx=True,
        scale_attn_weights=False, tie_word_embeddings=False, activation_function="gelu"), group=8, stored=torch.float16),
    "falcon_multi_query": Case("falcon", FALCON),
    "falcon_groups": Case("falcon", dict(
        FALCON, new_decoder_architecture=True, num_kv_heads=2, bias=True, tie_word_embeddings=False)),
    "falcon_groups_one_norm": Case("falcon", dict(
        FALCON, vocab_size=67, num_attention_heads=6, new_decoder_architecture=True, num_kv_heads=3,
        num_ln_in_parallel_attn=1, rope_parameters=dict(rope_type="default", rope_theta=500042.0)), group=8),
    "falcon_alibi": Case("falcon", dict(FALCON, alibi=True, multi_query=False, parallel_attn=False, bias=True)),
    "falcon_alibi_rounded": Case("falcon", dict(FALCON, num_attention_heads=12, alibi=True)),  # slopes that bf16 rounds
    "opt": Case("opt", OPT),
    "opt_norm_after": Case("opt", dict(OPT, do_layer_norm_before=False, word_embed_proj_dim=32)),
    "opt_no_biases": Case("opt", dict(
        OPT, vocab_size=67, hidden_size=40, ffn_dim=72, enable_bias=False, layer_norm_elementwise_affine=False,
        activation_function="gelu", tie_word_embeddings=False, word_embed_proj_dim=24), group=8),
    "nemotron": Case("nemotron", FEW),
    "nemotron_biases": Case("nemotron", dict(
        ODD, head_dim=18, attention_bias=True, mlp_bias=True, tie_word_embeddings=True,
        rope_parameters=dict(rope_type="default", rope_theta=300.0, partial_rotary_factor=1.0)), group=8),
}
