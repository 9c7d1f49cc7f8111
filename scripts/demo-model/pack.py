# Writes the two model folders from the trained bf16 weights: the float original, and the one packed as transformers' metal
# integration stores it (P.weight u32, P.scales, P.qbiases; embedding and norms stay bf16).
# Usage: pack.py TRAINED_DIR FLOAT_DIR PACKED_DIR [--bits 4]     TRAINED_DIR: model.safetensors, tokenizer*.json
import argparse
import json
import pathlib
import shutil

import torch
from safetensors.torch import load_file, save_file

from affine import encode
from model import CONFIG, ROPE_THETA

GROUP = 64
TOKENIZER_FILES = ["tokenizer.json", "tokenizer_config.json"]


def packed_words(codes, bits):
    """(rows, groups, group) codes -> (rows, cols * bits / 32) u32: code i of a row is bits i * bits .. (i + 1) * bits."""
    per_word = 32 // bits
    codes = codes.flatten(1).to(torch.int64).unflatten(1, (-1, per_word))
    return (codes << (torch.arange(per_word) * bits)).sum(-1).to(torch.uint32)


def pack(tensors, bits):
    packed = {}
    for name, weight in tensors.items():
        if "_proj." not in name:
            packed[name] = weight
            continue
        codes, scales, biases = encode(weight, bits, GROUP)
        module = name.removesuffix(".weight")
        packed[f"{module}.weight"] = packed_words(codes, bits)
        packed[f"{module}.scales"] = scales.squeeze(-1)
        packed[f"{module}.qbiases"] = biases.squeeze(-1)
    return packed


def write(folder, tensors, source, quantization=None):
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: t.contiguous() for name, t in tensors.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", **CONFIG, "hidden_act": "silu", "attention_bias": False,
              "mlp_bias": False, "tie_word_embeddings": True, "rope_theta": ROPE_THETA,
              "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_THETA},
              "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "dtype": "bfloat16"}
    if quantization:
        config["quantization_config"] = quantization
    generation = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "do_sample": True, "temperature": 0.8, "max_new_tokens": 400}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    for name in TOKENIZER_FILES:
        shutil.copyfile(source / name, folder / name)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("source", type=pathlib.Path)
    parser.add_argument("plain", type=pathlib.Path)
    parser.add_argument("packed", type=pathlib.Path)
    parser.add_argument("--bits", type=int, default=4, choices=(2, 4, 8))
    options = parser.parse_args()
    tensors = load_file(options.source / "model.safetensors")
    write(options.plain, tensors, options.source)
    quantization = {"quant_method": "metal", "bits": options.bits, "group_size": GROUP, "modules_to_not_convert": None}
    write(options.packed, pack(tensors, options.bits), options.source, quantization)


main()
