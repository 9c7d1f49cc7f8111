"""Relatives of Granite, OLMo, Gemma 2, Qwen 3 and GPT-2."""

from cases import Case
from cases.layer_norms import GPT2
from cases.newer import DENSE, FEW, FULL, ONE, SLIDING

GRANITE = dict(embedding_multiplier=3.0, residual_multiplier=0.5, attention_multiplier=0.25, logits_scaling=2.0)
SWA = dict(GRANITE, sliding_window=6, layer_types=[FULL, SLIDING], layer_rope_theta=[0, 5000.0], tie_word_embeddings=True)

CASES = {
    "hyperclovax": Case("hyperclovax", {**DENSE, **ONE, **GRANITE}, group=8),
    "granite_swa": Case("granite_swa", {**DENSE, **SWA}, group=8),
    "granitemoe_swa": Case("granitemoe_swa", {**FEW, **SWA, **dict(
        num_local_experts=3, num_experts_per_tok=2, intermediate_size=16, shared_intermediate_size=16)}, group=8),
    "flex_olmo": Case("flex_olmo", {**FEW, **ONE, **dict(pad_token_id=0, num_experts=4, num_experts_per_tok=2)}, group=8),
    "vaultgemma": Case("vaultgemma", dict(
        DENSE, head_dim=8, query_pre_attn_scalar=12, sliding_window=6, layer_types=[SLIDING, FULL]), group=8),
    "hy_v3": Case("hy_v3", {**FEW, **dict(
        num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, router_scaling_factor=1.4)}, group=8),
    "mellum": Case("mellum", {**FEW, **dict(
        num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, sliding_window=6, layer_types=[SLIDING, FULL],
        mlp_layer_types=["dense", "sparse"], rope_parameters=dict(
            full_attention=dict(rope_type="default", rope_theta=500000.0),
            sliding_attention=dict(rope_type="default", rope_theta=10000.0)))}, group=8),
    "gpt_bigcode": Case("gpt_bigcode", dict(GPT2, n_layer=1), group=8),
    "gpt_bigcode_all_keys": Case("gpt_bigcode", dict(GPT2, n_layer=1, multi_query=False), group=8),
    "gpt_neo": Case("gpt_neo", dict(
        vocab_size=48, hidden_size=24, intermediate_size=None, num_hidden_layers=None, num_attention_heads=None,
        num_key_value_heads=None, num_layers=2, num_heads=4, window_size=6, attention_types=[[["global", "local"], 1]]), group=8),
}
