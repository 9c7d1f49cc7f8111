"""OLMo 2 and 3, EXAONE 4: norms after the blocks."""

from cases import Case
from cases.small import ODD, SMALL

SLIDING, FULL = "sliding_attention", "full_attention"
ROPES = dict(full_attention=dict(rope_type="yarn", rope_theta=500000.0, factor=4.0, original_max_position_embeddings=16,
                                 attention_factor=1.2, beta_fast=32, beta_slow=1),
             sliding_attention=dict(rope_type="default", rope_theta=10000.0))

CASES = {
    "olmo2": Case("olmo2", dict(SMALL, attention_bias=True)),
    "olmo2_tied": Case("olmo2", dict(
        ODD, num_key_value_heads=None, tie_word_embeddings=True,
        rope_parameters=dict(rope_type="linear", rope_theta=10000.0, factor=2.0)), group=8),
    "olmo3": Case("olmo3", dict(
        SMALL, intermediate_size=32, num_hidden_layers=4, sliding_window=6, rope_parameters=ROPES), tokens=40),
    "olmo3_tied": Case("olmo3", dict(SMALL, num_key_value_heads=4, sliding_window=9, layer_types=[FULL, SLIDING],
                                     tie_word_embeddings=True, attention_bias=True)),
    "exaone4": Case("exaone4", dict(
        SMALL, num_hidden_layers=3, sliding_window=6, sliding_window_pattern=3, head_dim=16, num_key_value_heads=1)),
    "exaone4_no_window": Case("exaone4", dict(
        SMALL, sliding_window=None, layer_types=[FULL, FULL], tie_word_embeddings=True, rope_parameters=dict(
            rope_type="llama3", rope_theta=1000000.0, factor=16.0, low_freq_factor=1.0, high_freq_factor=4.0,
            original_max_position_embeddings=32))),
}
