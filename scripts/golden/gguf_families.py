"""Small GGUF files of many architectures, made of the checkpoints whose logits models.py recorded.

Writes crates/planish-model/tests/golden_gguf/<case>.gguf: the tensors of tests/golden/<case>/plain under the names that gguf-py's
own table gives them, changed as llama.cpp's converters do (rows of query and key as neighbours, joined heads apart, one added to
norms, `Conv1D` turned, experts stacked), with the metadata that they write. Matrices keep the type of the checkpoint, all else is
F32. Nothing else is recorded: tests run the file and compare with the logits of the case.

Needs gguf, numpy, safetensors, torch. Run: python scripts/golden/gguf_families.py [CASE ..]
"""

import json
import pathlib
import re
import sys

import gguf
import numpy as np
import safetensors.torch
import torch

HERE = pathlib.Path(__file__).resolve().parents[2]
SOURCE = HERE / "crates/planish-model/tests/golden"
OUT = HERE / "crates/planish-model/tests/golden_gguf"
ARCHITECTURES = {name: architecture for architecture, name in gguf.MODEL_ARCH_NAMES.items()}
# Case to architecture, and what its converter does.
CASES = {
    "llama_tied": ("llama", "neighbours"), "mixtral_no_window": ("llama", "neighbours"),
    "qwen2_untied": ("qwen2", ""), "qwen3": ("qwen3", ""), "qwen2_moe_all_layers": ("qwen2moe", ""), "qwen3_moe": ("qwen3moe", ""),
    "olmoe": ("olmoe", ""), "gemma": ("gemma", "norms"), "gemma2_by_head": ("gemma2", "norms"),
    "gemma3_six_layers": ("gemma3", "norms"), "phi": ("phi2", ""), "phi3": ("phi3", ""), "phi3_long_factors": ("phi3", ""),
    "starcoder2_no_window": ("starcoder2", ""), "stablelm": ("stablelm", ""),
    "gpt_neox": ("gptneox", "joined"), "gpt2": ("gpt2", "turned"),
    "olmo2": ("olmo2", ""), "olmo3_one_theta": ("olmo2", ""), "cohere": ("command-r", ""), "cohere2": ("cohere2", ""), "glm4": ("glm4", ""),
    "exaone4": ("exaone4", ""), "smollm3": ("smollm3", "neighbours"), "granite": ("granite", "neighbours"),
    "nemotron": ("nemotron", "norms"), "arcee": ("arcee", "neighbours"), "seed_oss": ("seed_oss", ""),
    "hunyuan_v1_dense": ("hunyuan-dense", ""), "ernie4_5": ("ernie4_5", ""),
}


def first(config, *keys, default=None):
    return next((config[key] for key in keys if config.get(key) is not None), default)


def neighbours(weight, heads):
    """Halves of each head in turn, as llama.cpp rotates them."""
    return weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def apart(weight, heads):
    """(heads, 3, size) as (3, heads, size)."""
    return weight.reshape(heads, 3, -1, *weight.shape[1:]).swapaxes(0, 1).reshape(weight.shape)


def changed(name, weight, what, heads, key_value_heads):
    if what == "neighbours" and ".q_proj." in name:
        return neighbours(weight, heads)
    if what == "neighbours" and ".k_proj." in name:
        return neighbours(weight, key_value_heads)
    if what == "joined" and "query_key_value" in name:
        return apart(weight, heads)
    if what == "norms" and name.endswith("norm.weight"):
        return weight.float() + 1
    if what == "turned" and re.search(r"(c_attn|c_proj|c_fc)\.weight$", name):
        return weight.T
    return weight


def stacked(tensors):
    """Experts of one layer as one tensor."""
    stacks, rest = {}, {}
    for name, tensor in tensors.items():
        if match := re.match(r"(.*\.experts)\.(\d+)\.(.*)", name):
            stacks.setdefault(f"{match[1]}.{match[3]}", {})[int(match[2])] = tensor
        else:
            rest[name] = tensor
    return rest | {name: torch.stack([experts[i] for i in range(len(experts))]) for name, experts in stacks.items()}


def llama3_factors(rope, size):
    frequencies = rope["rope_theta"] ** -(torch.arange(0, size, 2, dtype=torch.float64) / size)
    waves, original = 2 * torch.pi / frequencies, rope["original_max_position_embeddings"]
    low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
    share = ((original / waves - low) / (high - low)).clamp(0, 1)
    return 1 / ((1 - share) / factor + share)


def write_metadata(w, config, architecture):
    heads = first(config, "num_attention_heads", "n_head")
    hidden = first(config, "hidden_size", "n_embd")
    head_dim = config.get("head_dim") or hidden // heads
    key_value_heads = first(config, "num_key_value_heads", default=heads)
    w.add_block_count(first(config, "num_hidden_layers", "n_layer"))
    w.add_context_length(first(config, "max_position_embeddings", "n_positions"))
    w.add_embedding_length(hidden)
    w.add_feed_forward_length(first(config, "intermediate_size", "n_inner", default=4 * hidden))
    w.add_head_count(heads)
    w.add_head_count_kv(key_value_heads)
    w.add_key_length(head_dim)
    w.add_value_length(head_dim)
    if (value := config.get("rms_norm_eps")) is not None:
        w.add_layer_norm_rms_eps(value)
    if (value := first(config, "layer_norm_eps", "layer_norm_epsilon", "norm_epsilon", "norm_eps")) is not None:
        w.add_layer_norm_eps(value)
    every = config.get("rope_parameters") or {}
    rope = every.get("full_attention", every)
    if "rope_theta" in rope and "alpha" not in rope:
        w.add_rope_freq_base(rope["rope_theta"])
    if "sliding_attention" in every:
        w.add_rope_freq_base_swa(every["sliding_attention"]["rope_theta"])
    part = first(rope, "partial_rotary_factor", default=first(config, "partial_rotary_factor", "rotary_pct", default=1.0))
    if architecture != "gpt2":
        w.add_rope_dimension_count(int(head_dim * part))
    kind = rope.get("rope_type", "default")
    if kind == "linear":
        w.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        w.add_rope_scaling_factor(rope["factor"])
    elif kind == "llama3":
        w.add_tensor("rope_freqs.weight", llama3_factors(rope, head_dim).numpy().astype(np.float32))
    elif kind == "longrope":
        for length in ("long", "short"):
            w.add_tensor(f"rope_factors_{length}.weight", np.array(rope[f"{length}_factor"], dtype=np.float32))
    elif kind == "yarn":
        w.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        w.add_rope_scaling_factor(rope["factor"])
        w.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        for key, add in {"beta_fast": w.add_rope_scaling_yarn_beta_fast, "beta_slow": w.add_rope_scaling_yarn_beta_slow,
                         "attention_factor": w.add_rope_scaling_yarn_attn_factor}.items():
            if rope.get(key) is not None:
                add(rope[key])
    elif kind == "dynamic" and "alpha" in rope:
        w.add_rope_freq_base(rope["rope_theta"] * rope["alpha"] ** (head_dim / (head_dim - 2)))
    elif kind != "default":
        raise ValueError(f"rope {kind}")
    original = first(rope, "original_max_position_embeddings", default=config.get("original_max_position_embeddings"))
    if architecture == "phi3" and original:
        w.add_rope_scaling_orig_ctx_len(original)
    window = config.get("sliding_window")
    if architecture in ("gemma2", "gemma3", "cohere2", "exaone4", "phi3") or config["model_type"] == "olmo3":
        w.add_sliding_window(window or 0)
    if "layer_types" in config and window and architecture in ("olmo2", "exaone4"):
        w.add_sliding_window_pattern([kind == "sliding_attention" for kind in config["layer_types"]])
    for key, add in {
        "attn_logit_softcapping": w.add_attn_logit_softcapping, "final_logit_softcapping": w.add_final_logit_softcapping,
        "logit_scale": w.add_logit_scale, "logits_scaling": w.add_logit_scale, "attention_multiplier": w.add_attention_scale,
        "embedding_multiplier": w.add_embedding_scale, "residual_multiplier": w.add_residual_scale,
        "use_parallel_residual": w.add_parallel_residual, "moe_intermediate_size": w.add_expert_feed_forward_length,
        "shared_expert_intermediate_size": w.add_expert_shared_feed_forward_length,
        "num_experts_per_tok": w.add_expert_used_count,
    }.items():
        if config.get(key) is not None:
            add(config[key])
    if experts := first(config, "num_local_experts", "num_experts"):
        w.add_expert_count(experts)
    return heads, key_value_heads


def write(case, architecture, what):
    folder = SOURCE / case / "plain"
    config = json.loads((folder / "config.json").read_text())
    names = gguf.get_tensor_name_map(ARCHITECTURES[architecture], 100)
    w = gguf.GGUFWriter(OUT / f"{case}.gguf", architecture)
    heads, key_value_heads = write_metadata(w, config, architecture)
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    for name, tensor in stacked(tensors).items():
        stored = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if stored is None:
            raise ValueError(f"{case}: gguf-py has no name for {name}")
        tensor = changed(name, tensor, what, heads, key_value_heads).contiguous()
        if name.endswith("shared_expert_gate.weight"):
            tensor = tensor.squeeze()
        if tensor.dim() > 1 and tensor.dtype == torch.bfloat16:
            w.add_tensor(stored, tensor.view(torch.uint8).numpy(), raw_dtype=gguf.GGMLQuantizationType.BF16)
        elif tensor.dim() > 1 and tensor.dtype == torch.float16:
            w.add_tensor(stored, tensor.numpy())
        else:
            w.add_tensor(stored, tensor.float().numpy())
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


if __name__ == "__main__":
    OUT.mkdir(parents=True, exist_ok=True)
    for case, (architecture, what) in CASES.items():
        if len(sys.argv) == 1 or case in sys.argv[1:]:
            write(case, architecture, what)
            print(f"{case}: {(OUT / f'{case}.gguf').stat().st_size // 1024} KiB")
