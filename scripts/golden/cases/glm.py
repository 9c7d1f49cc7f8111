"""GLM and GLM 4, Helium: neighbouring values of a head are rotated together."""

import torch

from cases import Case
from cases.small import ODD, SMALL

CASES = {
    "glm": Case("glm", dict(SMALL, head_dim=24, pad_token_id=0)),
    "glm_tied": Case("glm", dict(
        SMALL, head_dim=16, pad_token_id=0, attention_bias=False, tie_word_embeddings=True, rope_parameters=dict(
            rope_type="linear", rope_theta=5000.0, factor=3.0, partial_rotary_factor=1.0))),
    "glm4": Case("glm4", dict(
        ODD, num_attention_heads=2, head_dim=20, pad_token_id=0, num_key_value_heads=1,
        rope_parameters=dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=0.5)), group=8),
    "glm4_tied": Case("glm4", dict(
        SMALL, head_dim=16, pad_token_id=0, attention_bias=False, tie_word_embeddings=True, rope_parameters=dict(
            rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=16,
            partial_rotary_factor=0.25)), tokens=40),
    "helium": Case("helium", dict(SMALL, num_attention_heads=2, num_key_value_heads=2, head_dim=16, rms_norm_eps=0.01)),
    "helium_biases": Case("helium", dict(
        SMALL, head_dim=8, attention_bias=True, mlp_bias=True, tie_word_embeddings=True, rope_parameters=dict(
            rope_type="linear", rope_theta=100000.0, factor=2.0)), stored=torch.float32),
}
