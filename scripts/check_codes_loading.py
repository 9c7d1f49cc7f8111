"""Files of every way to choose codes load in transformers and mlx-lm and give planish's logits; sizes and rates are those of MLX's codes.

    cargo build --release -p planish-cli
    python scripts/check_codes_loading.py [--planish target/release/planish] [--work DIR] [--only calibrated] [--threads 1]

The story model (models/demo-float), in both dialects. A file's logits of the first 256 tokens of models/demo/held-out.txt by
`planish evaluate --exact --logits` stand beside those of transformers, which unpacks the metal dialect where there is no Apple GPU, and
of mlx-lm on the processor; both compute in float32 here. transformers unpacks into bfloat16, so planish runs on what `planish dequantize`
makes of such a file, which rounds alike; what that rounding does to logits is printed too. Sizes must be those of `--method mlx` at the same bits to a byte of tensors;
decode rates by `planish bench`, three rounds in turns, are printed. Prints a Markdown table; exits with the number of files that fail.

Run by a Python that lacks what it needs, it makes the virtual environment WORK/venv and runs itself there.
"""

import argparse
import json
import pathlib
import statistics
import struct
import subprocess
import sys
import venv

ROOT = pathlib.Path(__file__).resolve().parent.parent
PLAIN, JUDGE = ROOT / "models/demo-float", ROOT / "models/demo/held-out.txt"
NEEDED = ["transformers==5.23.0", "torch==2.15.0", "mlx[cpu]==0.32.4", "mlx-lm==0.32.2", "safetensors==0.8.0", "numpy==2.4.6"]
# Differences of logits whose size is about 10, all in float32: no more than orders of sums make.
BOUND = 2e-3
TOKENS = 256

METHODS = ("transformers", "mlx", "mlx-cpu", "search", "weighted", "calibrated")
RUNS = [("metal", bits, ["--bits", bits, "--method", method]) for bits in ("2", "4", "8") for method in METHODS]
RUNS += [("mlx", bits, ["--bits", bits, "--method", method]) for bits in ("2", "3", "4") for method in METHODS]
RUNS += [("mlx", bits, ["--bits", bits, "--method", method]) for bits in ("5", "6", "8") for method in ("mlx", "search")]
RUNS += [
    ("mlx", None, ["--budget", "2.75"]),
    ("mlx", None, ["--budget", "2.75", "--method", "calibrated"]),
    ("mlx", None, ["--recipe", "mixed_3_6"]),
    ("mlx", None, ["--recipe", "q3_k_m", "--method", "weighted"]),
]


def in_environment(work):
    """Whether this Python has what is needed; else the script runs in one that has, and ends."""
    try:
        import mlx_lm  # noqa: F401
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError:
        python = work / "venv/bin/python"
        if pathlib.Path(sys.executable) == python:
            raise
        venv.create(work / "venv", with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *NEEDED], check=True)
        sys.exit(subprocess.run([python, *sys.argv]).returncode)


def transformers_logits(folder, tokens):
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    model, told = AutoModelForCausalLM.from_pretrained(folder, device_map="cpu", output_loading_info=True)
    told = {key: value for key, value in told.items() if value}
    if told:
        raise RuntimeError(f"loading told {told}")
    with torch.no_grad():
        return model.float()(torch.tensor(tokens)[None]).logits[0].float().numpy()


def mlx_logits(folder, tokens):
    import mlx.core as mx
    import numpy as np
    from mlx_lm import utils

    mx.set_default_device(mx.cpu)
    model, _ = utils.load_model(folder)
    model.set_dtype(mx.float32)
    return np.array(model(mx.array(tokens)[None])[0])


class Check:
    def __init__(self, arguments):
        self.planish, self.work, self.threads = arguments.planish.resolve(), arguments.work, str(arguments.threads)
        self.sizes = {}  # of MLX's codes, by dialect and bits

    def run(self, *command):
        ran = subprocess.run([str(part) for part in (self.planish, *command)], capture_output=True, text=True)
        if ran.returncode:
            raise RuntimeError(f"planish {command[0]}: {ran.stderr.strip().splitlines()[-1]}")
        return ran.stdout

    def quantize(self, target, flags):
        out = self.work / "-".join(["out", target, *(flag.strip("-") for flag in flags)])
        text = ["--text-tokens", 2048] if {"weighted", "calibrated"} & set(flags) else []
        self.run("quantize", PLAIN, "--out", out, "--format", target, "--force", *flags, *text)
        return out

    def usual_size(self, target, bits):
        if (target, bits) not in self.sizes:
            self.sizes[target, bits] = tensor_bytes(self.quantize(target, ["--bits", bits, "--method", "mlx"]))
        return self.sizes[target, bits]

    def difference(self, target, folder):
        """The largest difference of a logit, and that which rounding unpacked weights to bfloat16 makes."""
        import numpy as np

        peer = transformers_logits if target == "metal" else mlx_logits
        tokens, packed = self.logits(folder)
        found = peer(folder, tokens)
        if target == "mlx":
            return float(np.abs(found - packed).max()), 0.0
        unpacked = self.work / "unpacked"
        self.run("dequantize", folder, "--out", unpacked, "--force")
        rounded = self.logits(unpacked)[1]
        return float(np.abs(found - rounded).max()), float(np.abs(rounded - packed).max())

    def logits(self, folder):
        """Tokens and what planish makes of them."""
        from safetensors.numpy import load_file

        logits = self.work / "logits.safetensors"
        self.run("evaluate", folder, "--text", JUDGE, "--context", TOKENS, "--pieces", 1, "--exact", "--threads", self.threads, "--logits", logits)
        found = load_file(logits)
        return found["tokens"].tolist(), found["logits"]

    def rate(self, folder):
        told = self.run("bench", folder, "--threads", self.threads, "--prompt-tokens", 64, "--generate-tokens", 64, "--repeat", 3, "--json")
        return json.loads(told)["decode_tokens_per_s"]


def tensor_bytes(folder):
    total = 0
    for path in folder.glob("*.safetensors"):
        with open(path, "rb") as file:
            total += path.stat().st_size - 8 - struct.unpack("<Q", file.read(8))[0]
    return total


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--planish", type=pathlib.Path, default=ROOT / "target/release/planish")
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("codes-loading"))
    parser.add_argument("--only", default="", help="runs whose flags hold this")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    in_environment(arguments.work.resolve())
    check, failures, rows = Check(arguments), 0, []
    print("| codes | largest difference of a logit | by rounding to bfloat16 | bytes of tensors | as with mlx |\n|---|---|---|---|---|")
    for target, bits, flags in RUNS:
        name = f"{target} {' '.join(flags)}"
        if arguments.only not in name:
            continue
        try:
            folder = check.quantize(target, flags)
            (difference, rounding), size = check.difference(target, folder), tensor_bytes(folder)
            same = None
            if bits:
                same = size == check.usual_size(target, bits)
            failed = not difference <= BOUND or same is False
        except RuntimeError as error:
            print(f"| {name} | {error} | | | |", flush=True)
            failures += 1
            continue
        failures += failed
        rows.append((name, folder, target, bits))
        words = {None: "", True: "yes", False: "NO"}[same]
        above = "" if difference <= BOUND else " ABOVE"
        print(f"| {name} | {difference:.1e}{above} | {f'{rounding:.1e}' if rounding else ''} | {size} | {words} |", flush=True)
    print("\nDecode, tokens/s, over that of --method mlx:")
    for bits in ("2", "3", "4"):
        folders = {" ".join(name.split()[4:]): folder for name, folder, target, at in rows if target == "mlx" and at == bits}
        rounds = [{method: check.rate(folder) for method, folder in folders.items()} for _ in range(3)]
        if "mlx" not in folders:
            continue
        for method in folders:
            ratios = [round[method] / round["mlx"] for round in rounds]
            rates = [round[method] for round in rounds]
            print(f"| {bits} bits, {method} | {statistics.median(rates):.0f} | {statistics.median(ratios):.2f} |")
    sys.exit(failures)


main()
