"""Families of the last year and the oldest ones: relatives of DeepSeek, Qwen, Cohere and Gemma, and of the first GPT."""

from cases import Case
from cases.newer import FULL, ONE, SLIDING
from cases.small import NESTED
from cases.wrapped import MROPE, VISION

DENSE = dict(vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1)
FEW = dict(DENSE, head_dim=8)
LATENT = dict(DENSE, num_key_value_heads=2, moe_intermediate_size=8, n_shared_experts=1, n_routed_experts=4, num_experts_per_tok=2,
              kv_lora_rank=8, q_lora_rank=8, qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=8)
INDEXED = dict(LATENT, num_hidden_layers=1, n_group=1, topk_group=1, first_k_dense_replace=0, routed_scaling_factor=1.5, index_topk=40,
               index_head_dim=8, index_n_heads=2)
EXPERTS = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=8)
WINDOWS = dict(sliding_window=6, layer_types=[SLIDING, FULL])
HALF = dict(rope_type="default", rope_theta=5000.0, partial_rotary_factor=0.5)
PROPORTIONAL = dict(rope_type="proportional", rope_theta=5000.0, partial_rotary_factor=0.5)
WHOLE = dict(rope_type="default", rope_theta=1000.0)
# The names that the first families have for sizes are their own.
NAMELESS = dict(NESTED, vocab_size=32)

GEMMA4 = dict(DENSE, num_key_value_heads=2, head_dim=8, global_head_dim=16, num_global_key_value_heads=1, attention_k_eq_v=True, hidden_size_per_layer_input=0,
              final_logit_softcapping=5.0, **WINDOWS, rope_parameters=dict(sliding_attention=WHOLE, full_attention=PROPORTIONAL))
GEMMA4_VISION = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2, head_dim=8,
                     global_head_dim=8, patch_size=4, position_embedding_size=4, pooling_kernel_size=1)

LLAMA4 = dict(vocab_size=48, hidden_size=32, intermediate_size=16, intermediate_size_mlp=48, num_attention_heads=4, num_key_value_heads=2,
              head_dim=8, num_local_experts=4, attention_chunk_size=64, floor_scale=64)

CASES = {
    "llama4": Case("llama4_text", dict(
        LLAMA4, num_hidden_layers=3, num_experts_per_tok=1, no_rope_layers=[1, 0, 1], moe_layers=[0, 2],
        rope_parameters=dict(rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                             original_max_position_embeddings=32))),
    "llama4_two": Case("llama4_text", dict(
        LLAMA4, num_hidden_layers=2, num_experts_per_tok=2, no_rope_layer_interval=2, interleave_moe_layer_step=1, use_qk_norm=False,
        attention_bias=True), group=8),
    "llama4_wrapped": Case("llama4", dict(
        NESTED, text_config=dict(LLAMA4, num_hidden_layers=1, num_experts_per_tok=1), vision_config=dict(
            hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=4,
            vision_output_dim=16, projector_input_dim=16, projector_output_dim=16, pixel_shuffle_ratio=1.0)), group=8, wrapper=True),
    "axk1": Case("axk1", dict(LATENT, n_group=2, topk_group=1, first_k_dense_replace=1, routed_scaling_factor=1.5), group=8),
    "deepseek_v32": Case("deepseek_v32", dict(INDEXED, n_group=2), group=8),
    "glm_moe_dsa": Case("glm_moe_dsa", dict(INDEXED, indexer_types=["full"]), group=8),
    "bitnet": Case("bitnet", {**DENSE, **ONE}, group=8),
    "cohere2_moe": Case("cohere2_moe", {**FEW, **WINDOWS, **dict(
        num_experts=4, intermediate_size=8, num_shared_experts=1, first_k_dense_replace=1, prefix_dense_intermediate_size=16,
        expert_selection_fn="sigmoid", rms_norm_eps=1e-5, layer_types=[FULL, SLIDING])}, group=8),
    "cohere2_moe_layer_norms": Case("cohere2_moe", {**FEW, **ONE, **dict(
        num_experts=4, intermediate_size=8, num_shared_experts=1, shared_expert_combination_strategy="sum", layer_types=[FULL],
        sliding_window=6)}, group=8),
    "flint": Case("flint", {**FEW, **WINDOWS, **EXPERTS, **dict(
        shared_expert_intermediate_size=8, mlp_only_layers=[0])}, group=8),
    "kolibri1": Case("kolibri1", {**FEW, **WINDOWS, **EXPERTS, **dict(
        intermediate_size=None, shared_expert_intermediate_size=8)}, group=8),
    "laguna": Case("laguna", {**FEW, **WINDOWS, **EXPERTS, **dict(
        shared_expert_intermediate_size=8, num_attention_heads_per_layer=[1, 3], moe_routed_scaling_factor=1.5,
        mlp_layer_types=["dense", "sparse"], rope_parameters=dict(sliding_attention=WHOLE, full_attention=HALF))}, group=8),
    "laguna_gates": Case("laguna", {**FEW, **ONE, **dict(
        gating="per-element", mlp_layer_types=["dense"], layer_types=[FULL], tie_word_embeddings=True)}, group=8),
    "mimo_v2_flash": Case("mimo_v2_flash", {**FEW, **WINDOWS, **dict(
        v_head_dim=16, n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=8, mlp_layer_types=["dense", "sparse"],
        attention_value_scale=0.7, num_key_value_heads=1, n_group=1, topk_group=1,
        rope_parameters=dict(sliding_attention=HALF, full_attention=dict(HALF, rope_theta=900.0)))}, group=8),
    "nanochat": Case("nanochat", {**DENSE, **ONE, **dict(final_logit_softcapping=5.0)}, group=8),
    "nemotron_h": Case("nemotron_h", dict(
        vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=None, head_dim=8, ssm_state_size=8, num_attention_heads=2, num_key_value_heads=1, mamba_num_heads=2,
        mamba_head_dim=8, n_groups=1, chunk_size=8, n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=8,
        moe_shared_expert_intermediate_size=8, routed_scaling_factor=1.5,
        layers_block_type=["linear_attention", "full_attention", "moe", "mlp"]), group=8),
    "lfm3": Case("lfm3", dict(
        pad_token_id=0,
        vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=1, head_dim=8, conv_L_cache=3, sliding_window=6,
        layer_types=["conv", FULL, SLIDING], rope_parameters=dict(sliding_attention=WHOLE, full_attention=PROPORTIONAL)), group=8),
    "aria_text": Case("aria_text", {**DENSE, **ONE, **dict(
        intermediate_size=8, moe_num_experts=4, moe_topk=2, moe_num_shared_experts=1)}, group=8),
    "cohere_compass_text": Case("cohere_compass_text", {**DENSE, **WINDOWS, **dict(
        logit_scale=0.5, rope_parameters=dict(sliding_attention=WHOLE, full_attention=None))}, group=8),
    "gemma4_text": Case("gemma4_text", GEMMA4, group=8),
    "gemma4_text_experts": Case("gemma4_text", dict(
        GEMMA4, attention_k_eq_v=False, enable_moe_block=True, num_experts=4, top_k_experts=2, moe_intermediate_size=8),
        published=dict(per_layer_config=None, global_head_dim=16), group=8),
    "gemma4_text_shared": Case("gemma4_text", dict(
        GEMMA4, attention_k_eq_v=False, num_hidden_layers=4, layer_types=[SLIDING, FULL, SLIDING, FULL], num_kv_shared_layers=2,
        use_double_wide_mlp=True, hidden_size_per_layer_input=8, vocab_size_per_layer_input=32), group=8),
    "gemma4": Case("gemma4", dict(
        NESTED, text_config=dict(GEMMA4, num_hidden_layers=1, layer_types=[FULL], intermediate_size=16), audio_config=None,
        vision_config=GEMMA4_VISION), group=8, wrapper=True),
    "gemma4_unified_text": Case("gemma4_unified_text", {
        key: value for key, value in GEMMA4.items() if key != "hidden_size_per_layer_input"}, group=8),
    "gemma4_unified": Case("gemma4_unified", dict(
        NESTED, text_config=dict({key: value for key, value in GEMMA4.items() if key != "hidden_size_per_layer_input"},
                                 num_hidden_layers=1, layer_types=[FULL]), audio_config=None, vision_config=None), group=8, wrapper=True),
    "aria": Case("aria", dict(
        NESTED, text_config=dict(DENSE, num_hidden_layers=1, intermediate_size=8, moe_num_experts=4, moe_topk=2, moe_num_shared_experts=1),
        projector_patch_to_query_dict={"4": 2}, vision_config=dict(
            hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=4, patch_size=2)),
        group=8, wrapper=True),
    "qwen3_vl_moe": Case("qwen3_vl_moe", dict(
        NESTED, text_config=dict(DENSE, num_hidden_layers=1, head_dim=8, rope_parameters=MROPE, **dict(EXPERTS, num_experts_per_tok=3)), tie_word_embeddings=False,
        vision_config=dict(VISION, out_hidden_size=16, num_position_embeddings=4, deepstack_visual_indexes=[])), group=8),
    "phi4_multimodal": Case("phi4_multimodal", dict(
        DENSE, num_hidden_layers=1, pad_token_id=0, vision_config=dict(
            hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=4, crop_size=4, patch_size=2),
        audio_config=dict(
            hidden_size=16, intermediate_size=16, num_blocks=1, num_attention_heads=2, ext_pw_out_channel=16, nemo_conv_channels=8,
            depthwise_separable_out_channel=16, input_size=8, bias_max_distance=2)), group=8),
    "bloom": Case("bloom", dict(NAMELESS, hidden_size=24, n_layer=1, n_head=3), group=8),
    "mpt": Case("mpt", dict(NAMELESS, d_model=24, n_layers=1, n_heads=3, max_seq_len=64), group=8),
    "gpt_neox_japanese": Case("gpt_neox_japanese", dict(
        DENSE, intermediate_size=None, num_key_value_heads=None, intermediate_multiple_size=1, rope_parameters=HALF), group=8),
    "openai_gpt": Case("openai-gpt", dict(NAMELESS, n_positions=64, n_embd=16, n_layer=2, n_head=2), group=8, whole=True),
    "biogpt": Case("biogpt", {**DENSE, **ONE, **dict(num_key_value_heads=None)}, group=8),
    "xglm": Case("xglm", dict(
        NAMELESS, max_position_embeddings=64, d_model=16, ffn_dim=16, num_layers=1, attention_heads=2), group=8),
    "ctrl": Case("ctrl", dict(NAMELESS, n_positions=64, n_embd=24, dff=16, n_layer=1, n_head=3), group=8),
    "dbrx": Case("dbrx", dict(
        NAMELESS, d_model=16, n_heads=2, n_layers=1, max_seq_len=64, attn_config=dict(clip_qkv=0.5, kv_n_heads=1, rope_theta=10000.0),
        ffn_config=dict(ffn_hidden_size=8, moe_num_experts=4, moe_top_k=2, hidden_size=16)), group=8),
    "olmo_clipped": Case("olmo", {**DENSE, **ONE, **dict(clip_qkv=0.5)}, group=8),
}
