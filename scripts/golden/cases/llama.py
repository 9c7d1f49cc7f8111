"""Llama and the families nearest to it."""

import torch

from cases import Case

CASES = {
    "llama_tied": Case("llama", dict(tie_word_embeddings=True)),
    "llama_llama3_biases": Case("llama", dict(
        attention_bias=True, mlp_bias=True, rope_parameters=dict(
            rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
            original_max_position_embeddings=32)), stored=torch.float32),
    "llama_yarn": Case("llama", dict(head_dim=24, max_position_embeddings=64, rope_parameters=dict(
        rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=16)), tokens=40),
    "llama_linear_odd": Case("llama", dict(
        vocab_size=101, hidden_size=56, intermediate_size=72, num_attention_heads=4, num_key_value_heads=1,
        rope_parameters=dict(rope_type="linear", rope_theta=10000.0, factor=2.0)), tokens=70, group=8, stored=torch.float16),
    "llama_dynamic": Case("llama", dict(max_position_embeddings=16, rope_parameters=dict(
        rope_type="dynamic", rope_theta=10000.0, factor=3.0))),
    "mistral_window": Case("mistral", dict(sliding_window=7), tokens=90),
    "qwen2_windows": Case("qwen2", dict(
        use_sliding_window=True, sliding_window=9, max_window_layers=1, tie_word_embeddings=True)),
    "qwen3": Case("qwen3", dict(head_dim=32, num_key_value_heads=1)),
}
