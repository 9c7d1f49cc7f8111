"""planish against transformers and mlx-lm on the same packed checkpoints of SmolLM2-135M-Instruct.

From the GGUF file planish makes metal outputs (2, 4, 8 bits) and MLX outputs (2, 3, 4, 5, 6, 8 bits). transformers loads the first
on the CPU (which dequantizes them), mlx-lm the second; logits of 10 prompts and 64 greedy tokens after each are compared with
planish in f32 arithmetic. Where greedy tokens part, the last column says how close the two tokens were for the peer: the difference
of their logits, relative to the standard deviation of all logits. Scales are float32 (--dtype), so that all three compute with the very same weights; one row for each
dialect has the scales of a user's default instead.

    cargo build --release -p planish-cli -p planish --bins --example logits
    python scripts/compare_peers.py MODEL.gguf [--only mlx-4]

Needs transformers 5.23, torch, mlx-lm 0.32. Exits with 1 where, with float32 scales, logits differ by more than 1e-3 or greedy
tokens part at more than a tie (1e-3).
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import mlx.core as mx
import mlx_lm
import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = pathlib.Path(__file__).parent.parent
RUNS = [("metal", bits, "float32") for bits in (2, 4, 8)] + [("mlx", bits, "float32") for bits in (2, 3, 4, 5, 6, 8)]
RUNS += [("metal", 4, None), ("mlx", 4, None)]
LIMIT = 1e-3
NEW_TOKENS = 64
PROMPTS = [
    "The capital of France is", "Once upon a time, in a village by the sea,", "def fibonacci(n):\n", "Water boils at",
    "The three laws of thermodynamics say that", "Dear Sir or Madam,\n\nI am writing to", "1, 1, 2, 3, 5, 8,",
    "<|im_start|>user\nWhy is the sky blue?<|im_end|>\n<|im_start|>assistant\n", "In 1969, the first people",
    "A recipe for bread: take flour,",
]


def planish(program, folder, prompts, count, scratch):
    request = json.dumps({"prompts": prompts, "new_tokens": count})
    done = subprocess.run([program, folder, scratch], input=request, capture_output=True, text=True, check=True)
    rows = sum(map(len, prompts))
    return np.fromfile(scratch, dtype="<f4").reshape(rows, -1), json.loads(done.stdout)["greedy"]


def with_transformers(folder, prompts, count):
    model = AutoModelForCausalLM.from_pretrained(folder, device_map="cpu", dtype=torch.float32)
    logits, steps = [], []
    with torch.no_grad():
        for prompt in prompts:
            output = model(torch.tensor([prompt]), use_cache=True)
            logits.append(output.logits[0].numpy())
            rows = [output.logits[0, -1].numpy()]
            while len(rows) < count:
                token = torch.tensor([[int(rows[-1].argmax())]])
                output = model(token, past_key_values=output.past_key_values, use_cache=True)
                rows.append(output.logits[0, -1].numpy())
            steps.append(rows)
    return np.concatenate(logits), steps


def with_mlx(folder, prompts, count):
    model, _ = mlx_lm.load(str(folder))
    model.set_dtype(mx.float32)
    logits, steps = [], []
    for prompt in prompts:
        cache = mlx_lm.models.cache.make_prompt_cache(model)
        output = model(mx.array([prompt]), cache=cache)
        logits.append(np.array(output[0]))
        rows = [logits[-1][-1]]
        while len(rows) < count:
            rows.append(np.array(model(mx.array([[int(rows[-1].argmax())]]), cache=cache)[0, -1]))
        steps.append(rows)
    return np.concatenate(logits), steps


def parting(tokens, rows):
    """How far apart, for the peer, the two tokens are where greedy decoding parts; None where it does not."""
    for token, row in zip(tokens, rows):
        if token != row.argmax():
            return float((row.max() - row[token]) / row.std())
    return None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("gguf", type=pathlib.Path)
    parser.add_argument("--only", help="one run, as in the table: metal-4, mlx-3, ..")
    parser.add_argument("--new-tokens", type=int, default=NEW_TOKENS, help="greedy tokens after each prompt (64)")
    arguments = parser.parse_args()
    count = arguments.new_tokens
    programs = ROOT / "target/release"
    failed = False
    print(f"transformers {transformers.__version__}, torch {torch.__version__}, mlx-lm {mlx_lm.__version__}, f32, group 64")
    print("| checkpoint | scales | peer | relative error of logits | greedy tokens equal | gap where they part |")
    print("|---|---|---|---|---|---|", flush=True)
    for target, bits, dtype in RUNS:
        if arguments.only not in (None, f"{target}-{bits}"):
            continue
        with tempfile.TemporaryDirectory() as scratch:
            scratch = pathlib.Path(scratch)
            command = [programs / "planish", "quantize", arguments.gguf, "--out", scratch / "model", "--format", target]
            command += ["--bits", str(bits)] + (["--dtype", dtype] if dtype else [])
            subprocess.run(command, check=True, capture_output=True)
            tokenizer = AutoTokenizer.from_pretrained(scratch / "model")
            prompts = [tokenizer(prompt)["input_ids"] for prompt in PROMPTS]
            ours, our_tokens = planish(
                programs / "examples/logits", scratch / "model", prompts, count, scratch / "logits.f32"
            )
            peer = with_transformers if target == "metal" else with_mlx
            theirs, steps = peer(scratch / "model", prompts, count)
        error = float(np.linalg.norm(ours.astype(np.float64) - theirs) / np.linalg.norm(theirs.astype(np.float64)))
        partings = [gap for gap in map(parting, our_tokens, steps) if gap is not None]
        name = "transformers" if target == "metal" else "mlx-lm"
        gaps = ", ".join(f"{gap:.1e}" for gap in partings)
        row = [f"{target}-{bits}", dtype or "float16", name, f"{error:.1e}", f"{len(prompts) - len(partings)} of {len(prompts)}"]
        print("| " + " | ".join([*row, gaps]) + " |", flush=True)
        failed |= dtype is not None and (error > LIMIT or any(gap > LIMIT for gap in partings))
    sys.exit(failed)


main()
