"""What learning scales and biases by gradients adds to chosen codes: their divergence from the plain model before and after some steps.

    python3 scripts/gpu/distill.py PLAIN PACKED... --judge TEXT [--steps 20 100 400] [--rate 1e-3] [--pieces 64]

PLAIN is a folder that transformers loads, PACKED are folders of it in MLX's format, by `planish quantize --format mlx`; codes stay as they
are. The text to learn from is the model's own writing (--pieces of 512 tokens, temperature 1, seed 1), the loss the KL divergence of the next
token, Adam's steps are of 2048 tokens with scales and biases as multiples of what they were. The judge is `planish evaluate`'s: second halves of
the first 6 pieces of 512 tokens of --judge. Needs torch with a GPU, transformers, safetensors.
"""

import argparse
import copy
import json
import pathlib
import time

import numpy as np
import torch
from safetensors import safe_open
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer

PIECE, BATCH, JUDGED = 512, 4, 6


class Packed(torch.nn.Module):
    """A linear layer of fixed codes, whose scales and biases are learned."""

    def __init__(self, words, scales, biases, bits):
        super().__init__()
        rows, groups = scales.shape
        # Codes are one stream of bits in each row, the lowest first.
        stream = np.unpackbits(words.numpy().view(np.uint8).reshape(rows, -1), axis=1, bitorder="little")
        codes = (stream.reshape(rows, -1, bits) << np.arange(bits, dtype=np.uint8)).sum(axis=2, dtype=np.uint8)
        self.register_buffer("codes", torch.from_numpy(codes).reshape(rows, groups, -1))
        self.register_buffer("scales", scales.float())
        self.register_buffer("biases", biases.float())
        self.factor = torch.nn.Parameter(torch.ones_like(self.scales))
        self.shift = torch.nn.Parameter(torch.zeros_like(self.scales))

    def forward(self, x):
        scales, biases = self.scales * self.factor, self.biases + self.scales * self.shift
        weight = torch.addcmul(biases[..., None], self.codes.float(), scales[..., None])
        return functional.linear(x, weight.flatten(1))


def student_of(plain, folder):
    student = copy.deepcopy(plain)
    bits = json.loads((folder / "config.json").read_text())["quantization"]["bits"]
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():
                if name.endswith(".scales"):
                    module = name.removesuffix(".scales")
                    parts = [file.get_tensor(f"{module}.{part}") for part in ("weight", "scales", "biases")]
                    student.set_submodule(module, Packed(*parts, bits).cuda())
    student.requires_grad_(False)
    for module in student.modules():
        if isinstance(module, Packed):
            module.factor.requires_grad_(True), module.shift.requires_grad_(True)
    return student


def own_writing(plain, tokenizer, pieces):
    torch.manual_seed(1)
    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    begin = torch.full((pieces, 1), first, device="cuda")
    written = plain.generate(begin, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, min_new_tokens=PIECE - 1, max_new_tokens=PIECE - 1)
    return written[:, :PIECE]


def divergence(plain, student, tokens):
    """Of each token's successor. // (pieces, tokens)"""
    with torch.no_grad():
        expected = plain(tokens).logits.log_softmax(-1)
    return functional.kl_div(student(tokens).logits.log_softmax(-1), expected, log_target=True, reduction="none").sum(-1)


def judge(plain, student, tokens):
    torch.set_float32_matmul_precision("highest")
    with torch.no_grad():
        found = [divergence(plain, student, piece[None])[0, PIECE // 2 : -1] for piece in tokens]
    torch.set_float32_matmul_precision("high")
    return torch.cat(found).mean().item()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plain", type=pathlib.Path)
    parser.add_argument("packed", type=pathlib.Path, nargs="+")
    parser.add_argument("--judge", type=pathlib.Path, required=True)
    parser.add_argument("--steps", type=int, nargs="+", default=[20, 100, 400])
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--pieces", type=int, default=64)
    arguments = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(arguments.plain)
    plain = AutoModelForCausalLM.from_pretrained(arguments.plain, dtype=torch.float32).cuda().eval().requires_grad_(False)
    judged = torch.tensor(tokenizer(arguments.judge.read_text()).input_ids[: JUDGED * PIECE], device="cuda").reshape(-1, PIECE)
    text = own_writing(plain, tokenizer, arguments.pieces)
    for folder in arguments.packed:
        student = student_of(plain, folder)
        print(f"{folder.name}: before {judge(plain, student, judged):.4f}", flush=True)
        learned = [parameter for parameter in student.parameters() if parameter.requires_grad]
        optimizer = torch.optim.Adam(learned, lr=arguments.rate)
        start, order = time.monotonic(), torch.Generator().manual_seed(1)
        for step in range(1, max(arguments.steps) + 1):
            rows = torch.randperm(len(text), generator=order)[:BATCH]
            loss = divergence(plain, student, text[rows]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step in arguments.steps:
                seconds = time.monotonic() - start
                print(f"{folder.name}: {step} steps, {seconds:.0f} s: loss {loss.item():.4f}, judged {judge(plain, student, judged):.4f}", flush=True)


if __name__ == "__main__":
    main()
