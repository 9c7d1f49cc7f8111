"""The text parts of multimodal checkpoints: Qwen's and Kimi's. Encoders of images are as small as they can be."""

from cases import Case
from cases.experts import LATENT, TINY
from cases.hybrids import QWEN35
from cases.small import NESTED

VISION = dict(depth=1, hidden_size=16, intermediate_size=16, num_heads=2, patch_size=2, spatial_merge_size=1, temporal_patch_size=1,
              in_channels=1)
DENSE = dict(TINY, vocab_size=48, intermediate_size=32, num_hidden_layers=1)
MROPE = dict(rope_type="default", rope_theta=10000.0, mrope_section=[1, 1, 2])
QWEN35_ROPE = dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=0.25, mrope_section=[1, 1, 0])

CASES = {
    "qwen2_vl": Case("qwen2_vl", dict(
        NESTED, text_config=dict(DENSE, rope_parameters=MROPE), tie_word_embeddings=True,
        vision_config=dict(VISION, embed_dim=16, hidden_size=32, mlp_ratio=1)), group=8),
    "qwen2_5_vl": Case("qwen2_5_vl", dict(
        NESTED, text_config=dict(DENSE, rope_parameters=MROPE), tie_word_embeddings=False,
        vision_config=dict(VISION, out_hidden_size=32, fullatt_block_indexes=[0])), group=8),
    "qwen3_vl": Case("qwen3_vl", dict(
        NESTED, text_config=dict(DENSE, head_dim=8, rope_parameters=MROPE), tie_word_embeddings=True,
        vision_config=dict(VISION, out_hidden_size=32, num_position_embeddings=4, deepstack_visual_indexes=[])), group=8),
    "qwen3_5_wrapped": Case("qwen3_5", dict(
        NESTED, text_config=dict(QWEN35, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=2, linear_num_key_heads=2,
                                 linear_num_value_heads=2, layer_types=["linear_attention", "full_attention"],
                                 rope_parameters=QWEN35_ROPE),
        vision_config=dict(VISION, out_hidden_size=32, num_position_embeddings=4)), group=8, wrapper=True),
    "qwen3_5_moe_wrapped": Case("qwen3_5_moe", dict(
        NESTED, text_config=dict({key: QWEN35[key] for key in QWEN35 if key != "intermediate_size"}, num_attention_heads=4,
                                 num_key_value_heads=2, num_hidden_layers=1, linear_num_key_heads=2, linear_num_value_heads=2,
                                 moe_intermediate_size=16, shared_expert_intermediate_size=16, num_experts=3, num_experts_per_tok=2,
                                 layer_types=["full_attention"], rope_parameters=QWEN35_ROPE),
        vision_config=dict(VISION, out_hidden_size=32, num_position_embeddings=4)), group=8, wrapper=True),
    "kimi_k25": Case("kimi_k25", dict(
        NESTED, text_config=dict(LATENT, model_type="deepseek_v3", vocab_size=48, num_hidden_layers=1, n_routed_experts=4,
                                 num_experts_per_tok=2, n_group=1, topk_group=1, first_k_dense_replace=0, q_lora_rank=24, num_mtp_layers=0),
        tie_word_embeddings=False,
        vision_config=dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, patch_size=2,
                           init_pos_emb_height=2, init_pos_emb_width=2, init_pos_emb_time=1, pos_emb_height=2, pos_emb_width=2)), group=8,
        module_layout=True, plain_module_layout=True, published=dict(architectures=["KimiK25ForConditionalGeneration"])),
}
