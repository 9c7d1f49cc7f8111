# Trains the demo model on the stories: AdamW, bf16 autocast, cosine schedule over a given time, stories packed into rows of
# 512 tokens. In the last part every other step runs with weights rounded to 4 bits, so that packing costs little.
# Usage: train.py stories.jsonl TOKENIZER_DIR OUT_DIR --seconds 400      (resumes nothing; saves bf16 weights as it goes)
import argparse
import copy
import json
import math
import pathlib
import random
import time

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import Tokenizer

from model import CONFIG, Model

BEGIN, END, PAD = 0, 1, 2
ROW = 512
HELD_OUT = 2000


def read_stories(path):
    """Shuffled; the first HELD_OUT are never trained on."""
    with open(path) as file:
        stories = [json.loads(line) for line in file]
    random.Random(1).shuffle(stories)
    return stories


def encode(stories, tokenizer):
    encoded = [[BEGIN, *e.ids, END] for e in tokenizer.encode_batch_fast(stories, add_special_tokens=False)]
    return [ids for ids in encoded if len(ids) <= ROW]


def pack(encoded):
    """Whole stories into rows of ROW + 1 tokens, in the order given, each into the first of a few open rows that has room."""
    rows, open_rows = [], []
    for ids in encoded:
        home = next((row for row in open_rows if len(row) + len(ids) <= ROW + 1), None)
        if home is None:
            if len(open_rows) == 64:
                fullest = max(range(64), key=lambda i: len(open_rows[i]))
                rows.append(open_rows.pop(fullest))
            home = []
            open_rows.append(home)
        home.extend(ids)
    table = np.full((len(rows) + len(open_rows), ROW + 1), PAD, dtype=np.int16)
    for index, row in enumerate(rows + open_rows):
        table[index, :len(row)] = row
    return torch.from_numpy(table)


def loss_of(model, rows, bits):
    rows = rows.long()
    targets = rows[:, 1:].clone()
    targets[(targets == PAD) | (targets == BEGIN)] = -100
    logits = model(rows[:, :-1], bits)
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=-100)


@torch.no_grad()
def perplexity(model, encoded, bits, device):
    """Over single stories, each from BEGIN, END included; every linear weight rounded to `bits` (0: bf16)."""
    rounded = copy.deepcopy(model)
    rounded.round_weights(bits)
    total, count = 0.0, 0
    for first in range(0, len(encoded), 100):
        part = encoded[first:first + 100]
        rows = torch.full((len(part), max(map(len, part))), PAD)
        for row, ids in zip(rows, part):
            row[:len(ids)] = torch.tensor(ids)
        rows = rows.to(device)
        targets = rows[:, 1:].masked_fill(rows[:, 1:] == PAD, -100)
        total += F.cross_entropy(rounded(rows[:, :-1]).flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="sum").item()
        count += (targets >= 0).sum().item()
    return math.exp(total / count)


def groups_of(model):
    """Decay for matrices; none for norms and the embedding."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    return [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]


def save(model, folder):
    tensors = {f"model.{name}": p.detach().to(torch.bfloat16).cpu().contiguous() for name, p in model.named_parameters()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def train(model, rows, options):
    optimizer = torch.optim.AdamW(groups_of(model), lr=options.rate, betas=(0.9, 0.98), fused=options.device == "cuda")
    compiled = torch.compile(loss_of, dynamic=False) if options.device == "cuda" else loss_of

    def advance(batch, bits):
        with torch.autocast(options.device, dtype=torch.bfloat16):
            loss = compiled(model, batch, bits)
        loss.backward()
        return loss

    for bits in (0, 4):  # compile both before the clock starts
        advance(rows[:options.batch].to(options.device), bits)
        optimizer.zero_grad()
    begun = shown = saved = time.time()
    step, epoch, order = 0, 0, []
    while (done := (time.time() - begun) / options.seconds) < 1 and step < options.steps:
        if len(order) < options.batch:
            order, epoch = torch.randperm(len(rows)).tolist(), epoch + 1
        batch, order = rows[order[:options.batch]].to(options.device), order[options.batch:]
        rate = options.rate * min(1, (step + 1) / 200) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = advance(batch, 4 if done > options.rounding_from and step % 2 else 0)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        if step % 20 == 0:
            torch.cuda.synchronize() if options.device == "cuda" else None
        now = time.time()
        if now - shown > 10:
            print(f"step {step} epoch {epoch} loss {loss.item():.4f} rate {rate:.2e} "
                  f"{step * options.batch * ROW / (now - begun) / 1e6:.2f} M tokens/s", flush=True)
            shown = now
        if now - saved > 60:
            save(model, options.folder)
            saved = now
    return step, epoch


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("stories")
    parser.add_argument("tokenizer", type=pathlib.Path)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--seconds", type=float, default=400)
    parser.add_argument("--steps", type=int, default=10**9)
    parser.add_argument("--batch", type=int, default=192)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--rounding-from", type=float, default=0.7)
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    options.folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer.from_file(str(options.tokenizer / "tokenizer.json"))
    stories = read_stories(options.stories)
    held_out = encode(stories[:HELD_OUT], tokenizer)
    (options.folder / "held-out.json").write_text(json.dumps(stories[:HELD_OUT]))
    encoded = encode(stories[HELD_OUT:], tokenizer)
    tokens = sum(map(len, encoded))
    rows = pack(encoded)
    print(f"{len(encoded)} stories, {tokens} tokens, {len(rows)} rows, {tokens / rows.numel():.3f} full", flush=True)
    model = Model().to(options.device)
    print(f"{sum(p.numel() for p in model.parameters())} parameters", flush=True)
    step, epoch = train(model, rows, options)
    save(model, options.folder)
    result = {"stories": len(encoded), "tokens": tokens, "words": sum(len(text.split()) for text in stories), "seconds": options.seconds,
              "parameters": sum(p.numel() for p in model.parameters()), "steps": step, "epochs": epoch, "batch_rows": options.batch, **CONFIG,
              "perplexity": {bits or "float": perplexity(model, held_out, bits, options.device) for bits in (0, 8, 4, 2)}}
    (options.folder / "result.json").write_text(json.dumps(result, indent=2))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
