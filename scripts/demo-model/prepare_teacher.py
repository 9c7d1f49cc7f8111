# Turns the teacher's GGUF file into two safetensors files that keep its quantized blocks as they are (u8, rows x bytes),
# with query and key rows back in Hugging Face's order. Two files, because the way to the GPU may limit a file's size.
# Usage: prepare_teacher.py TEACHER.gguf OUT_A.safetensors OUT_B.safetensors   (needs gguf, numpy, safetensors)
import sys

import numpy as np
from gguf import GGUFReader
from safetensors.numpy import save_file

NAMES = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
         "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
         "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
HEADS = {"attn_q": 9, "attn_k": 3}


def hugging_face_name(name):
    if name == "token_embd.weight":
        return "embed_tokens"
    if name == "output_norm.weight":
        return "norm"
    _, layer, kind, _ = name.split(".")
    return f"layers.{layer}.{NAMES[kind]}"


def undo_interleaving(rows, heads):
    """llama.cpp stores rotary pairs side by side, Hugging Face half a head apart: (heads, half, 2) -> (heads, 2, half)."""
    count, width = rows.shape
    return rows.reshape(heads, count // heads // 2, 2, width).swapaxes(1, 2).reshape(count, width)


def main():
    source, *outputs = sys.argv[1:]
    parts = [{}, {}]
    for tensor in GGUFReader(source).tensors:
        data = np.array(tensor.data)
        for kind, heads in HEADS.items():
            if f".{kind}." in tensor.name:
                data = undo_interleaving(data, heads)
        name = hugging_face_name(tensor.name)
        second = name.startswith("layers.") and int(name.split(".")[1]) >= 14
        parts[second][f"{name}|{tensor.tensor_type.name}"] = np.ascontiguousarray(data)
    for part, output in zip(parts, outputs):
        save_file(part, output)


main()
