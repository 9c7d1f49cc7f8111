#!/usr/bin/env python3
"""Golden vectors of MLX's modes of small floats: codes and scales that mlx.core.quantize(mode=...) makes.

Writes one safetensors file; its metadata, `made with`, record versions and seed. Tensors, with rows R and columns K = 128:
  input/DTYPE             (R, K)            weights, the same values rounded to each dtype
  MODE/DTYPE/codes        (R, K*BITS/32)    u32 words
  MODE/DTYPE/scales       (R, K/GROUP)      bytes
Weights so small that the scale of their group is no normal float32 are left out: MLX gives them a scale that is not a number.
Needs: pip install 'mlx[cpu]' torch numpy safetensors.

    python scripts/golden/float_modes.py crates/planish-format/tests/golden/float_modes.safetensors
"""

import importlib.metadata
import sys

import mlx.core as mx
import numpy as np
import torch
from safetensors.torch import save_file

SEED, COLS = 20261, 128
DTYPES = {"F32": (torch.float32, mx.float32), "F16": (torch.float16, mx.float16), "BF16": (torch.bfloat16, mx.bfloat16)}
MODES = ("mxfp4", "mxfp8", "nvfp4")
FLOATS4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)


def rows():
    random = np.random.default_rng(SEED)
    normal = lambda: random.standard_normal(COLS).astype(np.float32)
    halfway = (FLOATS4[1:] + FLOATS4[:-1]) / 2
    signs = random.choice(np.array([-1, 1], np.float32), COLS)
    return np.stack([
        normal() * np.float32(0.02), normal() * np.float32(0.02), normal(), normal() * np.float32(300),
        normal() * np.float32(0.1) + np.float32(0.35), np.zeros(COLS, np.float32), -np.abs(normal()),
        # Between two floats of 4 bits, and beside such places, with a 6 in every group.
        np.where(np.arange(COLS) % 16 == 0, 6, random.choice(halfway, COLS) * signs).astype(np.float32),
        np.where(np.arange(COLS) % 16 == 0, 6, random.choice(halfway, COLS) * signs * 1.0078125).astype(np.float32),
        np.where(np.arange(COLS) % 16 == 0, 448, random.integers(0, 449, COLS) * signs).astype(np.float32),
        random.integers(-15, 16, COLS).astype(np.float32) / np.float32(2),
        np.where(random.random(COLS) < 0.5, np.float32(-0.0), np.float32(0.0)),
        normal() * np.exp2(random.uniform(-30, -14, COLS)).astype(np.float32),
        np.repeat(np.array([6, 6.03125, 3072, 0.01], np.float32), COLS // 4) * signs,
    ])


def main():
    tensors, values = {}, rows()
    for name, (torch_type, mlx_type) in DTYPES.items():
        tensors[f"input/{name}"] = torch.from_numpy(values).to(torch_type)
        weights = mx.array(values).astype(mlx_type)
        for mode in MODES:
            codes, scales = mx.quantize(weights, mode=mode)
            tensors[f"{mode}/{name}/codes"] = torch.from_numpy(np.array(codes))
            tensors[f"{mode}/{name}/scales"] = torch.from_numpy(np.array(scales))
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("mlx", "numpy"))
    save_file(tensors, sys.argv[1], metadata={"made with": f"scripts/golden/float_modes.py; {versions}; seed {SEED}"})


main()
