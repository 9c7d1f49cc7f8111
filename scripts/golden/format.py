#!/usr/bin/env python3
"""Golden vectors of the affine format: what transformers and MLX make of the same weights.

Writes one safetensors file; its metadata, `made with`, record versions, seed and rows. Tensors, with rows R and columns K = 384:
  input/DTYPE                                  (R, K)             weights, the same values rounded to each dtype
  ENCODER/DTYPE/BITS/GROUP/codes               (R, K*BITS/32)     u32 words
  ENCODER/DTYPE/BITS/GROUP/affine              (2, R, K/GROUP)    scales, then biases, in DTYPE
  dequantized/ENCODER/DTYPE/BITS/GROUP         (4, K)             weights of the first 4 rows, in DTYPE
ENCODER `transformers` is transformers' own function, `mlx-cpu` is mlx.core.quantize (groups 32, 64 and 128; for other
groups a transcription that is checked against it here), `mlx-metal` a transcription of MLX's Metal kernel, which needs
no GPU. Needs: pip install 'mlx[cpu]' transformers torch numpy safetensors gguf. Takes some seconds.
"""

import argparse
import importlib.metadata
import pathlib

import gguf
import mlx.core as mx
import numpy as np
import torch
from safetensors.torch import save_file
from transformers.integrations.metal_quantization import _affine_dequantize_tensor, _affine_quantize_tensor

SEED = 20260
COLS = 384
WIDTHS = (2, 3, 4, 5, 6, 8)
MLX_GROUPS = (32, 64, 128)
OTHER_GROUPS = (8, 16, 24, 96)
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
MLX_DTYPES = {"F32": mx.float32, "F16": mx.float16, "BF16": mx.bfloat16}
REAL_TENSORS = ("blk.0.attn_q.weight", "blk.11.ffn_down.weight", "token_embd.weight")
DEQUANTIZED_ROWS = 4


def synthetic_rows(largest: float) -> dict[str, np.ndarray]:
    """Rows by name, f32, each K long; `largest` keeps the range of the huge row finite in every dtype."""
    random = np.random.default_rng(SEED)
    normal = lambda: random.standard_normal(COLS).astype(np.float32)
    steps = np.repeat(np.array([0.75, -0.3, 1e-3, -2e-6, 3e-8, -40.0], np.float32), COLS // 6)
    signed_zeros = np.where(random.random(COLS) < 0.5, np.float32(-0.0), np.float32(0.0))
    powers = np.exp2(random.uniform(-30, -14, COLS)).astype(np.float32)
    return {
        "normal": normal() * np.float32(0.02),
        "normal, wide": normal(),
        "normal, off centre": normal() * np.float32(0.1) + np.float32(0.35),
        "constant by group": steps,
        "zero": np.zeros(COLS, np.float32),
        "all negative": -np.abs(normal()) - np.float32(0.01),
        "all positive": np.abs(normal()) * np.float32(0.05) + np.float32(0.5),
        "tiny": normal() * powers,
        "subnormal": normal() * np.float32(1e-40 if largest > 1e5 else 3e-7),
        "huge": random.uniform(-largest, largest, COLS).astype(np.float32),
        "halves, ties in rounding": random.integers(-15, 16, COLS).astype(np.float32) / np.float32(2),
        "quarters above zero": random.integers(0, 61, COLS).astype(np.float32) / np.float32(4),
        "signed zeros": signed_zeros,
        "signed zeros and positive": np.where(random.random(COLS) < 0.7, signed_zeros, np.abs(normal())),
    }


def real_rows(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Rows of a real model, decoded from its GGUF file."""
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    rows = {}
    for name in REAL_TENSORS:
        tensor = tensors[name]
        weights = gguf.dequantize(tensor.data[7:8], tensor.tensor_type)
        rows[f"real, row 7 of {name}"] = weights[0, :COLS].astype(np.float32)
    return rows


def transformers_rule(weights: torch.Tensor, bits: int, group: int):
    """Its own function, and the cast to the weight's dtype that `MetalQuantize` adds."""
    codes, scales, biases = _affine_quantize_tensor(weights, group, bits)
    return codes, torch.stack([scales.to(weights.dtype), biases.to(weights.dtype)])


def mlx_cpu(weights: torch.Tensor, bits: int, group: int, dtype: str):
    with mx.stream(mx.cpu):
        array = mx.array(weights.float().numpy()).astype(MLX_DTYPES[dtype])
        codes, scales, biases = mx.quantize(array, group_size=group, bits=bits)
        affine = mx.stack([scales, biases])
        mx.eval(codes, affine)
    return torch.from_numpy(np.array(codes)), from_mlx(affine, dtype)


def from_mlx(array: mx.array, dtype: str) -> torch.Tensor:
    """Bit for bit, as numpy has no bfloat16."""
    if dtype == "F32":
        return torch.from_numpy(np.array(array))
    return torch.from_numpy(np.array(array.view(mx.uint16)).copy()).view(DTYPES[dtype])


def round_away(values: np.ndarray) -> np.ndarray:
    """The kernels' `round`: to nearest, ties away from zero."""
    whole = np.trunc(values)
    return (whole + np.where(np.abs(values - whole) >= 0.5, np.sign(values), 0)).astype(np.float32)


def mlx_rule(weights: torch.Tensor, bits: int, group: int, metal: bool):
    """Transcription of MLX: backend/cpu/quantized.cpp `quantize`, backend/metal/kernels/quantized.h `affine_quantize`."""
    rounding = round_away if metal else np.rint
    levels, eps = np.float32(2**bits - 1), np.float32(1e-7)
    groups = weights.float().numpy().reshape(weights.shape[0], -1, group)
    low, high = groups.min(-1, keepdims=True), groups.max(-1, keepdims=True)
    if metal:
        high = np.maximum(high, np.float32(0))
    scale = np.maximum((high - low) / levels, eps)
    side = np.abs(low) > np.abs(high)
    scale = np.where(side, scale, -scale)
    edge = np.where(side, low, high)
    at_edge = rounding(edge / scale)
    at_zero = at_edge == 0
    scale = np.where(at_zero, scale, edge / np.where(at_zero, np.float32(1), at_edge))
    bias = np.where(at_zero, np.float32(0), edge)
    codes = np.clip(rounding((groups - bias) / scale), 0, levels)
    assert scale.dtype == bias.dtype == codes.dtype == np.float32
    affine = torch.from_numpy(np.stack([scale, bias])).squeeze(-1).to(weights.dtype)
    return pack(codes.astype(np.uint8).reshape(weights.shape), bits), affine


def pack(codes: np.ndarray, bits: int) -> torch.Tensor:
    """Little-endian bit stream of each row."""
    stream = np.unpackbits(codes[..., None], axis=-1, bitorder="little")[..., :bits].reshape(codes.shape[0], -1)
    return torch.from_numpy(np.packbits(stream, axis=-1, bitorder="little").view(np.uint32))


def same(left, right) -> bool:
    return all(torch.equal(a.view(torch.uint8), b.view(torch.uint8)) for a, b in zip(left, right))


def encoded(weights: torch.Tensor, dtype: str):
    """Yields encoder, bits, group, (codes, affine)."""
    for bits in WIDTHS:
        for group in MLX_GROUPS + (OTHER_GROUPS if dtype == "BF16" else ()):
            if bits in (2, 4, 8):
                yield "transformers", bits, group, transformers_rule(weights, bits, group)
            transcribed = mlx_rule(weights, bits, group, metal=False)
            if group in MLX_GROUPS:
                measured = mlx_cpu(weights, bits, group, dtype)
                assert same(measured, transcribed), f"the transcription differs from MLX: {dtype} {bits} {group}"
                transcribed = measured
            yield "mlx-cpu", bits, group, transcribed
            yield "mlx-metal", bits, group, mlx_rule(weights, bits, group, metal=True)


def dequantized(encoder: str, dtype: str, bits: int, group: int, codes: torch.Tensor, affine: torch.Tensor):
    """Weights of the first rows, or None where the peer does not compute in f32."""
    codes, affine = codes[:DEQUANTIZED_ROWS].contiguous(), affine[:, :DEQUANTIZED_ROWS].contiguous()
    if encoder == "transformers" and group == 64:
        return _affine_dequantize_tensor(codes, affine[0], affine[1], group, bits).to(affine.dtype)
    if encoder == "mlx-cpu" and group == 32 and dtype == "F32":
        with mx.stream(mx.cpu):
            parts = [mx.array(part.numpy()) for part in (codes, affine[0], affine[1])]
            return from_mlx(mx.dequantize(*parts, group_size=group, bits=bits), dtype)
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gguf", type=pathlib.Path, required=True, help="SmolLM2-135M-Instruct.Q4_1.gguf")
    folder = pathlib.Path(__file__).parents[2] / "crates/planish-format/tests/golden"
    parser.add_argument("--out", type=pathlib.Path, default=folder / "format.safetensors")
    arguments = parser.parse_args()

    real, tensors, names = real_rows(arguments.gguf), {}, []
    for dtype, kind in DTYPES.items():
        rows = real | synthetic_rows(65000.0 if dtype == "F16" else 1.5e38)
        names = list(rows)
        weights = torch.from_numpy(np.stack(list(rows.values()))).to(kind)
        tensors[f"input/{dtype}"] = weights
        for encoder, bits, group, (codes, affine) in encoded(weights, dtype):
            case = f"{encoder}/{dtype}/{bits}/{group}"
            tensors[f"{case}/codes"], tensors[f"{case}/affine"] = codes.contiguous(), affine.contiguous()
            weights_again = dequantized(encoder, dtype, bits, group, codes, affine)
            if weights_again is not None:
                tensors[f"dequantized/{case}"] = weights_again.contiguous()

    packages = ("mlx", "transformers", "torch", "numpy", "gguf", "safetensors")
    facts = {package: importlib.metadata.version(package) for package in packages}
    facts |= {"seed": SEED, "real rows": f"{arguments.gguf.name}, Apache-2.0", "rows": "; ".join(names)}
    # One key, because the order of several is not kept: the same versions make the same bytes.
    metadata = {"made with": "\n".join(f"{key}: {value}" for key, value in facts.items())}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, arguments.out, metadata)
    print(f"{arguments.out}: {len(tensors)} tensors, {arguments.out.stat().st_size} bytes\n{metadata['made with']}")


if __name__ == "__main__":
    main()
