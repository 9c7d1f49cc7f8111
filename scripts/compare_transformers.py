"""Compares planish with transformers on the same weights: logits of every position and greedy continuations.

Usage: compare_transformers.py PLANISH MODEL TEXT [--tolerance 1e-3]. MODEL is a folder that both read (plain, or metal, which
transformers dequantizes on the CPU; weights in float32 so that no rounding differs). planish runs with --exact. Fails when the
logits of a position differ by more than the tolerance, relative to their largest, or a greedy text differs.
Needs torch, transformers, safetensors.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import safetensors.torch
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.integrations import metal_quantization

PROMPTS = ["The capital of France is", "Once upon a time", "def fibonacci(n):", "Water boils at", "The three primary colors are",
           "In 1969, humans", "Dear Sir or Madam,", "The opposite of hot is", "A prime number is", "My favourite recipe:"]
NEW_TOKENS = 64


def load(folder):
    """The model in float32; packed weights are unpacked in float32 too, not in the type of their scales."""
    def convert(self, input_dict, full_layer_name=None, **kwargs):
        config = self.hf_quantizer.quantization_config
        parts = {key: value[0] if isinstance(value, list) else value for key, value in input_dict.items()}
        if "scales" not in parts:
            return {full_layer_name: parts["weight"]}
        weight = metal_quantization._affine_dequantize_tensor(
            parts["weight"], parts["scales"], parts["qbiases"], config.group_size, config.bits)
        return {full_layer_name: weight}
    metal_quantization.MetalDequantize.convert = convert
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, device_map="cpu").float().eval()


def compare_logits(planish, folder, text, model):
    with tempfile.TemporaryDirectory() as scratch:
        path = pathlib.Path(scratch, "logits.safetensors")
        command = [planish, "evaluate", folder, "--text", text, "--exact", "--chunks", "1", "--logits", path, "--json"]
        report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        ours = safetensors.torch.load_file(path)
    with torch.no_grad():
        theirs = model(ours["tokens"].long()[None]).logits[0]
    worst = ((ours["logits"] - theirs).abs().amax(-1) / theirs.abs().amax(-1)).max().item()
    half = len(theirs) // 2
    surprise = torch.nn.functional.cross_entropy(theirs[half:-1], ours["tokens"].long()[half + 1:])
    print(f"logits: worst relative difference {worst:.2e} over {len(theirs)} positions; "
          f"perplexity {report['perplexity']:.4f}, transformers {surprise.exp().item():.4f}")
    return worst


def compare_greedy(planish, folder, tokenizer, model):
    different = 0
    for prompt in PROMPTS:
        command = [planish, "generate", folder, "--prompt", prompt, "--raw", "--exact", "--temperature", "0",
                   "--max-new-tokens", str(NEW_TOKENS)]
        ours = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        ids = tokenizer(prompt, return_tensors="pt")
        with torch.no_grad():
            output = model.generate(**ids, do_sample=False, max_new_tokens=NEW_TOKENS, repetition_penalty=1.0)
        theirs = tokenizer.decode(output[0, ids["input_ids"].shape[1]:], skip_special_tokens=True)
        same = theirs.strip() in ours
        different += not same
        print(f"{'same' if same else 'DIFFERENT'}: {prompt!r} {theirs[:50]!r}")
        if not same:
            print(f"  planish: {ours!r}\n  transformers: {theirs!r}")
    return different


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("planish", "model", "text"):
        parser.add_argument(name)
    parser.add_argument("--tolerance", type=float, default=1e-3)
    arguments = parser.parse_args()
    model = load(arguments.model)
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    worst = compare_logits(arguments.planish, arguments.model, arguments.text, model)
    different = compare_greedy(arguments.planish, arguments.model, tokenizer, model)
    sys.exit(worst > arguments.tolerance or different > 0)


if __name__ == "__main__":
    main()
