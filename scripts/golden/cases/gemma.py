"""Gemma, Gemma 2 and Gemma 3, the last also as the text part of the multimodal checkpoint."""

import torch

from cases import Case
from cases.small import NESTED, ODD, SMALL

SLIDING, FULL = "sliding_attention", "full_attention"
GEMMA3 = dict(
    SMALL, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=1, head_dim=24,
    sliding_window=8, query_pre_attn_scalar=20, layer_types=[SLIDING, FULL, SLIDING], rope_parameters=dict(
        full_attention=dict(rope_type="linear", rope_theta=1000000.0, factor=8.0),
        sliding_attention=dict(rope_type="default", rope_theta=10000.0)))

GEMMA3N = dict(
    vocab_size=16, vocab_size_per_layer_input=14, hidden_size=8, intermediate_size=[8, 16], num_hidden_layers=2, num_attention_heads=1,
    num_key_value_heads=1, head_dim=8, sliding_window=6, layer_types=[SLIDING, SLIDING], num_kv_shared_layers=1, laurel_rank=8,
    hidden_size_per_layer_input=8, altup_num_inputs=3, activation_sparsity_pattern=[0.6, 0.0], final_logit_softcapping=5.0)
GEMMA3N_ONE = dict(
    GEMMA3N, num_hidden_layers=1, layer_types=[FULL], num_kv_shared_layers=0, intermediate_size=16, activation_sparsity_pattern=[0.3],
    altup_num_inputs=2)
COEFFICIENTS = ("lm_head", "correction_coefs", "prediction_coefs")

CASES = {
    "gemma": Case("gemma", dict(SMALL, head_dim=20, num_key_value_heads=1), group=8),
    "gemma_untied_biases": Case("gemma", dict(
        SMALL, head_dim=16, attention_bias=True, tie_word_embeddings=False, hidden_act="relu",
        rope_parameters=dict(rope_type="linear", rope_theta=5000.0, factor=2.0)), stored=torch.float16),
    "gemma2_caps": Case("gemma2", dict(
        SMALL, head_dim=24, query_pre_attn_scalar=40, sliding_window=7, attn_logit_softcapping=1.5,
        final_logit_softcapping=2.0)),
    "gemma2_no_caps": Case("gemma2", dict(
        ODD, head_dim=16, attn_logit_softcapping=None, final_logit_softcapping=None, sliding_window=5,
        layer_types=[FULL, SLIDING], attention_bias=True), group=8, stored=torch.float16),
    "gemma3_text": Case("gemma3_text", GEMMA3, tokens=30),
    "gemma3_text_untied": Case("gemma3_text", dict(
        GEMMA3, tie_word_embeddings=False, final_logit_softcapping=3.0, attention_bias=True, head_dim=16,
        num_key_value_heads=2)),
    "gemma3": Case("gemma3", dict(
        NESTED, text_config=GEMMA3, mm_tokens_per_image=4, image_token_index=79, boi_token_index=77, eoi_token_index=78,
        vision_config=dict(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=8,
                           patch_size=4))),
    "gemma3n_text": Case("gemma3n_text", GEMMA3N, tokens=16, group=8, unpacked=COEFFICIENTS),
    "gemma3n": Case("gemma3n", dict(
        NESTED, text_config=dict(GEMMA3N_ONE, altup_active_idx=1, altup_correct_scale=False), audio_config=dict(
            hidden_size=8, conf_num_attention_heads=1, conf_num_hidden_layers=1, input_feat_size=8, sscp_conv_channel_size=[4, 4]),
        vision_config=dict(architecture="test_efficientnet", hidden_size=8)), tokens=16, group=8, wrapper=True, text_only=True,
        unpacked=COEFFICIENTS),
}
