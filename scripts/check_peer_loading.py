"""Tiny random llamas through planish and its peers: what one writes, the others read.

- packed metal outputs (also with a packed head, exclusions, a layer that the group does not divide) load in transformers, which
  gives every weight the value that `planish dequantize` gives it;
- packed MLX outputs (also mixed) do so in mlx-lm;
- `planish quantize --format mlx --method mlx-cpu` writes the very tensors and the config of `mlx_lm.convert`;
- planish converts and dequantizes what `mlx_lm.convert` wrote.

    cargo build --release -p planish-cli
    python scripts/check_peer_loading.py

Needs transformers 5.23, torch, mlx-lm 0.32. Exits with 1 at the first difference.
"""

import json
import pathlib
import subprocess
import tempfile

import mlx.core as mx
import mlx_lm
import numpy as np
import torch
from mlx.utils import tree_flatten
from safetensors.torch import load_file
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

PROGRAM = pathlib.Path(__file__).parent.parent / "target/release/planish"
TIED = dict(tie_word_embeddings=True, intermediate_size=192)
UNTIED = dict(tie_word_embeddings=False, intermediate_size=192)
ODD = dict(tie_word_embeddings=False, intermediate_size=160, attention_bias=True)  # 64 does not divide 160
RUNS = [
    ("metal", TIED, []),
    ("metal", UNTIED, ["--bits", "8", "--dtype", "float32"]),
    ("metal", UNTIED, ["--include-head", "--bits", "2", "--group-size", "32"]),
    ("metal", ODD, ["--exclude", "model.layers.1", "--exclude", ".*k_proj"]),
    ("mlx", TIED, ["--bits", "5"]),
    ("mlx", UNTIED, ["--bits", "3", "--override", "v_proj|down_proj=6,32", "--override", "lm_head=none"]),
    ("mlx", ODD, ["--bits", "2", "--exclude", "model.layers.1.mlp", "--dtype", "float16"]),
]


def planish(*arguments):
    subprocess.run([PROGRAM, *map(str, arguments)], check=True, capture_output=True)


def make(folder, changes):
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=96, hidden_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=32,
        bos_token_id=1, eos_token_id=2, rope_theta=10000.0, **changes,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    edited = json.loads((folder / "config.json").read_text()) | {"rope_theta": 10000.0, "torch_dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(edited))
    vocabulary = {f"t{index}": index for index in range(96)}
    PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(vocabulary, "t0"))).save_pretrained(folder)


def equal(found, expected, what):
    missing = expected.keys() - found.keys()
    if missing:
        raise SystemExit(f"{what}: lacks {sorted(missing)[:3]}")
    for name in expected:
        if found[name].dtype != expected[name].dtype or not torch.equal(found[name], expected[name]):
            raise SystemExit(f"{what}: {name} differs")
    print(f"ok: {what}: {len(expected)} tensors")


def in_transformers(packed, plain):
    model, report = AutoModelForCausalLM.from_pretrained(packed, device_map="cpu", output_loading_info=True)
    problems = {key: value for key, value in report.items() if value}
    if problems:
        raise SystemExit(f"transformers: {problems}")
    return {name: value for name, value in model.state_dict().items() if name in plain}


def in_mlx(packed):
    """Every weight, unpacked by mlx; as numbers of the type that mlx-lm computes with."""
    model, _ = mlx_lm.utils.load_model(packed)
    weights = dict(tree_flatten(mlx_lm.utils.dequantize_model(model).parameters()))
    return {name: torch.from_numpy(np.array(value.astype(mx.float32))) for name, value in weights.items()}


def check(target, changes, flags, scratch):
    make(scratch / "source", changes)
    planish("quantize", scratch / "source", "--out", scratch / "packed", "--format", target, *flags)
    planish("dequantize", scratch / "packed", "--out", scratch / "plain")
    expected = load_file(scratch / "plain/model.safetensors")
    what = f"{target} {' '.join(flags)}"
    if target == "metal":
        equal(in_transformers(scratch / "packed", expected), expected, f"transformers loads {what}")
        return
    found = in_mlx(scratch / "packed")
    close = {name: torch.isclose(found[name], value.float(), rtol=1e-2, atol=1e-3).all() for name, value in expected.items()}
    if not all(close.values()):
        raise SystemExit(f"mlx-lm loads {what}: {[name for name, same in close.items() if not same][:3]} differ")
    print(f"ok: mlx-lm loads {what}: {len(expected)} tensors")


def check_against_mlx_lm(bits, group, scratch):
    make(scratch / "source", UNTIED)
    mlx_lm.convert(str(scratch / "source"), str(scratch / "theirs"), quantize=True, q_bits=bits, q_group_size=group)
    planish(
        "quantize", scratch / "source", "--out", scratch / "ours", "--format", "mlx", "--method", "mlx-cpu",
        "--bits", bits, "--group-size", group,
    )
    their_tensors, our_tensors = (load_file(scratch / name / "model.safetensors") for name in ("theirs", "ours"))
    if their_tensors.keys() != our_tensors.keys():
        raise SystemExit(f"names differ: {sorted(their_tensors.keys() ^ our_tensors.keys())[:5]}")
    equal(our_tensors, their_tensors, f"mlx_lm.convert writes the same, {bits} bits, group {group}")
    configs = [json.loads((scratch / name / "config.json").read_text()) for name in ("theirs", "ours")]
    for key in ("quantization", "quantization_config"):
        # planish also names the layers that stay plain because the group does not divide them.
        ours = {path: value for path, value in configs[1][key].items() if value is not False}
        if configs[0][key] != ours:
            raise SystemExit(f"{key} differs: {configs}")
    planish("dequantize", scratch / "theirs", "--out", scratch / "plain")
    if bits in (2, 4, 8):
        planish("convert", scratch / "theirs", "--to", "metal", "--out", scratch / "metal")
        expected = load_file(scratch / "plain/model.safetensors")
        equal(in_transformers(scratch / "metal", expected), expected, f"transformers loads mlx_lm.convert's, {bits} bits, converted")


def main():
    for target, changes, flags in RUNS:
        with tempfile.TemporaryDirectory() as scratch:
            check(target, changes, flags, pathlib.Path(scratch))
    for bits, group in [(2, 32), (3, 64), (4, 64), (5, 32), (6, 128), (8, 64)]:
        with tempfile.TemporaryDirectory() as scratch:
            check_against_mlx_lm(bits, group, pathlib.Path(scratch))


main()
