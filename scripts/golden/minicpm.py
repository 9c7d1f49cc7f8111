"""Tiny random MiniCPM checkpoints and the logits that mlx-lm computes for them in f32, in the files of models.py: transformers
has no code for this family. Packed as transformers' MetalConfig(bits=4) would, the head left plain.
Needs mlx, mlx-lm, torch, transformers, safetensors; versions and seeds stand in each golden file's metadata.
"""

import importlib.metadata
import json
import zlib

import mlx.core as mx
import numpy as np
import safetensors.torch
import torch
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.models.minicpm import Model, ModelArgs
from transformers.integrations.metal_quantization import _affine_dequantize_tensor, _affine_quantize_tensor

from cases.small import SMALL
from models import OUT, STEPS

GROUP = 16
BASE = dict(SMALL, architectures=["MiniCPMForCausalLM"], model_type="minicpm", hidden_act="silu", rms_norm_eps=1e-5,
            rope_theta=10000.0, torch_dtype="float32")
# mlx-lm divides what enters the head only where it is not tied, but takes the token table for a head that is missing;
# the family's own code ties where the config says nothing, and always divides.
CASES = {
    "minicpm": dict(BASE, tie_word_embeddings=False, scale_emb=12, scale_depth=1.4, dim_model_base=8, rope_scaling=None),
    "minicpm_tied": dict(BASE, num_hidden_layers=3, num_key_value_heads=4, scale_emb=0.5, scale_depth=3.0, dim_model_base=64,
                         rope_scaling=dict(type="linear", factor=2.0)),
    # Made for more than the original context: the long factors serve from the first position on.
    "minicpm_longrope": dict(BASE, scale_emb=2, scale_depth=1.0, dim_model_base=16, rope_scaling=dict(
        rope_type="longrope", short_factor=[1.0, 1.1, 1.3, 1.6], long_factor=[1.2, 1.8, 3.0, 5.0],
        original_max_position_embeddings=32)),
}


def random_weights(config, tied):
    model = Model(ModelArgs.from_dict(config))
    weights = {}
    for name, value in tree_flatten(model.parameters()):
        if tied and name.startswith("lm_head"):
            continue
        around = 1.0 if "norm" in name else 0.0
        weights[name] = around + 0.2 * torch.randn(*value.shape)
    return weights


def logits(config, weights, tokens):
    model = Model(ModelArgs.from_dict(config))
    arrays = model.sanitize({name: mx.array(value.numpy()) for name, value in weights.items()})
    model.update(tree_unflatten(list(arrays.items())))
    cache = make_prompt_cache(model)
    prefill = model(mx.array(tokens[None, :-STEPS]), cache=cache)[0]
    steps = [model(mx.array([[token]]), cache=cache)[0, 0] for token in tokens[-STEPS:].tolist()]
    return torch.from_numpy(np.array(prefill)), torch.from_numpy(np.array(mx.stack(steps)))


def write(folder, config, stored, computed, tokens, seed):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    safetensors.torch.save_file(stored, folder / "model.safetensors", dict(format="pt"))
    prefill, steps = logits(config, computed, tokens)
    versions = {name: importlib.metadata.version(name) for name in ("mlx", "mlx-lm", "transformers", "torch")}
    tensors = dict(tokens=torch.from_numpy(tokens), prefill=prefill, steps=steps)
    safetensors.torch.save_file(tensors, folder / "golden.safetensors", dict(versions, seed=str(seed)))


def write_case(name, config):
    seed = zlib.crc32(name.encode())
    torch.manual_seed(seed)
    weights = random_weights(config, "tie_word_embeddings" not in config)
    tokens = torch.randint(0, config["vocab_size"], (24,), dtype=torch.int32).numpy()
    write(OUT / name / "plain", config, weights, weights, tokens, seed)
    stored, computed = {}, {}
    for key, weight in weights.items():
        if not key.endswith("_proj.weight"):
            stored[key] = computed[key] = weight
            continue
        codes, scales, biases = _affine_quantize_tensor(weight, GROUP, 4)
        stored |= {key: codes, key.replace("weight", "scales"): scales, key.replace("weight", "qbiases"): biases}
        computed[key] = _affine_dequantize_tensor(codes, scales, biases, GROUP, 4)
    quantization = dict(quant_method="metal", bits=4, group_size=GROUP, modules_to_not_convert=["lm_head"])
    write(OUT / name / "metal", dict(config, quantization_config=quantization), stored, computed, tokens, seed)


if __name__ == "__main__":
    for name, config in CASES.items():
        write_case(name, config)
