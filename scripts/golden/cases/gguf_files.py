"""Cases without what llama.cpp's architectures have no words for, so that gguf_families.py can write them."""

from cases import Case

CASES = {
    "qwen2_moe_all_layers": Case("qwen2_moe", dict(
        vocab_size=64, hidden_size=32, intermediate_size=40, num_attention_heads=4, num_key_value_heads=2, moe_intermediate_size=16,
        shared_expert_intermediate_size=24, num_experts=4, num_experts_per_tok=2), group=8),
    "mixtral_no_window": Case("mixtral", dict(
        vocab_size=64, hidden_size=32, intermediate_size=24, num_attention_heads=4, num_key_value_heads=2, num_local_experts=3,
        num_experts_per_tok=2, sliding_window=None), group=8),
    "gemma2_by_head": Case("gemma2", dict(
        vocab_size=64, hidden_size=32, intermediate_size=40, num_attention_heads=2, num_key_value_heads=1, head_dim=24,
        query_pre_attn_scalar=24, sliding_window=7, attn_logit_softcapping=1.5, final_logit_softcapping=2.0), group=8),
    "gemma3_six_layers": Case("gemma3_text", dict(
        vocab_size=64, hidden_size=24, intermediate_size=32, num_hidden_layers=6, num_attention_heads=2, num_key_value_heads=1,
        head_dim=16, query_pre_attn_scalar=16, sliding_window=7, rope_parameters=dict(
            full_attention=dict(rope_type="linear", rope_theta=1000000.0, factor=8.0),
            sliding_attention=dict(rope_type="default", rope_theta=10000.0))), group=8),
    "olmo3_one_theta": Case("olmo3", dict(
        vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
        sliding_window=6, rope_parameters=dict(
            full_attention=dict(rope_type="yarn", rope_theta=500000.0, factor=4.0, original_max_position_embeddings=16,
                                attention_factor=1.2),
            sliding_attention=dict(rope_type="default", rope_theta=500000.0))), group=8),
    "starcoder2_no_window": Case("starcoder2", dict(
        vocab_size=64, num_attention_heads=4, num_key_value_heads=2, sliding_window=None, tie_word_embeddings=False), group=8),
    "qwen2_untied": Case("qwen2", dict(num_attention_heads=4, num_key_value_heads=1, tie_word_embeddings=False)),
}
