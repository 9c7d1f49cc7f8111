"""Whole checkpoints: quantize, convert, dequantize, inspect."""

import os

from planish import _planish
from planish.progress import Progress
from planish.records import Record


class Report(Record):
    """What was written: `bits_per_weight`, how many weights are `packed`, `plain` (layers that one would expect to be packed, and why
    they are not), `notes`, `source_bytes`, `output_bytes`, `weights`."""


class Inspection(Record):
    """What a checkpoint holds: `format`, `model_type`, `tensors` (name, shape, type, bits, group_size, bytes, cost), `weights`, `bytes`,
    `bits_per_weight`, and `cost`, the relative errors of packing a plain model at 2, 3, 4, 5, 6 and 8 bits."""


def _write(write, src, out, told, revision, token, force, resume, *arguments) -> Report:
    files = {
        "src": src,
        "out": out,
        "force": force,
        "resume": resume,
        "revision": revision,
        "token": token,
        "progress": told,
    }
    return Report(write(files, *arguments))


def quantize(
    src: str | os.PathLike | None,
    out: str | os.PathLike,
    *,
    bits: int | None = None,
    group_size: int | None = None,
    format: str = "metal",
    mode: str = "affine",
    method: str = "search",
    text: str | None = None,
    text_tokens: int = 8192,
    seed: int = 1,
    imatrix: str | os.PathLike | None = None,
    budget: float | None = None,
    budget_tokens: int = 1536,
    recipe: str | os.PathLike | None = None,
    include=(),
    exclude=(),
    overrides=None,
    dtype: str | None = None,
    device: str = "auto",
    allow_nan: bool = False,
    force: bool = False,
    resume: bool = False,
    revision: str | None = None,
    token: str | None = None,
    progress=None,
) -> Report:
    """Packs a plain model into the folder `out`, which appears when it is whole; in 4 bits and groups of 64 where nothing is said.

    `format` is metal (transformers) or mlx. `method` is search; weighted or calibrated, for which the model first runs over `text` (or
    JSON lines of messages; without one it writes `text_tokens` itself, from `seed` on); or the rule of a peer: transformers, mlx, mlx-cpu.
    `imatrix` is a file of llama-imatrix that weighted takes in place of running the model.

    Of MLX only: `mode` mxfp4, mxfp8 or nvfp4 has codes that are floats. `budget` is bits for each packed weight: how much each layer
    suffers is measured, and widths are chosen. `recipe` names a mix of widths (mixed_3_6, q4_k_m ..) or a file like the
    allocation.json that a budget leaves. `overrides` gives other bits to modules that match:
    `{"down_proj": 6, "lm_head": (8, 32), "embed": None}`, None being plain.

    `include` may name head and experts, `exclude` modules that stay plain. `device` is what chooses codes: auto, cpu, cuda. `src` may be a
    Hub model."""

    def written(choice):
        if choice is None:
            return "none"
        return ",".join(map(str, choice)) if isinstance(choice, (tuple, list)) else str(choice)

    packed = {
        "bits": bits,
        "group_size": group_size,
        "format": format,
        "mode": mode,
        "method": method,
        "text": text,
        "text_tokens": text_tokens,
        "seed": seed,
        "imatrix": imatrix,
        "budget": budget,
        "budget_tokens": budget_tokens,
        "recipe": None if recipe is None else os.fspath(recipe),
        "include": list(include),
        "exclude": list(exclude),
        "overrides": [f"{pattern}={written(choice)}" for pattern, choice in (overrides or {}).items()],
        "dtype": dtype,
        "device": device,
        "allow_nan": allow_nan,
    }
    with Progress(progress) as told:
        return _write(_planish.quantize, src, out, told, revision, token, force, resume, packed)


def convert(
    src: str | os.PathLike,
    out: str | os.PathLike,
    *,
    to: str,
    force: bool = False,
    resume: bool = False,
    revision: str | None = None,
    token: str | None = None,
    progress=None,
) -> Report:
    """Moves a packed model to another dialect, `to` metal or mlx, or into one file for llama.cpp, `to` gguf; codes stay as they are."""
    with Progress(progress) as told:
        return _write(_planish.convert, src, out, told, revision, token, force, resume, to)


def dequantize(
    src: str | os.PathLike,
    out: str | os.PathLike,
    *,
    dtype: str | None = None,
    force: bool = False,
    resume: bool = False,
    revision: str | None = None,
    token: str | None = None,
    progress=None,
) -> Report:
    """Writes a packed model or a GGUF file as plain floats of `dtype` (bfloat16, float16, float32), else of the type of its scales."""
    with Progress(progress) as told:
        return _write(_planish.dequantize, src, out, told, revision, token, force, resume, dtype)


def inspect(
    src: str | os.PathLike | None = None,
    *,
    group_size: int = 64,
    revision: str | None = None,
    token: str | None = None,
    progress=None,
) -> Inspection:
    """Lists every tensor; of a plain model, measures the error of packing its layers at each width."""
    import json

    with Progress(progress) as told:
        return Inspection(json.loads(_planish.inspect(src, group_size, revision, token, told)))
