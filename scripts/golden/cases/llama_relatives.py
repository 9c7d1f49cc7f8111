"""Families that differ from Llama in one or two places: fused layers, another activation, another rotation."""

import torch

from cases import Case

ODD = dict(vocab_size=67, hidden_size=40, intermediate_size=72)
FEW = dict(vocab_size=64, intermediate_size=64)


def long_rope(original):
    """Short and long factors for 8 rotated values of 12, partial_rotary_factor 0.7."""
    return dict(FEW, pad_token_id=0, max_position_embeddings=256, original_max_position_embeddings=original,
                rope_parameters=dict(rope_type="longrope", rope_theta=10000.0, partial_rotary_factor=0.7,
                                    short_factor=[1.0, 1.25, 1.5, 2.5], long_factor=[1.0, 3.0, 9.0, 27.0]))


CASES = {
    "phi3": Case("phi3", dict(ODD, pad_token_id=0, sliding_window=9), tokens=40, group=8),
    "phi3_short_factors": Case("phi3", dict(tie_word_embeddings=True, **long_rope(32))),
    "phi3_long_factors": Case("phi3", long_rope(8)),
    "phi3_crossing": Case("phi3", long_rope(20)),  # the steps pass from the short factors to the long ones
    "ernie4_5": Case("ernie4_5", dict(FEW, head_dim=16)),
    "ernie4_5_biases": Case("ernie4_5", dict(
        ODD, head_dim=10, use_bias=True, tie_word_embeddings=False), group=8, stored=torch.float16),
    "hunyuan_v1_dense": Case("hunyuan_v1_dense", dict(FEW, head_dim=16, tie_word_embeddings=True, rope_parameters=dict(
        rope_type="dynamic", rope_theta=10000.0, alpha=50.0, factor=1.0))),
    "hunyuan_v1_dense_dynamic": Case("hunyuan_v1_dense", dict(
        ODD, head_dim=14, attention_bias=True, max_position_embeddings=16, rope_parameters=dict(
            rope_type="dynamic", rope_theta=10000.0, factor=3.0)), group=8),
    "seed_oss": Case("seed_oss", dict(FEW, head_dim=16)),
    "seed_oss_biases": Case("seed_oss", dict(
        ODD, head_dim=10, attention_bias=False, attention_out_bias=True, mlp_bias=True, tie_word_embeddings=True,
        rope_parameters=dict(rope_type="linear", rope_theta=10000.0, factor=2.0)), group=8),
    "apertus": Case("apertus", dict(FEW, rope_parameters=dict(
        rope_type="llama3", rope_theta=12000000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
        original_max_position_embeddings=32))),
    "apertus_biases": Case("apertus", dict(
        ODD, attention_bias=True, tie_word_embeddings=True, rope_parameters=dict(rope_type="default", rope_theta=900.0)),
        group=8),
    "arcee": Case("arcee", dict(FEW, rope_parameters=dict(
        rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=16))),
    "arcee_biases": Case("arcee", dict(
        ODD, attention_bias=True, mlp_bias=True, num_key_value_heads=1, tie_word_embeddings=True), group=8),
}
