"""Configurations of the tiny models whose layers scripts/golden/layers.py asks about: {group: [Model, ..]}.

Sizes are multiples of 32 so that a group of 32 divides every row, except where a model is there for one that it does not.
"""

from dataclasses import dataclass, field


@dataclass
class Model:
    """`kind` is a model_type, or Class(settings) of mlx-lm's module of that name where transformers has no such model."""
    kind: str
    settings: dict = field(default_factory=dict)
    auto: str = "AutoModelForCausalLM"
    base: dict | None = None
    label: str = ""
    # Keys that mlx-lm asks for and that transformers 5 writes under another name or not at all.
    mlx: dict = field(default_factory=dict)
    # mlx-lm does not read the checkpoint of transformers: its own model of the same config is asked.
    mlx_fresh: bool = False
    mlx_only: bool = False


SMALL = dict(
    vocab_size=96, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, head_dim=16, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2,
)
ROPE = dict(rope_theta=10000.0)
YARN = ROPE | dict(rope_scaling=dict(type="yarn", factor=1.0, mscale_all_dim=0, original_max_position_embeddings=64))
GPT2 = dict(vocab_size=96, n_embd=64, n_layer=2, n_head=4, n_positions=64, n_inner=256, bos_token_id=1, eos_token_id=2)
FALCON = {key: value for key, value in SMALL.items() if key not in ("head_dim", "num_key_value_heads", "intermediate_size")}
MOE = dict(num_local_experts=4, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, decoder_sparse_step=1)
LATENT = dict(
    n_routed_experts=4, n_shared_experts=1, num_experts_per_tok=2, moe_intermediate_size=32, first_k_dense_replace=1,
    q_lora_rank=32, kv_lora_rank=32, qk_nope_head_dim=32, qk_rope_head_dim=32, v_head_dim=32, num_key_value_heads=4, n_group=2,
    topk_group=1, num_local_experts=None, num_experts=None, head_dim=32,
)
WITHOUT_EXPERTS = dict(num_local_experts=None, num_experts=None)
VISION = dict(
    hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, image_size=32, patch_size=8,
)
TEXT = {**SMALL, "model_type": "llama"}

# One layer that looks back a few positions, one that sees all.
TWO_KINDS = dict(layer_types=["sliding_attention", "full_attention"], sliding_window=8)

DENSE = [
    Model("llama", dict(tie_word_embeddings=True), label="llama tied"),
    Model("llama", dict(tie_word_embeddings=False), label="llama untied"),
    Model("llama", dict(tie_word_embeddings=False, attention_bias=True, mlp_bias=True), label="llama with biases"),
    Model("llama", dict(intermediate_size=80, tie_word_embeddings=True),
          label="llama whose down_proj the group does not divide"),
    Model("mistral"),
    Model("ministral", mlx_only=False),
    Model("ministral3", mlx=dict(rope_parameters=dict(rope_theta=10000.0, rope_type="default",
          llama_4_scaling_beta=0.1, original_max_position_embeddings=64))),
    Model("qwen2", mlx=ROPE),
    Model("qwen3", mlx=ROPE),
    Model("gemma"), Model("gemma2"), Model("gemma3_text", TWO_KINDS, mlx=dict(sliding_window_pattern=2)),
    Model("gemma3", dict(text_config={**SMALL, **TWO_KINDS, "sliding_window_pattern": 2}, vision_config={**VISION}, mm_tokens_per_image=4, image_token_index=90),
          auto="AutoModelForImageTextToText", base={}, mlx=dict(vocab_size=96)),
    Model("mistral3", dict(text_config={**SMALL, "model_type": "mistral", "tie_word_embeddings": False}, tie_word_embeddings=False, vision_config={**VISION, "head_dim": 16}),
          auto="AutoModelForImageTextToText", base={}),
    Model("phi"), Model("phi3", mlx=ROPE), Model("smollm3"), Model("olmo2"), Model("olmo3", TWO_KINDS, mlx=ROPE), Model("starcoder2"),
    Model("stablelm", mlx=dict(rope_theta=10000.0, partial_rotary_factor=0.25)),
    Model("granite", mlx=ROPE), Model("cohere"), Model("cohere2", TWO_KINDS, mlx=dict(sliding_window_pattern=2)), Model("glm", dict(rope_parameters=dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=1.0))),
    Model("glm4", mlx=dict(rope_theta=10000.0, partial_rotary_factor=0.5)),
    Model("gpt_neox", dict(intermediate_size=256), mlx=dict(rotary_emb_base=10000, rotary_pct=0.25)),
    Model("gpt2", base=GPT2, mlx=dict(n_ctx=64), mlx_fresh=True),
    Model("falcon", base=FALCON),
    Model("falcon", dict(new_decoder_architecture=True, bias=True, num_kv_heads=2), base=FALCON, label="falcon, new decoder"),
    Model("opt", dict(ffn_dim=128, word_embed_proj_dim=64)),
    Model("opt", dict(ffn_dim=128, word_embed_proj_dim=32), label="opt with projected embeddings"),
    Model("nemotron", mlx=dict(rope_theta=10000.0, partial_rotary_factor=0.5)),
    Model("exaone4", TWO_KINDS, mlx=dict(rope_theta=10000.0, rope_scaling=None, sliding_window=8, sliding_window_pattern="LG")),
    Model("ernie4_5", mlx=ROPE), Model("hunyuan_v1_dense", mlx=ROPE),
    Model("seed_oss", mlx=ROPE), Model("helium", mlx=ROPE), Model("apertus", mlx=ROPE | dict(mlp_bias=False, post_norm=False, qk_norm=True)), Model("arcee"),
    Model("internlm2", mlx_only=True, base={}, settings=dict(
        architectures=["InternLM2ForCausalLM"], model_type="internlm2", hidden_size=64, num_hidden_layers=2, intermediate_size=128, num_attention_heads=4,
        rms_norm_eps=1e-5, vocab_size=96, num_key_value_heads=2, tie_word_embeddings=False)),
    Model("minicpm", mlx_only=True, base={}, settings=dict(
        architectures=["MiniCPMForCausalLM"], model_type="minicpm", hidden_size=64, dim_model_base=64, num_hidden_layers=2, intermediate_size=128,
        num_attention_heads=4, rms_norm_eps=1e-5, vocab_size=96, num_key_value_heads=2, scale_depth=1.4, scale_emb=12.0)),
]

EXPERTS = [
    Model("mixtral", MOE, mlx=dict(rope_theta=10000.0)),
    Model("qwen2_moe", MOE | dict(shared_expert_intermediate_size=64), mlx=ROPE),
    Model("qwen3_moe", MOE | dict(mlp_only_layers=[0]), mlx=dict(rope_theta=10000.0, num_experts=4)),
    Model("olmoe", MOE, mlx=ROPE), Model("phimoe", MOE | dict(attention_bias=True, lm_head_bias=True), mlx=ROPE),
    Model("granitemoe", MOE, mlx=ROPE),
    Model("gpt_oss", MOE | dict(rope_parameters=dict(rope_type="default", rope_theta=10000.0)), mlx=ROPE | dict(rope_scaling=None), mlx_fresh=True),
    Model("deepseek_v2", LATENT, mlx=YARN), Model("deepseek_v3", LATENT, mlx=ROPE),
    Model("deepseek_v2", LATENT | dict(q_lora_rank=None), label="deepseek_v2 without a low rank of queries", mlx=YARN),
    Model("glm4_moe", LATENT, mlx=dict(rope_theta=10000.0, partial_rotary_factor=0.5, rope_scaling=None)),
    Model("ernie4_5_moe", MOE | dict(moe_num_experts=4, moe_k=2, moe_num_shared_experts=1, moe_layer_start_index=1,
          moe_layer_end_index=1, moe_layer_interval=1), mlx=ROPE),
    Model("dots1", LATENT, mlx=ROPE | dict(rope_scaling=None)),
]

MAMBA2 = dict(mamba_n_heads=4, mamba_d_head=32, mamba_d_ssm=128, mamba_d_state=32, mamba_n_groups=1, mamba_expand=2)
GRANITE_HYBRID = ROPE | dict(layer_types=["mamba", "attention"], time_step_limit=[0.0, 1e9])
HYBRIDS = [
    Model("qwen3_next", MOE | dict(
        num_hidden_layers=2, layer_types=["linear_attention", "full_attention"], linear_num_value_heads=4,
        linear_num_key_heads=2, linear_key_head_dim=32, linear_value_head_dim=32, shared_expert_intermediate_size=64,
        full_attention_interval=2), mlx=dict(rope_theta=10000.0, partial_rotary_factor=0.25)),
    Model("lfm2", dict(layer_types=["conv", "full_attention"], block_ff_dim=128, block_auto_adjust_ff_dim=False), mlx=dict(
        block_dim=64, rope_theta=10000.0, block_multiple_of=32, block_ffn_dim_multiplier=1.0)),
    Model("lfm2_moe", MOE | dict(layer_types=["conv", "full_attention"], num_dense_layers=1), mlx=ROPE),
    Model("falcon_h1", MAMBA2 | dict(mamba_d_ssm=128), mlx=ROPE),
    Model("granitemoehybrid", MOE | MAMBA2 | dict(
        layer_types=["mamba", "attention"], shared_intermediate_size=64, position_embedding_type="nope"), mlx=GRANITE_HYBRID),
    Model("granitemoehybrid", MAMBA2 | dict(num_local_experts=0, num_experts_per_tok=0, intermediate_size=64,
        layer_types=["mamba", "attention"], shared_intermediate_size=64, position_embedding_type="rope"), mlx=GRANITE_HYBRID,
        label="granitemoehybrid without experts"),
]

BART = dict(
    vocab_size=96, d_model=64, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4, decoder_attention_heads=4,
    encoder_ffn_dim=128, decoder_ffn_dim=128, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2,
)
ENCODER = {**SMALL, "num_hidden_layers": 1, "type_vocab_size": 2}
OTHERS = [
    Model("bert", auto="AutoModelForMaskedLM", base=ENCODER),
    Model("bert", auto="AutoModelForSequenceClassification", base=ENCODER, label="bert, classes"),
    Model("bert", auto="AutoModelForQuestionAnswering", base=ENCODER, label="bert, answers"),
    Model("roberta", auto="AutoModelForMaskedLM", base=ENCODER),
    Model("xlm-roberta", auto="AutoModelForTokenClassification", base=ENCODER),
    Model("albert", dict(embedding_size=32), auto="AutoModelForMaskedLM", base=ENCODER),
    Model("electra", dict(embedding_size=32), auto="AutoModelForPreTraining", base=ENCODER),
    Model("distilbert", auto="AutoModelForMaskedLM", base=dict(vocab_size=96, dim=64, hidden_dim=128, n_layers=1, n_heads=4)),
    Model("deberta", dict(relative_attention=True, pos_att_type=["c2p", "p2c"]), auto="AutoModelForMaskedLM", base=ENCODER),
    Model("deberta-v2", dict(relative_attention=True, pos_att_type=["c2p", "p2c"], position_buckets=16),
          auto="AutoModelForSequenceClassification", base=ENCODER),
    Model("modernbert", auto="AutoModelForMaskedLM", base=ENCODER),
    Model("xlm", auto="AutoModelForMaskedLM", base=dict(vocab_size=96, emb_dim=64, n_layers=1, n_heads=4)),
    Model("xlnet", auto="AutoModelForCausalLM", base=dict(vocab_size=96, d_model=64, n_layer=1, n_head=4, d_inner=128)),
    Model("funnel", auto="AutoModelForMaskedLM", base=dict(vocab_size=96, d_model=64, n_head=4, d_head=16, d_inner=128,
          block_sizes=[1, 1], num_decoder_layers=1)),
    Model("layoutlm", auto="AutoModelForTokenClassification", base=ENCODER),
    Model("layoutlmv3", dict(coordinate_size=8, shape_size=16, input_size=32, patch_size=8),
          auto="AutoModelForTokenClassification", base=ENCODER),
    Model("t5", auto="AutoModelForSeq2SeqLM", base=dict(vocab_size=96, d_model=64, d_kv=16, d_ff=128, num_layers=1, num_heads=4)),
    Model("mt5", auto="AutoModelForSeq2SeqLM", base=dict(vocab_size=96, d_model=64, d_kv=16, d_ff=128, num_layers=1, num_heads=4)),
    Model("bart", auto="AutoModelForSeq2SeqLM", base=BART),
    Model("pegasus", auto="AutoModelForSeq2SeqLM", base=BART),
    Model("m2m_100", auto="AutoModelForSeq2SeqLM", base=BART),
    Model("whisper", dict(num_mel_bins=32, max_source_positions=32, max_target_positions=32),
          auto="AutoModelForSpeechSeq2Seq", base=BART),
    Model("speech_to_text", dict(input_feat_per_channel=32, conv_channels=64), auto="AutoModelForSpeechSeq2Seq", base=BART),
    Model("wav2vec2", dict(conv_dim=[32] * 2, conv_stride=[2, 2], conv_kernel=[3, 3], num_feat_extract_layers=2,
          num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4), auto="AutoModelForCTC", base=ENCODER),
    Model("hubert", dict(conv_dim=[32] * 2, conv_stride=[2, 2], conv_kernel=[3, 3], num_feat_extract_layers=2,
          num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4), auto="AutoModelForCTC", base=ENCODER),
    Model("wav2vec2", dict(conv_dim=[32] * 2, conv_stride=[2, 2], conv_kernel=[3, 3], num_feat_extract_layers=2,
          num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4), auto="AutoModelForAudioClassification",
          base=ENCODER, label="wav2vec2, classes"),
    Model("audio-spectrogram-transformer", auto="AutoModelForAudioClassification", base=VISION),
    Model("musicgen", auto="MusicgenForConditionalGeneration", base=dict(
        text_encoder=dict(model_type="t5", vocab_size=96, d_model=64, d_kv=16, d_ff=128, num_layers=1, num_heads=4),
        audio_encoder=dict(model_type="encodec", num_filters=4, hidden_size=32, codebook_size=64, codebook_dim=32),
        decoder=dict(vocab_size=96, hidden_size=64, num_hidden_layers=1, num_attention_heads=4, ffn_dim=128))),
    Model("vits", auto="VitsModel", base=dict(vocab_size=38, hidden_size=64, num_hidden_layers=1, ffn_dim=64,
          upsample_initial_channel=32, upsample_rates=[2, 2], upsample_kernel_sizes=[4, 4], flow_size=64,
          spectrogram_bins=9, duration_predictor_filter_channels=64, prior_encoder_num_flows=2)),
    Model("vit", auto="AutoModelForImageClassification", base=VISION),
    Model("deit", auto="DeiTForImageClassification", base=VISION),
    Model("beit", dict(use_relative_position_bias=True), auto="AutoModelForImageClassification", base=VISION),
    Model("dinov2", auto="AutoModelForImageClassification", base=VISION),
    Model("dinov2", dict(use_swiglu_ffn=True), auto="AutoModel", base=VISION, label="dinov2, gated"),
    Model("swin", auto="AutoModelForImageClassification", base=dict(
        image_size=32, patch_size=4, embed_dim=32, depths=[1, 1], num_heads=[2, 4], window_size=4)),
    Model("convnext", auto="AutoModelForImageClassification", base=dict(hidden_sizes=[32, 64], depths=[1, 1], num_stages=2)),
    Model("resnet", auto="AutoModelForImageClassification", base=dict(
        embedding_size=32, hidden_sizes=[32, 64], depths=[1, 1], layer_type="basic")),
    Model("segformer", auto="AutoModelForSemanticSegmentation", base=dict(
        num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[32, 64], patch_sizes=[7, 3], strides=[4, 2],
        num_attention_heads=[1, 2], mlp_ratios=[2, 2], decoder_hidden_size=64)),
    Model("detr", auto="AutoModelForObjectDetection", base=dict(
        use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, backbone_config=dict(
            model_type="resnet", embedding_size=32, hidden_sizes=[32, 64], depths=[1, 1], layer_type="basic",
            out_features=["stage2"]),
        d_model=64, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=128, decoder_ffn_dim=128,
        encoder_attention_heads=4, decoder_attention_heads=4, num_queries=5)),
    Model("sam", auto="SamModel", base=dict(
        vision_config={**VISION, "output_channels": 32, "global_attn_indexes": [0], "window_size": 2, "mlp_dim": 128,
                       "num_hidden_layers": 1},
        prompt_encoder_config=dict(hidden_size=32, image_size=32, patch_size=8, mask_input_channels=4),
        mask_decoder_config=dict(hidden_size=32, mlp_dim=64, num_hidden_layers=1, num_attention_heads=4,
                                 iou_head_hidden_dim=32))),
    Model("clip", auto="CLIPModel", base=dict(
        projection_dim=32, text_config={**ENCODER}, vision_config={**VISION})),
    Model("siglip", auto="SiglipModel", base=dict(text_config={**ENCODER, "projection_size": 64}, vision_config={**VISION})),
    Model("blip", auto="BlipForConditionalGeneration", base=dict(
        text_config={**ENCODER, "encoder_hidden_size": 64}, vision_config={**VISION}, projection_dim=32)),
    Model("llava", auto="AutoModelForImageTextToText", base=dict(text_config=TEXT, vision_config={
        **VISION, "model_type": "clip_vision_model", "projection_dim": 32}, image_token_index=95)),
    Model("qwen2_vl", auto="AutoModelForImageTextToText", base=dict(
        text_config={**SMALL, "rope_parameters": dict(rope_type="default", rope_theta=10000.0, mrope_section=[2, 3, 3])},
        vision_config=dict(depth=1, embed_dim=64, hidden_size=64, num_heads=4, mlp_ratio=2, patch_size=8))),
    Model("paligemma", auto="AutoModelForImageTextToText", base=dict(
        text_config={**SMALL, "model_type": "gemma"}, vision_config={**VISION, "model_type": "siglip_vision_model",
        "vision_use_head": False}, projection_dim=64, image_token_index=95)),
    Model("idefics3", auto="AutoModelForImageTextToText", base=dict(
        text_config=TEXT, vision_config=VISION, scale_factor=2, image_token_id=95)),
    Model("mamba", base=dict(vocab_size=96, hidden_size=64, num_hidden_layers=1, state_size=16, time_step_rank=32)),
    Model("mamba2", base=dict(vocab_size=96, hidden_size=64, num_hidden_layers=1, state_size=16, num_heads=4, head_dim=32,
          n_groups=1)),
    Model("rwkv", base=dict(vocab_size=96, hidden_size=64, num_hidden_layers=2, attention_hidden_size=64,
          intermediate_size=128)),
    Model("bloom", base=dict(vocab_size=96, hidden_size=64, n_layer=1, n_head=4)),
    Model("mpt", base=dict(vocab_size=96, d_model=64, n_layers=1, n_heads=4)),
    Model("gptj", base=dict(vocab_size=96, n_embd=64, n_layer=1, n_head=4, rotary_dim=8)),
    Model("gpt_neo", base=dict(vocab_size=96, hidden_size=64, num_layers=1, num_heads=4, attention_types=[[["global"], 1]])),
    Model("gpt_bigcode", base=GPT2 | dict(n_layer=1)),
    Model("codegen", base=dict(vocab_size=96, n_embd=64, n_layer=1, n_head=4, rotary_dim=8)),
]

MODELS = dict(dense=DENSE, experts=EXPERTS, hybrids=HYBRIDS, others=OTHERS)
