"""Tiny models of every family that mlx-lm has, packed for MLX by planish and run by mlx-lm: the logits must agree to 1e-3.

For each model of golden/layer_models.py: a random float32 checkpoint by transformers; `planish quantize --format mlx --bits 4
--group-size 32 --dtype float32`; logits of mlx-lm on the CPU against those of planish (`--exact` arithmetic) on the same packed
checkpoint, and against those of transformers on what `planish dequantize` makes of it. Prints both differences for each; the
exit code is the number of models where one of them is too large. Needs mlx-lm, transformers, torch.

    cargo build --release -p planish-cli -p planish --bins --example logits
    python scripts/compare_mlx_lm.py [--target target/release] [LABEL ..]
"""

import argparse
import fnmatch
import json
import pathlib
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parent / "golden"))

import mlx.core as mx
import mlx_lm
import torch
import transformers
from transformers import AutoConfig

from layer_models import MODELS, SMALL

LIMIT = 1e-3
TOKENS = [3, 17, 60, 5, 41, 22, 9, 33, 70, 11, 2, 54]


def settings(case):
    base = SMALL if case.base is None else case.base
    return {key: value for key, value in {**base, **case.settings}.items() if value is not None}


@torch.no_grad()
def random_checkpoint(case, folder):
    torch.manual_seed(0)
    config = AutoConfig.for_model(case.kind, **settings(case))
    model = getattr(transformers, case.auto).from_config(config, dtype=torch.float32).eval()
    for name, parameter in model.named_parameters():
        if "correction_bias" in name:
            parameter.zero_()  # mlx-lm leaves it out of some models
            continue
        around = 1.0 if "norm" in name and name.endswith("weight") and parameter.dim() == 1 else 0.0
        parameter.copy_(around + 0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    # What mlx-lm asks for and transformers 5 writes elsewhere.
    rope = config.get("rope_parameters") or {}
    rope = rope.get("full_attention", rope)
    older = {key: rope[key] for key in ("rope_theta", "partial_rotary_factor") if key in rope}
    if rope.get("rope_type", "default") not in ("default", "yarn"):
        older["rope_scaling"] = rope
    path.write_text(json.dumps(config | case.mlx | older))


@torch.no_grad()
def of_transformers(case, folder):
    model = getattr(transformers, case.auto).from_pretrained(folder, dtype=torch.float32).float().eval()
    return model(torch.tensor([TOKENS])).logits[0]


def of_mlx(folder):
    model, _ = mlx_lm.utils.load_model(folder)
    return torch.tensor(model(mx.array([TOKENS])).astype(mx.float32)[0].tolist())


def of_planish(target, folder):
    """None where planish has no such family."""
    families = json.loads(subprocess.run([target / "planish", "models", "--json"], check=True, capture_output=True).stdout)
    kinds = [family["model_type"] for family in families["families"]]
    if json.loads((folder / "config.json").read_text())["model_type"] not in kinds:
        return None
    out = folder / "logits.f32"
    prompts = json.dumps({"prompts": [TOKENS], "new_tokens": 0})
    subprocess.run([target / "examples/logits", folder, out], input=prompts, check=True, capture_output=True, text=True)
    return torch.from_file(str(out), size=out.stat().st_size // 4, dtype=torch.float32).reshape(len(TOKENS), -1)


def difference(found, expected):
    return None if found is None else float((found - expected).norm() / expected.norm())


def compare(case, target, folder):
    """mlx-lm against planish, and against transformers; None where a family has no such way."""
    source, packed, plain = folder / "source", folder / "packed", folder / "plain"
    random_checkpoint(case, source)
    run = lambda *words: subprocess.run([target / "planish", *map(str, words)], check=True, capture_output=True, text=True)
    flags = ["--format", "mlx", "--bits", 4, "--group-size", 32, "--dtype", "float32"]
    run("quantize", source, "--out", packed, *flags)
    found = of_mlx(packed)
    ours = difference(of_planish(target, packed), found)
    if case.kind == "gpt_oss":  # its stacks keep the names of MLX when unpacked
        return ours, None
    run("dequantize", packed, "--out", plain)
    return ours, difference(of_transformers(case, plain), found)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--target", default="target/release", type=lambda path: pathlib.Path(path).resolve())
    parser.add_argument("labels", nargs="*", metavar="LABEL")
    arguments = parser.parse_args()
    failures = 0
    for group in ("dense", "experts", "hybrids"):
        for case in MODELS[group]:
            label = case.label or case.kind
            if case.mlx_only or (arguments.labels and not any(fnmatch.fnmatch(label, name) for name in arguments.labels)):
                continue
            with tempfile.TemporaryDirectory() as folder:
                try:
                    ours, theirs = compare(case, arguments.target, pathlib.Path(folder))
                    compared = [("planish", ours), ("transformers", theirs)]
                    compared = [(name, error) for name, error in compared if error is not None]
                    fine = all(error < LIMIT for _, error in compared)
                    failures += not fine
                    shown = ", ".join(f"{name} {error:.1e}" for name, error in compared)
                    print(f"{'ok  ' if fine else 'FAIL'} {label}: {shown}", flush=True)
                except subprocess.CalledProcessError as problem:
                    failures += 1
                    print(f"FAIL {label}: planish: {problem.stderr.strip().splitlines()[-1]}", flush=True)
                except Exception as problem:
                    missing = "not supported" in str(problem)
                    failures += not missing
                    text = str(problem).strip().splitlines()[0][:160] if str(problem).strip() else ""
                    print(f"{'none' if missing else 'FAIL'} {label}: {type(problem).__name__}: {text}", flush=True)
    sys.exit(failures)


main()
