"""Cohere and Cohere 2: attention and feed-forward side by side."""

import torch

from cases import Case
from cases.small import ODD, SMALL

CASES = {
    "cohere": Case("cohere", dict(SMALL, logit_scale=0.3)),
    "cohere_head_norms": Case("cohere", dict(
        SMALL, use_qk_norm=True, attention_bias=True, tie_word_embeddings=False, num_key_value_heads=1,
        rope_parameters=dict(rope_type="dynamic", rope_theta=10000.0, factor=2.0), max_position_embeddings=16,
        layer_norm_eps=0.03), stored=torch.float32),
    "cohere2": Case("cohere2", dict(
        SMALL, num_hidden_layers=4, sliding_window=6, logit_scale=0.25, layer_norm_eps=0.02)),
    "cohere2_biases": Case("cohere2", dict(
        ODD, layer_types=["full_attention", "sliding_attention"],
        sliding_window=5, attention_bias=True, tie_word_embeddings=False), group=8, stored=torch.float16),
}
