"""Compares the golden vectors of MLX's rule on GPUs, a transcription (scripts/golden/format.py), with what MLX's CUDA build makes.

    python scripts/gpu/mlx_quantize.py

Needs mlx with mlx-cuda-13, and numpy. Prints for every type, width and group how many codes, scales and biases differ, and in
which rows; ends with 1 where any does.
"""

import pathlib
import sys

import mlx.core as mx
import numpy as np

FILE = pathlib.Path(__file__).parents[2] / "crates/planish-format/tests/golden/format.safetensors"
ENCODER = "mlx-metal"
GROUPS = (32, 64, 128)


def words_of(array):
    """Its bits, as numpy has no bfloat16."""
    return np.array(array.view(mx.uint32 if array.itemsize == 4 else mx.uint16))


def main():
    golden, metadata = mx.load(str(FILE), return_metadata=True)
    made_with = dict(line.split(": ", 1) for line in metadata["made with"].splitlines())
    names = made_with["rows"].split("; ")
    print(f"MLX {mx.__version__} on {mx.default_device()}; the transcription is of {made_with['mlx']}")
    compared, differing = 0, 0
    for name in sorted(golden):
        encoder, *case = name.split("/")
        if encoder != ENCODER or case[-1] != "codes" or int(case[2]) not in GROUPS:
            continue
        dtype, bits, group = case[0], int(case[1]), int(case[2])
        codes, scales, biases = mx.quantize(golden[f"input/{dtype}"], group_size=group, bits=bits)
        affine = words_of(mx.stack([scales, biases]))
        expected = words_of(golden[name]), words_of(golden[name.removesuffix("codes") + "affine"])
        wrong = words_of(codes) != expected[0], affine != expected[1]
        compared += 1
        if any(part.any() for part in wrong):
            differing += 1
            rows = wrong[0].any(-1) | wrong[1].any(0).any(-1)
            print(f"{dtype} {bits} bits, group {group}: {wrong[0].sum()} words of codes, {wrong[1].sum()} scales and biases differ; in rows", end=" ")
            print("; ".join(name for name, differs in zip(names, rows) if differs))
    print(f"{compared} cases, {differing} differ")
    return int(differing > 0 or compared == 0)


sys.exit(main())
