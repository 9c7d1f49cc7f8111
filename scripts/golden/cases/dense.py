"""Families one step from Llama: SmolLM 3, Granite, Ministral, Ministral 3 and the text part of Mistral 3."""

import torch

from cases import Case
from cases.small import NESTED, ODD, SMALL

YARN3 = dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=8, beta_fast=32.0,
             beta_slow=1.0, mscale=1.0, mscale_all_dim=1.0, llama_4_scaling_beta=0.4)
TEXT = dict(SMALL, head_dim=16)
VISION = dict(model_type="pixtral", hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
              head_dim=8, image_size=8, patch_size=4)

CASES = {
    "smollm3": Case("smollm3", dict(SMALL, num_hidden_layers=4, pad_token_id=0, rope_parameters=dict(
        rope_type="default", rope_theta=5000.0))),
    "smollm3_windows": Case("smollm3", dict(
        SMALL, num_hidden_layers=3, pad_token_id=0, no_rope_layers=[1, 0, 1], use_sliding_window=True, sliding_window=7,
        attention_bias=True, mlp_bias=True, tie_word_embeddings=False, rope_parameters=dict(
            rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=16)),
        tokens=40, stored=torch.float16),
    "granite": Case("granite", dict(
        SMALL, embedding_multiplier=12, logits_scaling=8.0, residual_multiplier=0.22, attention_multiplier=0.5)),
    "granite_biases": Case("granite", dict(
        ODD, attention_bias=True, mlp_bias=True,
        tie_word_embeddings=True, embedding_multiplier=0.7, attention_multiplier=0.3, residual_multiplier=1.4,
        rope_parameters=dict(rope_type="linear", rope_theta=10000.0, factor=2.0)), group=8, stored=torch.float16),
    "ministral": Case("ministral", dict(
        SMALL, num_hidden_layers=3, head_dim=16, sliding_window=6,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"])),
    "ministral_window": Case("ministral", dict(
        SMALL, head_dim=8, sliding_window=9, tie_word_embeddings=True, max_position_embeddings=16, rope_parameters=dict(
            rope_type="dynamic", rope_theta=10000.0, factor=2.0))),
    "ministral3": Case("ministral3", dict(SMALL, head_dim=16, rope_parameters=YARN3), tokens=45),
    "ministral3_tied": Case("ministral3", dict(
        SMALL, head_dim=16, sliding_window=7, tie_word_embeddings=True, rope_parameters=dict(
            YARN3, original_max_position_embeddings=5, mscale_all_dim=0.5))),
    "mistral3": Case("mistral3", dict(
        NESTED, text_config=dict(TEXT, model_type="mistral", sliding_window=None), vision_config=VISION,
        tie_word_embeddings=False)),
    "mistral3_ministral3": Case("mistral3", dict(
        NESTED, text_config=dict(TEXT, model_type="ministral3", rope_parameters=YARN3, tie_word_embeddings=True),
        vision_config=VISION, tie_word_embeddings=True)),
}
