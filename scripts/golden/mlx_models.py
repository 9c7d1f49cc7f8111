"""Tiny random checkpoints and the logits that mlx-lm computes for them in f32 on the CPU, for the tests of planish-model.

Writes tests/golden/<case>/{plain,metal} of planish-model for families that transformers does not have, laid out as models.py
does (metal: packed by transformers' function, run by mlx-lm after transformers' own dequantization), and
tests/golden_mlx/<case> with checkpoints that mlx-lm itself converted from transformers' and quantized to 4 bits: it stores
some families under names, in orders or shapes of its own. Names as arguments make only those. Versions and seeds stand in
each golden file's metadata.
Needs mlx, mlx-lm, torch, transformers, safetensors.
"""

import json
import pathlib
import shutil
import sys
import tempfile
import zlib

import mlx.core as mx
import mlx_lm
import safetensors.torch
import torch
import transformers
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import load_model, quantize_model, save_config, save_model
from transformers.integrations.metal_quantization import _affine_dequantize_tensor, _affine_quantize_tensor

from cases import Case
from cases.experts import MLX_CASES
from models import OUT, STEPS, random_model

MLX_OUT = OUT.parent / "golden_mlx"
TOKENS = 24
INTERNLM2 = dict(
    architectures=["InternLM2ForCausalLM"], model_type="internlm2", vocab_size=64, hidden_size=48, intermediate_size=64,
    num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, hidden_act="silu", rms_norm_eps=1e-5, bias=True,
    max_position_embeddings=16, rope_theta=1000000, rope_scaling=dict(type="dynamic", factor=2.0), tie_word_embeddings=False)
MADE_HERE = {
    "internlm2": (INTERNLM2, 16),
    "internlm2_tied": (dict(
        INTERNLM2, vocab_size=67, hidden_size=40, intermediate_size=72, bias=False, rope_theta=10000,
        rope_scaling=dict(type="linear", factor=2.0), tie_word_embeddings=True), 8),
}
WIDE = dict(vocab_size=64, hidden_size=32, intermediate_size=128, num_attention_heads=2, max_position_embeddings=64)
LLAMA3 = dict(rope_type="llama3", rope_theta=12000000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=32)
CONVERTED = {
    "gpt2": Case("gpt2", dict(
        vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=48, hidden_size=None, intermediate_size=None,
        num_hidden_layers=None, num_attention_heads=None, num_key_value_heads=None, max_position_embeddings=None)),
    "gpt_neox": Case("gpt_neox", dict(WIDE, num_key_value_heads=None, hidden_act="gelu_pytorch_tanh")),
    "lfm2": Case("lfm2", dict(
        WIDE, num_key_value_heads=1, num_hidden_layers=2, block_auto_adjust_ff_dim=False,
        layer_types=["conv", "full_attention"])),
    "qwen3_next": Case("qwen3_next", dict(
        WIDE, hidden_size=64, num_key_value_heads=1, num_hidden_layers=2, head_dim=16, linear_num_key_heads=2,
        linear_num_value_heads=4, linear_key_head_dim=32, linear_value_head_dim=8, num_experts=4, num_experts_per_tok=2,
        moe_intermediate_size=32, shared_expert_intermediate_size=32, layer_types=["linear_attention", "full_attention"])),
    "granitemoehybrid": Case("granitemoehybrid", dict(
        WIDE, num_key_value_heads=1, num_hidden_layers=2, num_local_experts=0, shared_intermediate_size=128, mamba_n_heads=4,
        mamba_d_head=16, mamba_d_state=16, embedding_multiplier=3.0, residual_multiplier=0.5,
        attention_multiplier=0.3, logits_scaling=2.0, tie_word_embeddings=True,
        layer_types=["linear_attention", "full_attention"])),
    "apertus": Case("apertus", dict(WIDE, num_key_value_heads=1, tie_word_embeddings=True, rope_parameters=LLAMA3)),
}
CONVERTED |= {name: case for name, (case, _) in MLX_CASES.items()}
# What mlx-lm asks of config.json and transformers 5 does not write.
OLD_KEYS = {
    "gpt2": dict(n_ctx=48),
    "gpt_neox": dict(rotary_emb_base=10000, rotary_pct=0.25),
    "lfm2": dict(block_dim=32),
    "qwen3_next": dict(full_attention_interval=2, rope_theta=10000.0, partial_rotary_factor=0.25),
    "granitemoehybrid": dict(layer_types=["mamba", "attention"], position_embedding_type="nope", time_step_limit=[0.4, 0.7]),
    "apertus": dict(rope_theta=12000000.0, rope_scaling=LLAMA3, mlp_bias=False, post_norm=False, qk_norm=True),
}
# Scales and biases of 16 bits, as in published checkpoints.
ROUNDED = ["deepseek_v3"]
OLD_KEYS |= {name: keys for name, (_, keys) in MLX_CASES.items()}


def internlm2_weights(config, seed):
    """Weights that bf16 holds exactly, norms around 1."""
    torch.manual_seed(seed)
    hidden, inner, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    fused = hidden + 2 * hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    shapes = {"model.tok_embeddings.weight": (vocabulary, hidden), "model.norm.weight": (hidden,)}
    if not config["tie_word_embeddings"]:
        shapes["output.weight"] = (vocabulary, hidden)
    for index in range(config["num_hidden_layers"]):
        parts = {"attention.wqkv.weight": (fused, hidden), "attention.wo.weight": (hidden, hidden),
                 "feed_forward.w1.weight": (inner, hidden), "feed_forward.w3.weight": (inner, hidden),
                 "feed_forward.w2.weight": (hidden, inner), "attention_norm.weight": (hidden,), "ffn_norm.weight": (hidden,)}
        if config["bias"]:
            parts |= {"attention.wqkv.bias": (fused,), "attention.wo.bias": (hidden,)}
        shapes |= {f"model.layers.{index}.{part}": shape for part, shape in parts.items()}
    around = {name: 1.0 if "norm" in name else 0.0 for name in shapes}
    return {name: (around[name] + 0.2 * torch.randn(shape)).bfloat16() for name, shape in shapes.items()}


def logits(folder, tokens):
    model, _ = load_model(folder)
    model.set_dtype(mx.float32)
    cache = make_prompt_cache(model)
    prefill = model(mx.array(tokens[:-STEPS])[None], cache=cache)[0]
    steps = [model(mx.array([[token]]), cache=cache)[0, 0] for token in tokens[-STEPS:]]
    return prefill, mx.stack(steps)


def write_golden(path, folder, vocabulary, seed):
    """`folder` is what mlx-lm runs."""
    torch.manual_seed(seed)
    tokens = torch.randint(0, vocabulary, (TOKENS,), dtype=torch.int32)
    prefill, steps = logits(folder, tokens.tolist())
    tensors = dict(tokens=tokens, prefill=torch.tensor(prefill.tolist()), steps=torch.tensor(steps.tolist()))
    versions = dict(mlx_lm=mlx_lm.__version__, mlx=mx.__version__, transformers=transformers.__version__)
    safetensors.torch.save_file(tensors, path, dict(versions, seed=str(seed)))


def write_checkpoint(folder, config, weights):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    safetensors.torch.save_file(weights, folder / "model.safetensors", dict(format="pt"))


def write_made_here(name, config, group, folder):
    seed = zlib.crc32(name.encode())
    weights = internlm2_weights(config, seed)
    write_checkpoint(folder / "plain", config, weights)
    write_golden(folder / "plain/golden.safetensors", folder / "plain", config["vocab_size"], seed)
    packed, unpacked = dict(weights), {key: value.float() for key, value in weights.items()}
    for key, weight in weights.items():
        if weight.dim() == 2 and "tok_embeddings" not in key and "output" not in key:
            codes, scales, biases = _affine_quantize_tensor(weight, group, 4)
            path = key.removesuffix(".weight")
            packed |= {key: codes, f"{path}.scales": scales, f"{path}.qbiases": biases}
            unpacked[key] = _affine_dequantize_tensor(codes, scales, biases, group, 4).float()
    quantization = dict(quant_method="metal", bits=4, group_size=group, modules_to_not_convert=["output"])
    write_checkpoint(folder / "metal", dict(config, quantization_config=quantization), packed)
    with tempfile.TemporaryDirectory() as temporary:
        plain = pathlib.Path(temporary) / "plain"
        write_checkpoint(plain, config, unpacked)
        write_golden(folder / "metal/golden.safetensors", plain, config["vocab_size"], seed)


def split_experts(path):
    """mlx-lm reads gpt-oss from its 4-bit floats, or as itself stores it."""
    tensors = {}
    for name, tensor in safetensors.torch.load_file(path).items():
        name = name.replace("proj_bias", "proj.bias")
        if tensor.dim() == 3:
            name, tensor = f"{name}.weight", tensor.mT
        if "gate_up_proj" in name:
            parts = dict(gate_proj=tensor[:, ::2], up_proj=tensor[:, 1::2])
            tensors |= {name.replace("gate_up_proj", part): half.contiguous() for part, half in parts.items()}
        else:
            tensors[name] = tensor.contiguous()
    safetensors.torch.save_file(tensors, path, dict(format="pt"))


def write_converted(name, case, folder):
    """As `mlx_lm.convert -q`, which also wants a tokenizer."""
    seed = zlib.crc32(name.encode())
    model = random_model(case, seed)
    with tempfile.TemporaryDirectory() as temporary:
        source = pathlib.Path(temporary)
        if name in ROUNDED:
            model.to(case.stored)
        # mlx-lm knows the names of the first checkpoints, which held GPT-2 without its head.
        (model.transformer if name == "gpt2" else model).save_pretrained(source)
        if name == "gpt_oss":
            split_experts(source / "model.safetensors")
        config = json.loads((source / "config.json").read_text()) | OLD_KEYS[name]
        config["architectures"] = [type(model).__name__]
        (source / "config.json").write_text(json.dumps(config))
        converted, config = load_model(source)
        converted, config = quantize_model(converted, config, 32, 4)
        save_model(folder, converted)
        save_config(config, folder / "config.json")
    (folder / "model.safetensors.index.json").unlink(missing_ok=True)
    write_golden(folder / "golden.safetensors", folder, model.config.vocab_size, seed)


def main():
    mx.set_default_device(mx.cpu)
    cases = [(OUT / name, write_made_here, (name, *case)) for name, case in MADE_HERE.items()]
    cases += [(MLX_OUT / name, write_converted, (name, case)) for name, case in CONVERTED.items()]
    wanted = sys.argv[1:]
    for folder, write, arguments in cases:
        if wanted and folder.name not in wanted:
            continue
        shutil.rmtree(folder, ignore_errors=True)
        write(*arguments, folder)
        size = sum(path.stat().st_size for path in folder.rglob("*.*"))
        print(f"{folder.parent.name}/{folder.name}: {size / 1024:.0f} KiB")


main()
