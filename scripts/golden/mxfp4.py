"""A tiny gpt-oss checkpoint whose experts are 4-bit floats, as its Hub files have them, and the logits that transformers
computes in f32 after its own unpacking, for the tests of planish-model.

Writes crates/planish-model/tests/golden_mxfp4/gpt_oss: config.json, model.safetensors, golden.safetensors (see models.py).
Needs torch, transformers, safetensors.
"""

import json
import shutil
import zlib

import safetensors.torch
import torch
from transformers import AutoModelForCausalLM, Mxfp4Config

from cases import Case
from models import OUT, random_model, write_golden

FOLDER = OUT.parent / "golden_mxfp4/gpt_oss"
SIZES = dict(vocab_size=64, hidden_size=64, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, head_dim=16, num_local_experts=5, num_experts_per_tok=2, sliding_window=9)


def packed(tensor):
    """Random codes for a tensor (experts, cols, rows), and exponents that give weights of about 0.2."""
    experts, cols, rows = tensor.shape
    blocks = torch.randint(0, 256, (experts, rows, cols // 32, 16), dtype=torch.uint8)
    scales = torch.randint(121, 125, (experts, rows, cols // 32), dtype=torch.uint8)
    return dict(blocks=blocks, scales=scales)


def main():
    seed = zlib.crc32(b"gpt_oss_mxfp4")
    shutil.rmtree(FOLDER, ignore_errors=True)
    random_model(Case("gpt_oss", SIZES), seed).to(torch.bfloat16).save_pretrained(FOLDER)
    (FOLDER / "generation_config.json").unlink(missing_ok=True)
    tensors = {}
    for name, tensor in safetensors.torch.load_file(FOLDER / "model.safetensors").items():
        parts = packed(tensor) if tensor.dim() == 3 else {}
        tensors |= {f"{name}_{part}": values for part, values in parts.items()} or {name: tensor}
    safetensors.torch.save_file(tensors, FOLDER / "model.safetensors", dict(format="pt"))
    config = json.loads((FOLDER / "config.json").read_text())
    kept = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
    config["quantization_config"] = dict(quant_method="mxfp4", modules_to_not_convert=kept)
    (FOLDER / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    model = AutoModelForCausalLM.from_pretrained(FOLDER, quantization_config=Mxfp4Config(dequantize=True), device_map="cpu")
    model = model.float().eval()
    assert model.model.layers[0].mlp.experts.gate_up_proj.shape == (5, 64, 64)
    tokens = torch.randint(0, SIZES["vocab_size"], (30,))
    write_golden(FOLDER / "golden.safetensors", model, tokens, seed)


main()
